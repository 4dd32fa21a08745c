// The heat map: subjects by routes, sorted; a cell opens its cases.

/** The summary of a cell's cases: the gravest state and severity, the word, and the worst error against its limit. */
function joined(ofCell) {
  const gravest = ofCell.reduce((a, b) => (gravestFirst(a, b) > 0 ? b : a));
  const same = ofCell.filter((result) => result.state === gravest.state && result.gravity === gravest.gravity);
  const place = (word) => {
    const at = CLASS_NAMES.indexOf(word);
    return at < 0 ? 99 : at;
  };
  const word =
    same
      .map((result) => result.word)
      .filter(Boolean)
      .sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1))[0] || "";
  const errorRatios = ofCell.map((result) => result.errorRatio).filter((errorRatio) => errorRatio !== null);
  return {
    state: gravest.state,
    gravity: gravest.gravity,
    severity: gravest.severity,
    word,
    errorRatio: errorRatios.length ? Math.max(...errorRatios) : null,
    within: Math.max(...ofCell.map((result) => result.within)),
    n: ofCell.length,
  };
}

const SHORT = { ...Object.fromEntries(Object.entries(data.classes).map(([name, [, short]]) => [name, short])), UNAVAILABLE: "?" };

function face(cell) {
  if (cell.state === CLEAN || (cell.state === BY_CONVENTION && !cell.word)) return `${MARKS[cell.state]}${percent(cell.within)}`;
  return `${markOf(cell.state, cell.gravity)}${SHORT[cell.word] || cell.word}`;
}

function shade(cell) {
  if (cell.state === REFUSED || cell.state === NOT_RUN) return "none";
  if (cell.state === BROKEN) return "new3";
  const strength = Math.max(1, 3 - cell.gravity);
  if (cell.state === NEW) return `new${strength}`;
  if (cell.state === KNOWN || cell.word) return `known${strength}`;
  const errorRatio = cell.within;
  return `h${errorRatio === 0 ? 0 : errorRatio < 0.01 ? 1 : errorRatio < 0.1 ? 2 : errorRatio < 0.3 ? 3 : errorRatio < 0.6 ? 4 : 5}`;
}

function describeCell(subject, route, cell) {
  const state = [
    "within its limits",
    "differs by convention only",
    `known, ${cell.severity}`,
    `NEW, ${cell.severity}`,
    "ended badly",
    "unsupported",
    "not run",
  ][cell.state];
  const worst = cell.errorRatio === null ? "" : `, worst error ${percent(cell.errorRatio)} of its limit`;
  return `${subject}, ${route}: ${state}${cell.word ? `: ${cell.word}` : ""}${worst}, ${count(cell.n, "case")}`;
}

/** A link to a cell, with the filters that its list of cases keeps to. */
const cellLink = (key) => `#${[`cell=${coded(key)}`, ...filterWords()].join("&")}`;

function refresh() {
  document.getElementById("map").replaceChildren(...grid());
  document.getElementById("known-lists").replaceChildren(...known().filter(Boolean));
}

const QUIET_SHOWN = 12; // rows that are not worth a fold
const isLoud = (cell) => Boolean(cell) && (isNew(cell) || (cell.state === KNOWN && cell.gravity < 2));

function cells(chosen) {
  const byCell = new Map();
  for (const result of chosen) {
    const key = `${result.subject}/${result.route}`;
    if (!byCell.has(key)) byCell.set(key, []);
    byCell.get(key).push(result);
  }
  return new Map([...byCell].map(([key, ofCell]) => [key, joined(ofCell)]));
}

const worseFirst = (a, b) => {
  if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
  return gravestFirst(a, b) || b.within - a.within;
};

function sorted(subjects, routes, byCell) {
  if (filters.sort === "catalog") return subjects;
  if (filters.sort === "name") return [...subjects].sort();
  const of = filters.sort === "worst" ? routes : [filters.sort.slice(COLUMN.length)];
  const worst = new Map(
    subjects.map((subject) => [subject, of.map((route) => byCell.get(`${subject}/${route}`)).sort(worseFirst)[0]]),
  );
  return [...subjects].sort((a, b) => worseFirst(worst.get(a), worst.get(b)));
}

/** The table, and a line with the number of cases, subjects and routes in it. */
function grid() {
  const chosen = chosenCases();
  const answered = new Set(chosen.filter((result) => result.state < REFUSED).map((result) => result.route));
  const allRoutes = new Set(chosen.map((result) => result.route));
  const routes = order.routes.filter(
    (route) => allRoutes.has(route) && (filters.absent || !answered.size || answered.has(route)),
  );
  const byCell = cells(chosen);
  const shownSubjects = new Set(chosen.filter((result) => routes.includes(result.route)).map((result) => result.subject));
  const all = sorted(
    order.subjects.filter((subject) => shownSubjects.has(subject)),
    routes,
    byCell,
  );
  const loud = all.filter((subject) => routes.some((route) => isLoud(byCell.get(`${subject}/${route}`))));
  const quiet = all.length - loud.length;
  const foldable = !narrowing().length && loud.length > 0 && quiet > QUIET_SHOWN;
  const subjects = foldable && !filters.all ? loud : all;
  const hidden = allRoutes.size - routes.length;
  const size = `${count(all.length, "subject")} by ${count(routes.length, "route")}`;
  const rest = hidden ? `; ${count(hidden, "route")} without an answer hidden` : "";
  const words = `${count(chosen.length, "case")} of ${cases.length.toLocaleString("en")}: ${size}${rest}`;
  announce(words);
  if (!subjects.length) return [element("p", { class: "quiet" }, `${words}. Nothing fits these filters.`)];
  const columns = routes.filter((route) => subjects.some((subject) => byCell.has(`${subject}/${route}`)));
  const head = element(
    "tr",
    null,
    element("td"),
    columns.map((route) =>
      element(
        "th",
        { scope: "col", "aria-sort": filters.sort === COLUMN + route ? "descending" : null },
        element(
          "button",
          {
            type: "button",
            title: `sort by the ${COLUMN}${route}`,
            onclick: () => {
              setFilter("sort", filters.sort === COLUMN + route ? "catalog" : COLUMN + route);
              document.querySelector(".map [aria-sort] button")?.focus();
            },
          },
          route.replace(/(?=[+@])/g, "\u200b"),
        ),
      ),
    ),
  );
  let first = true;
  const rows = subjects.map((subject) =>
    element(
      "tr",
      null,
      element("th", { scope: "row" }, subject),
      columns.map((route) => {
        const key = `${subject}/${route}`,
          cell = byCell.get(key);
        if (!cell) return element("td");
        const stop = memory.cell ? memory.cell === key : first;
        first = false;
        const description = describeCell(subject, route, cell);
        return element(
          "td",
          null,
          element(
            "a",
            {
              href: cellLink(key),
              class: `cell ${shade(cell)}`,
              tabindex: stop ? "0" : "-1",
              "data-key": key,
              "data-tip": description,
              "aria-label": `${face(cell)} ${description}`,
            },
            face(cell),
          ),
        );
      }),
    ),
  );
  const inner = element(
    "table",
    { class: "map", onkeydown: walk },
    element("caption", { class: "unseen" }, "Worst error of each subject on each route"),
    element("thead", null, head),
    element("tbody", null, rows),
  );
  if (!inner.querySelector('a[tabindex="0"]')) inner.querySelector("a")?.setAttribute("tabindex", "0");
  return [element("p", { class: "quiet" }, words), foldable ? foldButton(quiet) : null, element("div", { class: "scroll map-box", tabindex: "-1" }, inner)].filter(Boolean);
}

/** A button that unfolds the rows of subjects of which nothing is graver than minor, and folds them again. */
function foldButton(quiet) {
  const words = `${filters.all ? "Fold" : "Show"} ${count(quiet, "subject")} with nothing graver than minor`;
  const turned = () => {
    setFilter("all", filters.all ? "" : "1");
    document.getElementById("fold")?.focus();
  };
  return element("p", null, element("button", { type: "button", id: "fold", "aria-expanded": String(filters.all === "1"), onclick: turned }, words));
}

/** Arrow keys, Home and End walk through the cells, of which one is a stop of the Tab key. */
function walk(event) {
  const from = event.target.closest("a.cell");
  const step = {
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    Home: [0, -999],
    End: [0, 999],
  }[event.key];
  if (!from || !step) return;
  event.preventDefault();
  const row = from.closest("tr"),
    rows = [...row.parentNode.rows],
    column = from.parentNode.cellIndex;
  const sign = Math.sign(step[0] || step[1]);
  let to = null;
  if (step[0]) {
    for (let at = rows.indexOf(row) + sign; rows[at] && !to; at += sign)
      to = rows[at].cells[column]?.querySelector("a");
  } else {
    const line = [...row.querySelectorAll("a.cell")];
    to = line[Math.max(0, Math.min(line.length - 1, line.indexOf(from) + step[1]))];
  }
  if (!to) return;
  from.setAttribute("tabindex", "-1");
  to.setAttribute("tabindex", "0");
  memory.cell = to.dataset.key;
  to.focus();
}

function key() {
  const entry = (kind, words) => element("span", null, element("i", { class: `cell ${kind}`, "aria-hidden": "true" }), words);
  return element(
    "p",
    { class: "legend" },
    "worst error in % of its limit: ",
    entry("h0", "0, exact"),
    entry("h1", "<1"),
    entry("h2", "<10"),
    entry("h3", "<30"),
    entry("h4", "<60"),
    entry("h5", "≤100"),
    entry("new3", "● NEW, ✗ broken"),
    entry("new1", "● NEW, minor"),
    data.severities.slice(0, 3).map(([name, sign], at) => entry(`known${3 - at}`, `${sign} known, ${name}`)),
    element("span", null, `${data.severities.at(-1)[1]} with a number: by convention only`),
    element("span", null, "– unsupported"),
    element("span", null, "? not run"),
  );
}
