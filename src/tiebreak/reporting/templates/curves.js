"use strict";
// Curves with hover and zoom, in the place of the pictures that are printed. Without it the pictures stay.
(() => {
  const data = JSON.parse(document.getElementById("curves-data").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const coarse = matchMedia("(pointer:coarse)").matches;  // there a drag scrolls the page
  const form = {
    points: (line) => ({ mode: "markers", marker: { color: colour(line.colour), size: 5, opacity: 0.7 } }),
    line: (line) => ({ mode: "lines", line: { color: colour(line.colour), width: 2 } }),
    marked: (line) => ({ mode: "lines+markers", line: { color: colour(line.colour), width: 2 }, marker: { size: 7 } }),
    place: (line) => ({ mode: "markers", marker: { color: colour(line.colour), size: 12, symbol: "diamond" } }),
    bars: (line) => ({ type: "bar", x: middles(line.x), width: line.x[1] - line.x[0],
                       marker: { color: colour(line.colour), line: { color: colour("page"), width: 1 } } }),
    steps: (line) => ({ mode: "lines", line: { color: colour(line.colour), width: 2, shape: "hv" },
                        x: [line.x[0], ...line.x], y: [0, ...line.y, 0] }),
  };
  const middles = (edges) => edges.slice(1).map((edge, place) => (edge + edges[place]) / 2);

  function traces(figure) {
    return figure.lines.map((line) => ({
      name: line.label, x: line.x, y: line.y, text: line.hover,
      hovertemplate: (line.hover.length ? "%{text}: " : "") + (figure.axes.share ? "%{y:.1%}" : "%{y:.5~g}"),
      ...form[line.form](line),
    }));
  }

  function layout(figure) {
    const grid = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true, exponentformat: "power",
                   title: { font: { size: 12 } } };
    const level = { type: "line", xref: "paper", x0: 0, x1: 1, y0: figure.level, y1: figure.level,
                    line: { color: colour("muted"), width: 1, dash: "dash" } };
    const y = { ...grid, title: { ...grid.title, text: figure.axes.y } };
    return {
      margin: { l: 10, r: 10, t: 10, b: 10 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      hoverlabel: { bgcolor: colour("soft"), bordercolor: colour("line"), font: { color: colour("ink") } },
      hovermode: "x unified", dragmode: coarse ? false : "zoom", barmode: "overlay",
      showlegend: new Set(figure.lines.map((line) => line.label)).size > 1,
      legend: { orientation: "h", x: 0, y: 1, xanchor: "left", yanchor: "bottom", font: { size: 11 } },
      xaxis: { ...grid, title: { ...grid.title, text: figure.axes.x } },
      yaxis: figure.axes.share ? { ...y, tickformat: ".0%", range: [-0.03, 1.03] }
        : figure.axes.zero ? { ...y, rangemode: "tozero" } : y,
      shapes: figure.level === null ? [] : [level],
    };
  }

  // The same numbers as a table, made when somebody opens it.
  function numbers(figure, details) {
    const table = document.createElement("table");
    const rows = new Map();
    figure.lines.forEach((line, column) => line.y.forEach((value, place) => {
      const row = rows.get(line.x[place]) || [];
      row[column] = value;
      rows.set(line.x[place], row);
    }));
    const heads = [figure.axes.x, ...figure.lines.map((line) => line.label)];
    const fill = (tag, row, values) => values.forEach((value, place) => {
      const cell = row.appendChild(document.createElement(place && tag === "td" ? "td" : "th"));
      cell.scope = tag === "th" ? "col" : "row";
      cell.textContent = value === undefined ? "" : value;
    });
    fill("th", table.createTHead().insertRow(), heads);
    const body = table.createTBody();
    [...rows.keys()].sort((one, other) => one - other).forEach((x) =>
      fill("td", body.insertRow(), [x, ...heads.slice(1).map((_, column) => rows.get(x)[column])]));
    const box = details.appendChild(document.createElement("div"));
    box.className = "wide";
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `Numbers of ${figure.name}`);
    box.append(table);
  }

  function place(element) {
    const figure = data[element.dataset.curve];
    const live = document.createElement("div");
    live.className = "live";
    live.setAttribute("role", "img");
    live.setAttribute("aria-label", element.querySelector("svg").getAttribute("aria-label"));
    const name = document.createElement("p");
    name.className = "name";
    name.textContent = figure.name;
    const details = document.createElement("details");
    details.className = "numbers";
    details.appendChild(document.createElement("summary")).textContent = "Numbers";
    details.addEventListener("toggle", () => numbers(figure, details), { once: true });
    element.querySelector("svg").after(name, live);
    element.append(details);
    element.classList.add("plotted");
    return () => Plotly.react(live, traces(figure), layout(figure), { displayModeBar: false, responsive: true });
  }

  async function unpacked(id) {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  async function draw() {
    const library = document.createElement("script");
    library.textContent = await unpacked("plotly");  // it runs since the page names its digest
    document.head.append(library);
    const all = [...document.querySelectorAll("figure[data-curve]")].map(place);
    const redraw = () => all.forEach((one) => one());
    redraw();
    matchMedia("(prefers-color-scheme:dark)").addEventListener("change", redraw);
    for (const note of document.querySelectorAll("p.scripted")) note.hidden = false;
    document.documentElement.dataset.curves = "drawn";
  }

  // A browser of before DecompressionStream keeps the pictures.
  if (typeof DecompressionStream === "function") draw();
})();
