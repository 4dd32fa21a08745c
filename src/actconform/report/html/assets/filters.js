// Which cases are shown, and in which order.

const order = { subjects: unique(cases.map((one) => one.subject)), routes: unique(cases.map((one) => one.route)) };
const filters = { dtype: "", aspect: "", verdict: "", severity: "", backend: "", text: "", absent: false, sort: "catalog" };
const memory = { cell: null };

const COLUMN = "worst error on ";

function fits(one) {
  if (filters.dtype && one.dtype !== filters.dtype) return false;
  if (filters.aspect && one.aspect !== filters.aspect) return false;
  if (filters.backend && one.backend !== filters.backend) return false;
  if (filters.verdict && one.verdict !== filters.verdict) return false;
  if (filters.severity && one.severity !== filters.severity) return false;
  if (!filters.text) return true;
  return filters.text
    .toLowerCase()
    .split(/\s+/)
    .every((word) => one.words().includes(word));
}

for (const one of cases) {
  // what free text is looked for in: made once, when first asked
  let words = null;
  one.words = () => {
    if (words === null) {
      const found = (one.raw.f || []).map((f) => `${SEVERITIES[f[11]] || ""} ${text(f[0])} ${text(f[5])} blame:${text(f[6])}`);
      const said = [one.id, one.verdict, data.words[one.verdict], text(one.raw.how), text(one.raw.why)];
      words = [...said, ...found].join(" ").toLowerCase();
    }
    return words;
  };
}

function choice(name, values, label) {
  const options = [
    make("option", { value: "" }, `any ${label}`),
    ...values.map((value) =>
      make(
        "option",
        { value, selected: filters[name] === value },
        name === "verdict" ? `${value} (${data.words[value]})` : value,
      ),
    ),
  ];
  return make(
    "label",
    null,
    make("span", { class: "unseen" }, label),
    make(
      "select",
      {
        id: `by-${name}`,
        onchange: (event) => {
          filters[name] = event.target.value;
          refresh();
        },
      },
      options,
    ),
  );
}

function controls() {
  const values = (key) => unique(cases.map((one) => one[key])).sort();
  const search = make("input", {
    type: "search",
    id: "by-text",
    placeholder: "subject, class, deviation, reason …",
    value: filters.text,
    oninput: (event) => {
      filters.text = event.target.value;
      refresh();
    },
  });
  const sort = make(
    "select",
    {
      id: "by-sort",
      onchange: (event) => {
        filters.sort = event.target.value;
        refresh();
      },
    },
    ["catalog", "name", "worst"].map((value) =>
      make(
        "option",
        { value, selected: filters.sort === value },
        { catalog: "in catalog order", name: "by name", worst: "gravest first" }[value],
      ),
    ),
  );
  const absent = make("input", {
    type: "checkbox",
    id: "absent",
    checked: filters.absent,
    onchange: (event) => {
      filters.absent = event.target.checked;
      refresh();
    },
  });
  return make(
    "form",
    { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    make("label", { class: "grow" }, make("span", { class: "unseen" }, "text"), search),
    choice("dtype", values("dtype"), "dtype"),
    choice("aspect", values("aspect"), "aspect"),
    choice("verdict", values("verdict"), "verdict"),
    choice("severity", SEVERITIES, "severity"),
    choice("backend", values("backend"), "backend"),
    make("label", null, make("span", { class: "unseen" }, "sorting"), sort),
    make("label", { class: "check" }, absent, "routes without an answer"),
    make("button", { type: "button", onclick: clear }, "Clear"),
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
    make(
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
  const graded = cases.filter((one) => one.severity);
  const severities = data.severities.map(([name, sign], gravity) => {
    const n = graded.filter((one) => one.gravity === gravity).length;
    return n && button("severity", name, chipClass(KNOWN, gravity), `${sign} ${n.toLocaleString("en")} ${name}`);
  });
  return make(
    "div",
    { class: "counts" },
    verdicts,
    graded.length ? make("span", { class: "quiet" }, "by the gravest finding:") : null,
    severities.filter(Boolean),
  );
}
