// The heat map: subjects by routes, sorted; a cell opens its cases.

/** What several cases of a cell come to: the gravest state and severity, the word, and the worst error against its limit. */
function joined(some) {
  const gravest = some.reduce((a, b) => (gravestFirst(a, b) > 0 ? b : a));
  const same = some.filter((one) => one.state === gravest.state && one.gravity === gravest.gravity);
  const place = (word) => {
    const at = CLASS_NAMES.indexOf(word);
    return at < 0 ? 99 : at;
  };
  const word =
    same
      .map((one) => one.word)
      .filter(Boolean)
      .sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1))[0] || "";
  const shares = some.map((one) => one.share).filter((share) => share !== null);
  return {
    state: gravest.state,
    gravity: gravest.gravity,
    severity: gravest.severity,
    word,
    share: shares.length ? Math.max(...shares) : null,
    within: Math.max(...some.map((one) => one.within)),
    n: some.length,
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
  const share = cell.within;
  return `h${share === 0 ? 0 : share < 0.01 ? 1 : share < 0.1 ? 2 : share < 0.3 ? 3 : share < 0.6 ? 4 : 5}`;
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
  const worst = cell.share === null ? "" : `, worst error ${percent(cell.share)} of its limit`;
  return `${subject}, ${route}: ${state}${cell.word ? `: ${cell.word}` : ""}${worst}, ${count(cell.n, "case")}`;
}

function refresh() {
  document.getElementById("map").replaceChildren(...grid());
}

function cells(chosen) {
  const found = new Map();
  for (const one of chosen) {
    const key = `${one.subject}/${one.route}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(one);
  }
  return new Map([...found].map(([key, some]) => [key, joined(some)]));
}

const worseFirst = (a, b) => {
  if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
  return gravestFirst(a, b) || b.within - a.within;
};

function sorted(subjects, routes, found) {
  if (filters.sort === "catalog") return subjects;
  if (filters.sort === "name") return [...subjects].sort();
  const of = filters.sort === "worst" ? routes : [filters.sort.slice(COLUMN.length)];
  const worst = new Map(
    subjects.map((subject) => [subject, of.map((route) => found.get(`${subject}/${route}`)).sort(worseFirst)[0]]),
  );
  return [...subjects].sort((a, b) => worseFirst(worst.get(a), worst.get(b)));
}

/** The table, and a line that says how much of it there is. */
function grid() {
  const chosen = cases.filter(fits);
  const answered = new Set(chosen.filter((one) => one.state < REFUSED).map((one) => one.route));
  const there = new Set(chosen.map((one) => one.route));
  const routes = order.routes.filter(
    (route) => there.has(route) && (filters.absent || !answered.size || answered.has(route)),
  );
  const found = cells(chosen);
  const some = new Set(chosen.filter((one) => routes.includes(one.route)).map((one) => one.subject));
  const subjects = sorted(
    order.subjects.filter((subject) => some.has(subject)),
    routes,
    found,
  );
  const hidden = there.size - routes.length;
  const size = `${count(subjects.length, "subject")} by ${count(routes.length, "route")}`;
  const rest = hidden ? `; ${count(hidden, "route")} without an answer hidden` : "";
  const words = `${count(chosen.length, "case")} of ${cases.length.toLocaleString("en")}: ${size}${rest}`;
  say(words);
  if (!subjects.length) return [make("p", { class: "quiet" }, `${words}. Nothing fits these filters.`)];
  const head = make(
    "tr",
    null,
    make("td"),
    routes.map((route) =>
      make(
        "th",
        { scope: "col", "aria-sort": filters.sort === COLUMN + route ? "descending" : null },
        make(
          "button",
          {
            type: "button",
            title: `sort by the ${COLUMN}${route}`,
            onclick: () => {
              filters.sort = filters.sort === COLUMN + route ? "catalog" : COLUMN + route;
              refresh();
            },
          },
          route.replace(/(?=[+@])/g, "\u200b"),
        ),
      ),
    ),
  );
  let first = true;
  const rows = subjects.map((subject) =>
    make(
      "tr",
      null,
      make("th", { scope: "row" }, subject),
      routes.map((route) => {
        const key = `${subject}/${route}`,
          cell = found.get(key);
        if (!cell) return make("td");
        const stop = memory.cell ? memory.cell === key : first;
        first = false;
        const description = describeCell(subject, route, cell);
        return make(
          "td",
          null,
          make(
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
  const inner = make(
    "table",
    { class: "map", onkeydown: walk },
    make("caption", { class: "unseen" }, "Worst error of each subject on each route"),
    make("thead", null, head),
    make("tbody", null, rows),
  );
  if (!inner.querySelector('a[tabindex="0"]')) inner.querySelector("a")?.setAttribute("tabindex", "0");
  return [make("p", { class: "quiet" }, words), make("div", { class: "scroll map-box", tabindex: "-1" }, inner)];
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
  const entry = (kind, words) => make("span", null, make("i", { class: `cell ${kind}`, "aria-hidden": "true" }), words);
  return make(
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
    make("span", null, `${data.severities.at(-1)[1]} with a number: by convention only`),
    make("span", null, "– unsupported"),
    make("span", null, "? not run"),
  );
}
