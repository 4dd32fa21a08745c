// The page: the table, which routes gave the same bits, the maps, what breaks a limit.

const main = document.getElementById("main");
const share = (part, row) => (part === row.inputs ? "100 %" : `${Number(((100 * part) / row.inputs).toPrecision(6))} %`);

function grid(name, head, lines) {
  const cell = (tag) => (words, place) => element(tag, { class: head[place].startsWith("#") ? "number" : null }, String(words));
  const title = element("tr", null, head.map((words) => element("th", { scope: "col" }, words.replace("#", ""))));
  const body = lines.map((cells) => element("tr", null, cells.map(cell("td"))));
  const table = element("table", { class: "plain" }, element("thead", null, title), element("tbody", null, body));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);
}

function sweepTable() {
  const head = ["kernel", "aspect", "route", "computed by", "range", "#inputs", "#chunks", "#max ULP", "at", "#max scaled", "at", "#correctly rounded"];
  const lines = data.rows.map((row) => [
    row.kernel, row.aspect, row.route, row.version, row.extent, row.shownInputs, row.chunks, short(row.ulp), row.ulpAt,
    short(row.scaled), row.scaledAt, `${row.proven ? "" : "≈ "}${row.right.toLocaleString("en")} (${share(row.right, row)})`,
    ...row.below.map((part) => share(part, row)), short(row.bias), row.flushed.toLocaleString("en"), row.findings.length,
  ]);
  return grid("Sweeps", [...head, ...data.within.map((ulp) => `#below ${ulp} ULP`), "#bias", "#flushed", "#findings"], lines);
}

function bitsTable() {
  if (!data.pairs.length) return "";
  const head = ["kernel", "aspect", "route", "and route", "range", "#bit-identical chunks", "#inputs that differ", "#of", "from … to"];
  const lines = data.pairs.map((pair) => [
    pair.kernel, pair.aspect, pair.first, pair.second, pair.extent, pair.chunks, pair.inputs ? pair.differing.toLocaleString("en") : "not counted",
    pair.inputs.toLocaleString("en") + (pair.uncounted ? ` (without ${count(pair.uncounted, "chunk")})` : ""), pair.ends.join(" … "),
  ]);
  return [element("h3", null, "Where two routes give other bits, every NaN alike"), grid("Bits", head, lines)];
}

function findingTable() {
  const lines = data.rows.flatMap((row) =>
    row.findings.map(([kind, times, first, last, worst, cause]) => [row.kernel, row.aspect, row.route, kind, times.toLocaleString("en"), `${first} … ${last}`, worst, cause]),
  );
  return lines.length ? grid("What breaks a limit", ["kernel", "aspect", "route", "class", "#inputs", "from … to", "worst", "cause"], lines) : element("p", null, "Nothing breaks a limit.");
}

const section = (id, title, ...parts) => element("section", { id }, element("h2", null, title), parts);
const mark = (kind) => svg("svg", { viewBox: "0 0 26 10", class: "key", "aria-hidden": "true" }, svg("path", { class: kind, d: "M0 5h26" }));

document.getElementById("top").append(
  element(
    "div",
    { class: "top" },
    element("h1", null, data.title),
    element("nav", { "aria-label": "parts" }, ["table", "maps", "limits"].map((name) => element("a", { href: `#${name}` }, name))),
    element("button", { type: "button", id: "theme", onclick: turn }, ""),
  ),
);
main.append(
  section("table", "Errors", element("ul", { class: "samples" }, data.samples.map((words) => element("li", null, words))), sweepTable(), bitsTable()),
  section("maps", "Worst errors by binade", element("p", { class: "legend" }, element("span", null, mark("ulp"), "in ULP"), element("span", null, mark("scaled"), "in the unit of the limit; 1e-2 stands for less; a gap is a binade without a finite output, or not swept yet")), maps()),
  section("limits", "What breaks a limit", findingTable()),
);
nameTheme();
document.addEventListener("mouseover", showTip);
document.addEventListener("focusin", showTip);
