// The table of the worst errors, to search in and to cite.

const MOST = 500; // rows
const HEAD = ["kernel", "dtype", "aspect", "route", "verdict", "#error", "#limit", "unit", "#error / limit", "#max ULP", "tensor", "regime", "#elements", "causes"];
let words = [];

function drawAccuracy() {
  const chosen = data.rows.filter((row) => words.every((word) => row.slice(0, 5).join(" ").toLowerCase().includes(word)));
  const rows = chosen.slice(0, MOST).map((row) => [
    ...row.slice(0, 5), short(row[5]), short(row[6]), row[7], percent(number(row[8])), short(row[9]), row[10], row[11], row[12].toLocaleString("en"), row[13].join(", "),
  ]);
  const more = chosen.length > MOST ? `and ${(chosen.length - MOST).toLocaleString("en")} more: search to narrow, or take accuracy.csv` : "";
  document.getElementById("accuracy-table").replaceChildren(table("Worst errors", HEAD, rows), element("p", { class: "quiet" }, more));
  announce(count(chosen.length, "case"));
}

const files = ["accuracy.csv", "accuracy.tex", "accuracy.json", "CITATION.cff"].map((file) => element("li", null, element("a", { href: file }, file)));
openPage(
  pageHead("Worst errors", [], `${count(data.rows.length, "case")}, ${data.versions}`, element("p", null, element("a", { href: "index.html" }, "← over time"), " · ", element("a", { href: "report.html" }, "latest report")), meaningOfXfail(data.rows.map((row) => row[4]))),
  [
    section("files", "To take along and to cite", element("ul", null, files)),
    section(
      "table",
      "Table",
      element("details", null, element("summary", null, "What the units mean"), element("p", { class: "quiet" }, "An error in float32 is a lower bound: not all inputs are tried."), Object.entries(data.units).filter(([unit]) => unit).map(([unit, meaning]) => element("p", { class: "quiet" }, `${unit}: ${meaning}`))),
      controlRow("Search: gelu f32 torch", (value) => { words = value.trim().toLowerCase().split(/\s+/).filter(Boolean); drawAccuracy(); }),
      element("div", { id: "accuracy-table" }),
    ),
  ],
  "accuracy.json beside this page holds every number to its last digit",
  drawAccuracy,
);
