// The controls that set the filters, and the counts that do.

const SORTS = { catalog: "in catalog order", name: "by name", worst: "gravest first" };
const OPTION_WORDS = {
  verdict: (value) => `${value} (${data.words[value]})`,
  severity: (value) => (value === "new" ? "NEW, or broken" : value),
  range: (value) => (value === data.ranges[RANGES.indexOf(value)][1] ? value : `${value}: ${data.ranges[RANGES.indexOf(value)][1]}`),
};

function choice(name, label) {
  const words = OPTION_WORDS[name] || ((value) => value);
  const options = [["", `any ${label}`], ...CHOICES[name].map((value) => [value, words(value)])];
  return dropdown(`by-${name}`, label, options, filters[name], (value) => setFilter(name, value));
}

/** A box that sets a filter which is on or off. */
function tick(name, words) {
  const box = element("input", { type: "checkbox", id: name, onchange: (event) => setFilter(name, event.target.checked ? "1" : "") });
  return element("label", { class: "check" }, box, words);
}

function controls() {
  const search = element("input", {
    type: "search",
    id: "by-text",
    placeholder: "subject, class, cause, blame:runtime …",
    oninput: (event) => setFilter("text", event.target.value),
  });
  const form = element(
    "form",
    { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    element("label", { class: "grow" }, element("span", { class: "unseen" }, "text"), search),
    choice("severity", "severity"),
    choice("range", "inputs"),
    choice("dtype", "dtype"),
    choice("aspect", "aspect"),
    choice("backend", "backend"),
    choice("route", "route"),
    choice("verdict", "verdict"),
    dropdown("by-sort", "sorting", Object.entries(SORTS), filters.sort, (value) => setFilter("sort", value)),
    tick("absent", "routes without an answer"),
    element("button", { type: "button", onclick: clear }, "Clear"),
  );
  const open = narrowing().length > 0 || matchMedia("(min-width: 641px)").matches;
  return element("details", { id: "filters", open }, element("summary", { id: "filters-head" }, "Filters"), form);
}

/** Bring the controls and the counts to what the filters are. */
function showFilters() {
  for (const name of Object.keys(filters)) {
    const control = document.getElementById(`by-${name}`);
    if (control && control.value !== filters[name]) control.value = filters[name];
  }
  document.getElementById("absent").checked = filters.absent === "1";
  for (const button of document.querySelectorAll(".counts button"))
    button.setAttribute("aria-pressed", String(filters[button.dataset.filter] === button.dataset.value));
  const set = narrowing().length;
  document.getElementById("filters-head").textContent = set ? `Filters (${set} set)` : "Filters";
}

function clear() {
  Object.assign(filters, UNFILTERED);
  setFilter("text", "");
}

/** How many cases there are of each verdict and severity, as buttons that show them alone. */
function counts() {
  const by = (verdict) =>
    ({ PASS: CLEAN, XFAIL: KNOWN, FAIL: NEW, UNSUPPORTED: REFUSED, UNAVAILABLE: NOT_RUN })[verdict] ?? BROKEN;
  const button = (name, value, kind, words) =>
    element(
      "button",
      {
        type: "button",
        class: kind,
        title: `show ${value} only`,
        "data-filter": name,
        "data-value": value,
        onclick: () => setFilter(name, filters[name] === value ? "" : value),
      },
      words.trim(),
    );
  const verdicts = Object.entries(data.summary).map(([verdict, n]) => {
    const sign = by(verdict) === KNOWN ? "" : MARKS[by(verdict)];
    return button("verdict", verdict, `chip s${by(verdict)}`, `${sign} ${n.toLocaleString("en")} ${data.words[verdict]}`);
  });
  const graded = cases.filter((result) => result.severity);
  const severities = data.severities.map(([name, sign], gravity) => {
    const n = graded.filter((result) => result.gravity === gravity).length;
    return n && button("severity", name, chipClass(KNOWN, gravity), `${sign} ${n.toLocaleString("en")} ${name}`);
  });
  return element(
    "div",
    { class: "counts" },
    verdicts,
    graded.length ? element("span", { class: "quiet" }, "by the gravest finding:") : null,
    severities.filter(Boolean),
  );
}
