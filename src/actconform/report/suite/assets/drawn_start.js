// The page of drawn operators: the counts, what was found with its folders, the operators.

const chosen = { text: "", runtime: "", state: "" };
const operators = placed(data.operators),
  findings = placed(data.findings);

const COUNTS = counted(["graphs", "within", "refused", "wrong", "failed", "crash", "timeout", "unjudged"].map((name) => [name, name]));
const WORST = { name: "worst / bound", number: true, of: (row) => row.worst, cell: (row) => (row.worst === "nan" ? "" : short(row.worst)) };
const FAMILY = { name: "family", of: (row) => row.family };
const REASONS = { name: "why refused or unjudged", kind: "words", of: (row) => row.reasons };
const CASES = { name: "worst case", kind: "links", of: (row) => row.cases.map((at) => data.findings[at].label).join(), cell: caseLinks };
const FINDING_COLUMNS = [
  OPERATOR,
  RUNTIME,
  { name: "first input", kind: "name", of: (row) => row.dtype },
  { name: "kind", kind: "name", of: (row) => row.kind },
  { name: "graphs", number: true, of: (row) => row.graphs },
  { name: "the simplest graph gives", kind: "words", of: (row) => row.words },
  { name: "to show it again", kind: "links", of: (row) => row.folder, cell: (row) => folderLink(row, row.folder || "not written") },
];

/** A link to the folder of a finding, beside this page; words alone where it was not written. */
function folderLink(finding, words) {
  const path = finding.folder.split("/").map(encodeURIComponent).join("/");
  return finding.folder ? element("a", { href: `./${path}/` }, words) : element("span", null, words);
}

function caseLinks(row) {
  const [first, ...rest] = row.cases.map((at) => data.findings[at]);
  return element("span", null, first && folderLink(first, first.label), rest.length ? ` and ${rest.length} more` : "");
}

const MEANINGS = [
  "Within: every output has the right shape and element type, and every element is as near to the operator's real function as its error bound says. Worst / bound: the largest error among these, in units of its bound.",
  "Refused: the runtime says that it does not take the graph; no finding. Wrong, failed, crash, timeout: a finding. Unjudged: the standard leaves every element open, or the real values are not known.",
  "Worst case: the finding of most graphs; all of them stand below. The folder of each has the simplest graph, its inputs, what is right, and repro.py, which shows it with the runtime alone.",
];

const matches = (row) =>
  (!chosen.runtime || row.runtime === chosen.runtime) && `${row.operator} ${row.family}`.toLowerCase().includes(chosen.text.trim().toLowerCase());
const inState = (row) => !chosen.state || (chosen.state === "found" ? row.cases.length > 0 : row[chosen.state] > 0);
const operatorTable = sortedTable("Operators", [OPERATOR, FAMILY, RUNTIME, ...COUNTS, WORST, CASES, REASONS], () => operators.filter((row) => matches(row) && inState(row)), (row) => (row.clean ? null : "bad"));
const findingTable = sortedTable("Findings", FINDING_COLUMNS, () => findings.filter(matches), () => "bad");

function controls() {
  const change = (name) => (choice) => {
    chosen[name] = choice;
    draw();
  };
  const states = ["refused", "wrong", "failed", "crash", "timeout", "unjudged"].filter((name) => operators.some((row) => row[name]));
  const choices = [["", "all operators"], ["found", "with a finding"], ...states.map((name) => [name, `with a graph: ${name}`])];
  return controlRow("operator or family", change("text"), runtimeChoice(change("runtime")), dropdown("by-state", "outcome", choices, "", change("state")));
}

function draw() {
  findingTable.draw();
  announce(count(operatorTable.draw(), "row"));
}

openPage(
  suiteHead(["runtimes", "operators", "findings", "again"]),
  [
    runtimesSection([...COUNTS, WORST]),
    section("operators", "Operators", controls(), meanings(MEANINGS), operatorTable.box),
    section("findings", "Findings", data.findings.length ? findingTable.box : element("p", { class: "quiet" }, "No runtime was wrong at a graph that was drawn.")),
    section("again", "Again", copyable(data.command, "the command of this run")),
  ],
  "drawn.json beside this page has every count",
  draw,
);
