// The page: what was run, the counts, the operators, the cases, the data that the cases ship.

const main = document.getElementById("main");
const chosen = { text: "", runtime: "", state: "unclean" };
const placed = (rows) => rows.map((row, place) => ({ ...row, place }));
const operators = placed(data.operators),
  cases = placed(data.cases);
const orNothing = (n) => (n ? n.toLocaleString("en") : "");

const COUNTS = [
  ["cases", "cases"],
  ["passed", "passed"],
  ["failed", "failed"],
  ["not supported", "not_supported"],
  ["within", "within"],
  ["outside", "outside"],
  ["of these known", "known"],
  ["refused", "refused"],
  ["no answer", "no_answer"],
  ["not judged", "not_judged"],
].map(([name, key]) => ({ name, number: true, of: (row) => row[key], cell: (row) => orNothing(row[key]) }));
const WORST = [
  { name: "error / bound", number: true, of: (row) => row.ratio, cell: (row) => short(row.ratio) },
  { name: "worst case", kind: "name", of: (row) => row.worst },
];
const RUNTIME = { name: "runtime", kind: "name", of: (row) => row.runtime };
const OPERATOR = { name: "operator", kind: "name", of: (row) => row.operator };
const CASE_COLUMNS = [
  OPERATOR,
  { name: "case", kind: "name", of: (row) => row.case },
  RUNTIME,
  { name: "ONNX's limits", of: (row) => row.standard },
  { name: "truth", of: (row) => row.state },
  { name: "error / bound", number: true, of: (row) => row.ratio, cell: (row) => (row.ratio === "nan" ? "" : short(row.ratio)) },
  { name: "what is off, or why it is not judged", kind: "words", of: (row) => row.words },
  { name: "blame", of: (row) => row.blame },
];

const matches = (row) =>
  (!chosen.runtime || row.runtime === chosen.runtime) && `${row.operator} ${row.case || ""}`.toLowerCase().includes(chosen.text.trim().toLowerCase());
const inState = (row) => !chosen.state || (chosen.state === "unclean" ? !row.clean : row.state === chosen.state || row.standard === chosen.state);
const operatorTable = sortedTable("Operators", [OPERATOR, RUNTIME, ...COUNTS, ...WORST], () => operators.filter(matches), (row) => (row.outside || row.no_answer ? "bad" : null));
const caseTable = sortedTable("Cases", CASE_COLUMNS, () => cases.filter((row) => matches(row) && inState(row)), (row) => (row.fine ? null : "bad"));

function header() {
  return [
    element(
      "div",
      { class: "top" },
      element("h1", null, data.title),
      element("nav", { "aria-label": "parts" }, ["runtimes", "operators", "cases", "data", "again"].map((name) => element("a", { href: `#${name}` }, name))),
      element("button", { type: "button", id: "theme", onclick: turn }, ""),
    ),
    element("p", { class: "quiet" }, `${data.suite} · ${data.date}`),
    element("p", { class: data.conforms ? "good line" : "bad line" }, data.conforms ? "CONFORMS" : "DOES NOT CONFORM"),
    element("ul", { class: "problems" }, data.problems.map((words) => element("li", null, words))),
  ];
}

function runtimesSection() {
  const totals = table("Runtimes", ["runtime", ...COUNTS.map((column) => `#${column.name}`), "#error / bound", "worst case"], data.totals.map((row) => [row.runtime, ...COUNTS.map((column) => column.cell(row)), short(row.ratio), row.worst]));
  const facts = data.runtimes.map((runtime) =>
    element("details", null, element("summary", null, `facts of ${runtime.name}`), table(`Facts of ${runtime.name}`, ["fact", "value"], runtime.facts)),
  );
  return element("section", { id: "runtimes" }, element("h2", null, "Runtimes"), totals, facts, data.leftOut.map((words) => element("p", { class: "quiet" }, words)));
}

function meanings() {
  const sentences = [
    "ONNX's limits: passed, failed and not supported as onnx's own test runner counts them, by the rtol and atol of the case.",
    "Truth: the graph in float64. Within: every element of every output is as near to it as rounding in the graph's types explains; outside: one is farther, or NaN, infinite or of another type where it must not be. Error / bound: the worst element's error in units of what rounding explains.",
    "Not judged: the operator has no rule here, or the values are strings or sequences; it is no pass. Refused: the runtime says that it does not take the graph. No answer: an error, a dead process, or none in time.",
  ];
  return element("details", null, element("summary", null, "What the columns mean"), sentences.map((words) => element("p", { class: "quiet" }, words)));
}

function controls() {
  const change = (name) => (choice) => {
    chosen[name] = choice;
    draw();
  };
  const states = unique(cases.map((row) => row.state)).sort().map((state) => [state, state]);
  const verdicts = unique(cases.map((row) => row.standard)).sort().map((verdict) => [verdict, `ONNX's limits: ${verdict}`]);
  const runtimes = data.runtimes.map((runtime) => [runtime.name, runtime.name]);
  return element(
    "div",
    { class: "controls" },
    element(
      "label",
      { class: "grow" },
      element("span", { class: "unseen" }, "operator or case"),
      element("input", { type: "search", id: "by-text", placeholder: "operator or case", oninput: (event) => change("text")(event.target.value) }),
    ),
    dropdown("by-runtime", "runtime", [["", "all runtimes"], ...runtimes], "", change("runtime")),
    dropdown("by-state", "verdict", [["unclean", "all that is not clean"], ["", "all cases"], ...states, ...verdicts], "unclean", change("state")),
  );
}

function draw() {
  operatorTable.draw();
  announce(count(caseTable.draw(), "case"));
}

document.getElementById("top").append(...header());
main.append(
  runtimesSection(),
  element("section", { id: "operators" }, element("h2", null, "Operators"), controls(), meanings(), operatorTable.box),
  element("section", { id: "cases" }, element("h2", null, "Cases"), caseTable.box),
  element(
    "section",
    { id: "data" },
    element("h2", null, "The data that the cases ship"),
    data.data.length
      ? table("Shipped outputs outside the bound of the truth", ["operator", "case", "what is off (blame: test data)"], data.data)
      : element("p", { class: "quiet" }, "None of the shipped outputs that were judged is outside its bound."),
  ),
  element("section", { id: "again" }, element("h2", null, "Again"), copyable(data.command, "the command of this run")),
);
document.getElementById("foot").append("suite.json beside this page has every verdict");
nameTheme();
draw();
addEventListener("keydown", (event) => {
  const search = document.getElementById("by-text");
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    search.focus();
  }
});
