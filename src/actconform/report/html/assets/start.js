// Routing by the address, and keys.

const main = document.getElementById("main");

function showMap() {
  const map = element(
    "section",
    { id: "map-part" },
    element("h2", { id: "map-head" }, "Subjects by routes"),
    controls(),
    element("div", { id: "map" }, grid()),
    key(),
  );
  main.replaceChildren(
    ...[counts(), news(), map, training(), deviations(), throughput(), selftest(), factsTable()].filter(Boolean),
  );
  document.title = `actconform: ${data.conforms ? "conforms" : "does not conform"}`;
}

function show(moved) {
  let [kind, value] = location.hash.slice(1).split(/=(.*)/s);
  try {
    value = decodeURIComponent(value || "");
  } catch {
    // not encoded: as it is
  }
  tip.hidden = true;
  if (kind === "case" || kind === "cell") {
    main.replaceChildren(kind === "case" ? caseView(value) : cellView(value));
    document.title = `${value} · actconform`;
    main.querySelector("h2").focus({ preventScroll: true });
    scrollTo(0, 0);
    return;
  }
  if (!document.getElementById("map")) showMap();
  const part = document.getElementById(kind === "map" ? "map-part" : kind);
  if (part && kind) part.scrollIntoView();
  else if (moved && memory.cell) document.querySelector(`a.cell[data-key="${CSS.escape(memory.cell)}"]`)?.focus();
}

document.getElementById("top").append(...header().filter(Boolean));
document
  .getElementById("foot")
  .append(`${count(cases.length, "case")} · report.json beside this page holds every number to its last digit`);
nameTheme();
addEventListener("hashchange", () => show(true));
addEventListener("click", (event) => {
  const cell = event.target.closest("a.cell");
  if (cell) memory.cell = cell.dataset.key;
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (tip.hidden && location.hash) location.hash = "#";
    tip.hidden = true;
  }
  searchByKey(event);
});
show(false);
