// Which cases are shown, in which order, and the link that shows them again.

const order = { subjects: unique(cases.map((result) => result.subject)), routes: unique(cases.map((result) => result.route)) };
const UNFILTERED = { dtype: "", aspect: "", verdict: "", severity: "", range: "", backend: "", route: "", text: "", sort: "catalog", absent: "", all: "" };
const filters = { ...UNFILTERED };
const memory = { cell: null, unfolded: new Map() };

const COLUMN = "worst error on ";
const RANGES = data.ranges.map(([name]) => name);
const valuesOf = (key) => unique(cases.map((result) => result[key])).sort();
const CHOICES = {
  dtype: valuesOf("dtype"),
  aspect: valuesOf("aspect"),
  verdict: valuesOf("verdict"),
  severity: ["new", ...SEVERITIES],
  range: RANGES,
  backend: valuesOf("backend"),
  route: order.routes,
  sort: ["catalog", "name", "worst", ...order.routes.map((route) => COLUMN + route)],
  absent: ["1"],
  all: ["1"],
};

/** The filters that narrow what is shown. */
const narrowing = () => Object.keys(UNFILTERED).filter((name) => !["sort", "absent", "all"].includes(name) && filters[name]);

/** The part of an address that holds the filters, for example "severity=critical&range=ordinary". */
const filterWords = () =>
  Object.keys(UNFILTERED)
    .filter((name) => filters[name] !== UNFILTERED[name])
    .map((name) => `${name}=${encodeURIComponent(filters[name])}`);

const address = (part) => `#${[part, ...filterWords()].filter(Boolean).join("&")}`;

/** Take the filters of an address; a name or a value that this report does not have is left out. */
function takeFilters(words) {
  Object.assign(filters, UNFILTERED);
  for (const word of words) {
    const [name, coded] = word.split(/=(.*)/s);
    const value = decoded(coded);
    if (name === "text" || (Object.hasOwn(CHOICES, name) && CHOICES[name].includes(value))) filters[name] = value;
  }
}

function decoded(value) {
  try {
    return decodeURIComponent(value || "");
  } catch {
    return value; // not encoded: as it is
  }
}

/** Set a filter, show what it selects, and put it into the address; typing makes one step of the history, not one a letter. */
function setFilter(name, value) {
  const typing = name === "text" && filters.text && value;
  filters[name] = value;
  applyFilters();
  try {
    history[typing ? "replaceState" : "pushState"](null, "", address());
  } catch {
    // a page inside another page may have no address of its own: the filter holds without a link
  }
}

function applyFilters() {
  showFilters();
  refresh();
}

/** The cases that fit all filters; with a range of inputs each case is as grave as its findings there. */
const chosenCases = (of = cases) => (filters.range ? of.map(inRange).filter(Boolean) : of).filter(fits);

function fits(result) {
  if (filters.dtype && result.dtype !== filters.dtype) return false;
  if (filters.aspect && result.aspect !== filters.aspect) return false;
  if (filters.backend && result.backend !== filters.backend) return false;
  if (filters.route && result.route !== filters.route) return false;
  if (filters.verdict && result.verdict !== filters.verdict) return false;
  if (filters.severity && (filters.severity === "new" ? !isNew(result) : result.severity !== filters.severity)) return false;
  if (!filters.text) return true;
  return filters.text
    .toLowerCase()
    .split(/\s+/)
    .every((word) => result.words().includes(word));
}

const isNew = (result) => result.state === NEW || result.state === BROKEN;

/** A case as its findings at the chosen range of inputs alone make it; null where it has none there. */
function inRange(result) {
  const findings = (result.raw.f || []).filter((f) => RANGES[f[12]] === filters.range);
  if (!findings.length) return null;
  const [first] = findings; // gravest first
  const state = stateOf(first);
  const named = state === BY_CONVENTION ? findings.find((f) => data.numbers.includes(text(f[0]))) : first;
  const seen = { state, gravity: first[11], severity: SEVERITIES[first[11]] || "", word: named ? text(named[0]) : "", errorRatio: null };
  return { ...result, ...seen };
}

/** The state of one finding. */
const stateOf = (f) => (!text(f[5]) ? NEW : f[11] === SEVERITIES.length - 1 ? BY_CONVENTION : KNOWN);

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
