"use strict";
// Tables of the class sorts: a button in each heading sorts, a group of controls with data-table filters.
// A cell sorts by its data-value as a number, where it has one, else by its text; what is empty comes last.
(() => {
  for (const table of document.querySelectorAll("table.sorts")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  }

  function sort(table, column, down) {
    const key = (row) => {
      const cell = row.cells[column];
      const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim().toLowerCase();
      return "value" in cell.dataset && text !== "" ? Number(text) : text;
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([one], [other]) => {
      if (one === "" || other === "") return (one === "") - (other === "");
      const order = typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }

  for (const group of document.querySelectorAll("[data-table]")) {
    const rows = [...document.getElementById(group.dataset.table).tBodies[0].rows];
    const filters = [...group.querySelectorAll("[data-filter]")];
    const search = group.querySelector("[data-search]");
    const count = group.querySelector("[data-count]");
    const show = () => {
      const words = search.value.trim().toLowerCase();
      for (const row of rows)
        row.hidden = !row.textContent.toLowerCase().includes(words) ||
          filters.some((one) => one.value && row.dataset[one.dataset.filter] !== one.value);
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
    };
    group.addEventListener("input", show);
    group.hidden = false;
    show();
  }
})();
