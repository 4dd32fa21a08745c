// Which cases are shown, and in which order.

const order = { subjects: unique(cases.map((result) => result.subject)), routes: unique(cases.map((result) => result.route)) };
const filters = { dtype: "", aspect: "", verdict: "", severity: "", backend: "", text: "", absent: false, sort: "catalog" };
const memory = { cell: null };

const COLUMN = "worst error on ";

function fits(result) {
  if (filters.dtype && result.dtype !== filters.dtype) return false;
  if (filters.aspect && result.aspect !== filters.aspect) return false;
  if (filters.backend && result.backend !== filters.backend) return false;
  if (filters.verdict && result.verdict !== filters.verdict) return false;
  if (filters.severity && result.severity !== filters.severity) return false;
  if (!filters.text) return true;
  return filters.text
    .toLowerCase()
    .split(/\s+/)
    .every((word) => result.words().includes(word));
}

for (const result of cases) {
  // the text that the search looks in: built at the first search
  let words = null;
  result.words = () => {
    if (words === null) {
      const findingWords = (result.raw.f || []).map((f) => `${SEVERITIES[f[11]] || ""} ${text(f[0])} ${text(f[5])} blame:${text(f[6])}`);
      const resultWords = [result.id, result.verdict, data.words[result.verdict], text(result.raw.how), text(result.raw.why)];
      words = [...resultWords, ...findingWords].join(" ").toLowerCase();
    }
    return words;
  };
}

function choice(name, values, label) {
  const words = (value) => (name === "verdict" ? `${value} (${data.words[value]})` : value);
  const options = [["", `any ${label}`], ...values.map((value) => [value, words(value)])];
  return dropdown(`by-${name}`, label, options, filters[name], (value) => {
    filters[name] = value;
    refresh();
  });
}

function controls() {
  const values = (key) => unique(cases.map((result) => result[key])).sort();
  const search = element("input", {
    type: "search",
    id: "by-text",
    placeholder: "subject, class, deviation, reason …",
    value: filters.text,
    oninput: (event) => {
      filters.text = event.target.value;
      refresh();
    },
  });
  const sort = element(
    "select",
    {
      id: "by-sort",
      onchange: (event) => {
        filters.sort = event.target.value;
        refresh();
      },
    },
    ["catalog", "name", "worst"].map((value) =>
      element(
        "option",
        { value, selected: filters.sort === value },
        { catalog: "in catalog order", name: "by name", worst: "gravest first" }[value],
      ),
    ),
  );
  const absent = element("input", {
    type: "checkbox",
    id: "absent",
    checked: filters.absent,
    onchange: (event) => {
      filters.absent = event.target.checked;
      refresh();
    },
  });
  return element(
    "form",
    { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    element("label", { class: "grow" }, element("span", { class: "unseen" }, "text"), search),
    choice("dtype", values("dtype"), "dtype"),
    choice("aspect", values("aspect"), "aspect"),
    choice("verdict", values("verdict"), "verdict"),
    choice("severity", SEVERITIES, "severity"),
    choice("backend", values("backend"), "backend"),
    element("label", null, element("span", { class: "unseen" }, "sorting"), sort),
    element("label", { class: "check" }, absent, "routes without an answer"),
    element("button", { type: "button", onclick: clear }, "Clear"),
  );
}

function clear() {
  Object.assign(filters, { dtype: "", aspect: "", verdict: "", severity: "", backend: "", text: "", sort: "catalog" });
  showMap();
}

/** How many cases there are of each verdict and severity, as buttons that show them alone. */
function counts() {
  const shown = Object.entries(data.summary);
  const by = (verdict) =>
    ({ PASS: CLEAN, XFAIL: KNOWN, FAIL: NEW, UNSUPPORTED: REFUSED, UNAVAILABLE: NOT_RUN })[verdict] ?? BROKEN;
  const button = (name, value, kind, words) =>
    element(
      "button",
      {
        type: "button",
        class: kind,
        title: `show ${value} only`,
        onclick: () => {
          filters[name] = filters[name] === value ? "" : value;
          showMap();
        },
      },
      words.trim(),
    );
  const verdicts = shown.map(([verdict, n]) => {
    const sign = by(verdict) === KNOWN ? "" : MARKS[by(verdict)];
    const words = `${sign} ${n.toLocaleString("en")} ${data.words[verdict]}`;
    return button("verdict", verdict, `chip s${by(verdict)}`, words);
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
