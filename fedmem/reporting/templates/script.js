"use strict";
(function () {
  const table = document.querySelector("table.examples");
  const controls = document.querySelector(".controls");
  if (!table || !controls) return;
  const body = table.tBodies[0];
  const rest = document.querySelector("details.rest");
  const rows = Array.from(document.querySelectorAll("table.examples > tbody > tr"));
  const total = rows.length;
  if (rest) rest.hidden = true;
  controls.hidden = false;
  const field = (name) => controls.querySelector("[name=" + name + "]");
  const more = document.querySelector("button.more");
  const status = document.querySelector(".status");
  const step = Number(table.dataset.step);
  let limit = step;

  function number(row, key) {
    const text = row.dataset[key];
    return text === undefined || text === "" ? -Infinity : Number(text);
  }

  function update() {
    const kind = field("kind").value;
    const owner = field("owner").value;
    const wanted = field("find").value.trim().toLowerCase();
    const sort = field("sort").value;
    const ordered = rows.slice();
    const place = (row) => Number(row.dataset.place);
    if (sort === "example") ordered.sort((a, b) => number(a, "subject") - number(b, "subject"));
    else ordered.sort((a, b) => number(b, sort) - number(a, sort) || place(a) - place(b));
    let matching = 0;
    for (const row of ordered) {
      const fits = (kind === "" || row.dataset.kind === kind) && (owner === "" || row.dataset.owner === owner) &&
        (wanted === "" || row.textContent.toLowerCase().includes(wanted));
      if (fits) matching += 1;
      row.hidden = !fits || matching > limit;
      body.appendChild(row);
    }
    const shown = Math.min(matching, limit);
    status.textContent = shown + " of " + matching + " shown" + (matching < total ? ", filtered from " + total : "");
    more.hidden = matching <= limit;
  }

  controls.addEventListener("input", () => { limit = step; update(); });
  more.addEventListener("click", () => { limit += 5 * step; update(); });
  update();
})();
