// The page: what was run, the counts, the operators, the cases, the data that the cases ship.

const chosen = { text: "", runtime: "", state: "unclean" };
const operators = placed(data.operators),
  cases = placed(data.cases);

const COUNTS = counted([
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
]);
const WORST = [
  { name: "error / bound", number: true, of: (row) => row.ratio, cell: (row) => (row.worst ? short(row.ratio) : "") },
  { name: "worst case", kind: "name", of: (row) => row.worst },
];
const CASE_COLUMNS = [
  OPERATOR,
  { name: "case", kind: "name", of: (row) => row.case },
  RUNTIME,
  { name: "ONNX's limits", kind: "name", of: (row) => row.standard },
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

const MEANINGS = [
  "ONNX's limits: passed, failed and not supported as onnx's own test runner counts them, by the rtol and atol of the case.",
  "Truth: the graph in float64. Within: every element of every output is as near to it as rounding in the graph's types explains; outside: one is farther, or NaN, infinite or of another type where it must not be. Error / bound: the worst element's error in units of what rounding explains.",
  "Not judged: the operator has no rule here, or the values are strings or sequences; it is no pass. Refused: the runtime says that it does not take the graph. No answer: an error, a dead process, or none in time.",
];

function controls() {
  const change = (name) => (choice) => {
    chosen[name] = choice;
    draw();
  };
  const states = unique(cases.map((row) => row.state)).sort().map((state) => [state, state]);
  const verdicts = unique(cases.map((row) => row.standard)).sort().map((verdict) => [verdict, `ONNX's limits: ${verdict}`]);
  return controlRow(
    "operator or case",
    change("text"),
    runtimeChoice(change("runtime")),
    dropdown("by-state", "verdict", [["unclean", "all that is not clean"], ["", "all cases"], ...states, ...verdicts], "unclean", change("state")),
  );
}

function draw() {
  operatorTable.draw();
  announce(count(caseTable.draw(), "case"));
}

const shipped = data.data.length
  ? table("Shipped outputs outside the bound of the truth", ["operator", "case", "what is off (blame: test data)"], data.data)
  : element("p", { class: "quiet" }, "None of the shipped outputs that were judged is outside its bound.");
openPage(
  suiteHead(["runtimes", "operators", "cases", "data", "again"]),
  [
    runtimesSection([...COUNTS, ...WORST], data.leftOut.map((words) => element("p", { class: "quiet" }, words))),
    section("operators", "Operators", controls(), meanings(MEANINGS), operatorTable.box),
    section("cases", "Cases", caseTable.box),
    section("data", "The data that the cases ship", shipped),
    section("again", "Again", copyable(data.command, "the command of this run")),
  ],
  "suite.json beside this page has every verdict",
  draw,
);
