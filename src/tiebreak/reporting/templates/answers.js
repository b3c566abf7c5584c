"use strict";
// Answers before and after: which are shown, in which order, and how many. Without it all of them are on the page.
(() => {
  const list = document.getElementById("answers-list");
  if (!list) return;
  const most = 8;
  const [mark, order, search, count] = ["mark", "order", "search", "count"].map(
    (name) => document.getElementById("answers-" + name));
  const samples = [...document.querySelectorAll("article.sample")];
  // What is searched is what was asked and answered, not what the page says of it.
  const said = (one) => {
    const bare = one.cloneNode(true);
    for (const label of bare.querySelectorAll(".side, .sub, .mark, .role, .more")) label.remove();
    return bare.textContent.toLowerCase();
  };
  const texts = new Map(samples.map((one) => [one, said(one)]));
  list.append(...samples);
  const rest = document.getElementById("answers-more");
  if (rest) rest.remove();

  const more = document.createElement("button");
  more.type = "button";
  more.className = "all";
  list.after(more);
  let all = false;
  more.addEventListener("click", () => {
    const next = [...list.children].find((one) => one.hidden);
    all = true;
    show();
    if (next) {  // whoever came by keyboard goes on where the new ones begin
      next.tabIndex = -1;
      next.focus();
    }
  });

  function show() {
    const words = search.value.trim().toLowerCase();
    const fit = samples.filter((one) =>
      (!mark.value || one.dataset.marks.split(" ").includes(mark.value)) && texts.get(one).includes(words));
    if (order.value) fit.sort((one, other) => other.dataset.length - one.dataset.length);
    const shown = all ? fit : fit.slice(0, most);
    for (const one of samples) one.hidden = true;
    for (const one of shown) one.hidden = false;
    list.append(...fit, ...samples.filter((one) => !fit.includes(one)));
    const found = fit.length === samples.length ? `all ${fit.length}` : `${fit.length} of ${samples.length} match`;
    count.textContent = shown.length === fit.length ? found : `${found}, the first ${shown.length} shown`;
    more.hidden = shown.length === fit.length;
    more.textContent = `Show all ${fit.length}`;
  }

  for (const control of [mark, order, search]) control.addEventListener("input", show);
  for (const part of document.querySelectorAll(".filters.scripted")) part.hidden = false;
  show();
})();
