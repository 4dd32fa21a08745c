// Routing by the address, and keys.

const main = document.getElementById("main");

function showMap() {
  const map = element(
    "section",
    { id: "map-part" },
    element("h2", { id: "map-head" }, "Subjects by routes"),
    element("div", { id: "map" }),
    key(),
  );
  const causes = element("section", { id: "known" }, element("h2", null, "Known, by cause"), element("div", { id: "known-lists" }));
  main.replaceChildren(
    ...[counts(), news(), controls(), causes, map, training(), throughput(), selftest(), factsTable()].filter(Boolean),
  );
  applyFilters();
  document.title = `actconform: ${data.conforms ? "conforms" : "does not conform"}`;
}

const VIEWS = { case: caseView, cell: cellView, cause: causeView };

/** Show what the address names: a case, a cell or a cause, else the whole run, filtered, from the part that is named. */
function show(moved) {
  const [kind, value] = location.hash.slice(1).split(/=(.*)/s);
  tip.hidden = true;
  if (Object.hasOwn(VIEWS, kind)) {
    const [name, ...words] = kind === "cell" ? (value || "").split("&") : [value];
    if (kind === "cell") takeFilters(words);
    main.replaceChildren(VIEWS[kind](decoded(name)));
    document.title = `${decoded(name)} · actconform`;
    main.querySelector("h2").focus({ preventScroll: true });
    scrollTo(0, 0);
    return;
  }
  const words = location.hash.slice(1).split("&");
  const before = address();
  takeFilters(words);
  if (!document.getElementById("map")) showMap();
  else if (address() !== before) applyFilters();
  const part = document.getElementById({ map: "map-part", deviations: "known" }[words[0]] || words[0]);
  if (part) part.scrollIntoView();
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
    if (tip.hidden && location.hash && !document.getElementById("map")) location.hash = address();
    tip.hidden = true;
  }
  searchByKey(event);
});
show(false);
