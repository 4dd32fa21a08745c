// The history: its runs, the versions of each backend, the cases; and under #case=, #run= and #backend= each by itself, at an address that stays.

const MOST = 50; // rows of a table of cases
const GOOD = ["PASS", "XFAIL"];
const runs = data.runs;
const names = Object.keys(data.cases);
const lastEvent = (name) => data.cases[name].at(-1);
let searched = "";

const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined); // an address may hold any word
const address = (kind, value) => `#${kind}=${encodeURIComponent(value)}`;
const caseLink = (name) => element("a", { href: address("case", name) }, name);
const runLink = (at) => element("a", { href: address("run", runs[at].when), class: "run-verdict" }, runs[at].when);
const backendLink = (name) => element("a", { href: address("backend", name) }, name);
const items = (words) => (words.length ? element("ul", null, words.map((each) => element("li", null, each))) : "");
const verdicts = (counts) => Object.entries(counts).map(([verdict, n]) => `${n.toLocaleString("en")} ${verdict}`).join(", ");
const verdictCell = (verdict) =>
  element("span", { class: verdict === null || verdict === "UNSUPPORTED" || verdict === "UNAVAILABLE" ? "quiet" : GOOD.includes(verdict) ? "good" : "bad" }, verdict ?? "not in this run");

function head() {
  const parts = ["cases", "versions", "runs"].map((name) => [`#${name}`, name]);
  const pages = [...parts, ["report.html", "latest report"], ["accuracy.html", "accuracy"], ["history.jsonl", "history.jsonl"]];
  return [
    element(
      "div",
      { class: "top" },
      element("h1", null, element("a", { href: "#" }, "actconform over time")),
      element("nav", { "aria-label": "pages" }, pages.map(([file, words]) => element("a", { href: file }, words))),
      element("button", { type: "button", id: "theme", onclick: turn }, ""),
    ),
    element("p", { class: "quiet" }, `${count(runs.length, "run")}, ${runs[0].when} to ${runs.at(-1).when}; ${count(names.length, "case")}`),
    meaningOfXfail(runs.flatMap((run) => Object.keys(run.verdicts))),
  ];
}

function overview() {
  const latest = runs.at(-1);
  return [
    element("p", { class: "line" }, element("b", { class: latest.conforms ? "good" : "bad" }, latest.conforms ? "Conforms" : "Does not conform"), `: ${verdicts(latest.verdicts)}`),
    items(latest.problems),
    section("cases", "Cases", controlRow("Search cases, the latest change first", (words) => { searched = words.trim().toLowerCase(); drawCases(); }), element("div", { id: "case-table" })),
    section("versions", "Versions", versionTable(Object.keys(data.versions))),
    section("runs", "Runs", runTable()),
  ];
}

function drawCases() {
  const words = searched.split(/\s+/).filter(Boolean);
  const chosen = names.filter((name) => words.every((word) => name.toLowerCase().includes(word)));
  chosen.sort((a, b) => lastEvent(b)[0] - lastEvent(a)[0]);
  const rows = chosen.slice(0, MOST).map((name) => {
    const [at, verdict, errorRatio] = lastEvent(name);
    return [caseLink(name), verdictCell(verdict === null ? null : text(verdict)), percent(number(errorRatio)), runLink(at), data.cases[name].length - 1];
  });
  const more = chosen.length > MOST ? element("p", { class: "quiet" }, `and ${(chosen.length - MOST).toLocaleString("en")} more: search to narrow`) : "";
  document.getElementById("case-table").replaceChildren(table("Cases", ["case", "verdict", "#worst error", "since", "#changes"], rows), more || "");
  announce(count(chosen.length, "case"));
}

function versionTable(backends) {
  const rows = backends.flatMap((backend) =>
    data.versions[backend].map((span, at) => [
      backendLink(backend),
      runLink(span.first),
      at ? items(span.facts) : "first run",
      span.last - span.first + 1,
      verdicts(span.verdicts),
      at ? span.moved.toLocaleString("en") : "",
    ]).reverse(),
  );
  return table("Versions of each backend", ["backend", "since", "what changed", "#runs", "cases then", "#changed with it"], rows);
}

function runTable() {
  const rows = runs.map((run, at) => [
    runLink(at),
    element("span", { class: run.conforms ? "good" : "bad" }, run.conforms ? "conforms" : "does not conform"),
    verdicts(run.verdicts),
    at ? (run.changed + run.gone).toLocaleString("en") : "",
    items(run.facts),
  ]);
  return table("Runs, the newest first", ["run", "", "cases", "#changed", "facts that changed"], rows.reverse());
}

/** A case in every run, by its events: what an event says holds until the next. */
function inEveryRun(events) {
  let at = -1;
  return runs.flatMap((run, number_) => {
    if (at + 1 < events.length && events[at + 1][0] === number_) at += 1;
    return at < 0 || events[at][1] === null ? [] : [{ when: run.when, errorRatio: number(events[at][2]), verdict: text(events[at][1]) }];
  });
}

function caseView(name) {
  const events = own(data.cases, name);
  if (!events) return missing(`There is no case ${name} in this history.`);
  const points = inEveryRun(events);
  const rows = events.map(([at, verdict, errorRatio, findings, facts], number_) => [
    runLink(at),
    verdictCell(verdict === null ? null : text(verdict)),
    verdict === null ? "" : percent(number(errorRatio)),
    items(findings.map(text)),
    number_ ? items(facts.map(text)) : "first run with it",
  ]);
  const route = name.split("/").slice(3).join("/");
  const backend = route.slice(route.lastIndexOf("+") + 1);
  const spans = [backend, backend.split("@")[0]].find((each) => own(data.versions, each));
  const inLatest = events.at(-1)[1] !== null && runs.at(-1).when === data.latest;
  return [
    element("p", { class: "back" }, element("a", { href: "#" }, "← all cases")),
    element("h2", { tabindex: "-1" }, name),
    inLatest ? element("p", null, element("a", { href: `report.html${address("case", name)}` }, "This case in the latest report"), ": errors, evidence, how to run it again") : "",
    points.length > 1 ? drawTrend(name, points) : "",
    section("events", "When it changed", table("When it changed", ["run", "verdict", "#worst error", "findings", "facts of its route that changed since"], rows.reverse())),
    spans ? section("versions", "Versions of its backend", versionTable([spans])) : "",
  ];
}

function runView(when) {
  const at = runs.findIndex((run) => run.when === when);
  if (at < 0) return missing(`There is no run of ${when} in this history.`);
  const run = runs[at];
  const changed = names.flatMap((name) => {
    const events = data.cases[name];
    const here = events.findIndex((event) => event[0] === at);
    return here < 0 ? [] : [[name, events[here], events[here - 1]]];
  });
  const state = (event) => (event ? [verdictCell(event[1] === null ? null : text(event[1])), ` ${event[1] === null ? "" : percent(number(event[2]))}`] : "");
  const rows = changed.slice(0, at ? Infinity : MOST).map(([name, event, before]) => [caseLink(name), state(before), state(event), items(event[3].map(text))]);
  const cut = rows.length < changed.length ? element("p", { class: "quiet" }, `and ${(changed.length - rows.length).toLocaleString("en")} more of the first run`) : "";
  return [
    element("p", { class: "back" }, element("a", { href: "#" }, "← all runs")),
    element("h2", { tabindex: "-1" }, `Run of ${when}`),
    element("p", { class: "line" }, element("b", { class: run.conforms ? "good" : "bad" }, run.conforms ? "Conforms" : "Does not conform"), `: ${verdicts(run.verdicts)}`),
    when === data.latest ? element("p", null, element("a", { href: "report.html" }, "Its report")) : "",
    items(run.problems),
    section("facts", "Facts that changed", items(run.facts) || element("p", { class: "quiet" }, at ? "None." : "It is the first run.")),
    section("changed", at ? "Cases that changed" : "Cases", table("Cases of the run", ["case", "before", "then", "findings"], rows), cut),
  ];
}

function backendView(name) {
  if (!own(data.versions, name)) return missing(`There is no backend ${name} in this history.`);
  const has = Object.entries(data.versions[name].at(-1).has).map(([fact, value]) => [fact, value]);
  return [
    element("p", { class: "back" }, element("a", { href: "#" }, "← all backends")),
    element("h2", { tabindex: "-1" }, `Versions of ${name}`),
    versionTable([name]),
    section("facts", "Its facts now", table("Its facts now", ["fact", "value"], has)),
  ];
}

const missing = (words) => [element("h2", { tabindex: "-1" }, words), element("p", null, element("a", { href: "#" }, "All cases and runs"))];
const VIEWS = { case: caseView, run: runView, backend: backendView };

function show(moved) {
  let [kind, value] = location.hash.slice(1).split(/=(.*)/s);
  try {
    value = decodeURIComponent(value || "");
  } catch {
    // not encoded: as it is
  }
  tip.hidden = true;
  const view = own(VIEWS, kind);
  if (view || !document.getElementById("case-table")) {
    main.replaceChildren(...(view ? view(value) : overview()).filter(Boolean));
    document.title = view ? `${value} · actconform history` : "actconform history";
    if (!view) drawCases();
    scrollTo(0, 0);
  }
  if (view && moved) main.querySelector("h2").focus({ preventScroll: true });
  if (!view && kind) document.getElementById(kind)?.scrollIntoView();
}

document.getElementById("top").append(...head());
document.getElementById("foot").append("An address with #case=, #run= or #backend= stays the same when the site is written again. history.jsonl beside this page holds all of it.");
nameTheme();
addEventListener("hashchange", () => show(true));
addEventListener("keydown", searchByKey);
show(false);
