// What is new, all of it; what is known, a line for each cause, gravest first; and one cause with its cases.

const NEWS_BOXED = 12; // rows from which on the list of new cases scrolls in a box of its own

/** Cases that are new or broken, gravest first. No filter hides any. */
function news() {
  const bad = cases.filter(isNew).sort(gravestFirst);
  if (!bad.length) return element("section", { id: "new" }, element("h2", null, "New: nothing"));
  const rows = bad.map((result) => rowOf(result, result.id, 120));
  const list = caseTable("New findings, gravest first", rows);
  if (bad.length > NEWS_BOXED) list.classList.add("boxed");
  return element("section", { id: "new" }, element("h2", { class: "bad" }, `New: ${count(bad.length, "case")}`), list);
}

/** The findings that each cause covers, of cases that fit the filters: [{id, cases, gravest, subjects, ...}], gravest first. */
function coveredByCause() {
  const byCause = new Map();
  for (const result of chosenCases()) {
    for (const f of result.raw.f || []) {
      const id = text(f[5]);
      if (!id || (filters.range && RANGES[f[12]] !== filters.range)) continue;
      if (SEVERITIES.includes(filters.severity) && SEVERITIES[f[11]] !== filters.severity) continue;
      if (!byCause.has(id)) byCause.set(id, { id, cases: new Map(), subjects: new Set(), routes: new Set(), findings: [] });
      const cause = byCause.get(id);
      cause.cases.set(result.id, Math.min(f[11], cause.cases.get(result.id) ?? SEVERITIES.length));
      cause.findings.push(f);
      cause.subjects.add(result.subject);
      cause.routes.add(result.route);
    }
  }
  for (const cause of byCause.values()) {
    cause.gravity = Math.min(...cause.cases.values());
    cause.gravest = [...cause.cases.values()].filter((gravity) => gravity === cause.gravity).length;
  }
  return [...byCause.values()].sort(
    (a, b) => a.gravity - b.gravity || b.gravest - a.gravest || b.cases.size - a.cases.size || (a.id < b.id ? -1 : 1),
  );
}

/** The first of some words, and how many more there are. */
const some = (words, most) => {
  const all = unique(words);
  return all.slice(0, most).join(", ") + (all.length > most ? ` +${all.length - most}` : "");
};

/** A list for each severity: critical is open, the others and their counts are one click away. */
function known() {
  const causes = coveredByCause();
  if (!causes.length) return [element("p", { class: "quiet" }, narrowing().length ? "None that fits these filters." : "None.")];
  return data.severities.map(([name, sign], gravity) => {
    const ofSeverity = causes.filter((cause) => cause.gravity === gravity);
    if (!ofSeverity.length) return null;
    const open = memory.unfolded.get(name) ?? (gravity === 0 || filters.severity === name);
    const several = new Set(ofSeverity.flatMap((cause) => [...cause.cases].filter(([, of]) => of === gravity).map(([id]) => id)));
    const words = `${sign} ${name}: ${count(ofSeverity.length, "cause")}, ${count(several.size, "case")}`;
    const head = element("summary", { onclick: (event) => memory.unfolded.set(name, !event.currentTarget.parentNode.open) }, words);
    return element("details", { open, class: "of-severity" }, head, causeTable(name, gravity, ofSeverity));
  });
}

function causeTable(name, gravity, causes) {
  const rows = causes.map((cause) => {
    const gravest = cause.findings.filter((f) => f[11] === gravity);
    return [
      element("a", { href: causeLink(cause.id) }, cause.id),
      cause.gravest === cause.cases.size ? String(cause.gravest) : `${cause.gravest} of ${cause.cases.size}`,
      some(gravest.map((f) => text(f[0])), 1),
      some(gravest.map((f) => text(f[6])), 1),
      some(cause.subjects, 1),
      some(cause.routes, 1),
      element("span", { class: "cut" }, registered.get(cause.id)?.reason || ""),
    ];
  });
  const list = table(`Causes of ${name} findings`, ["cause", "#cases", "class", "blame", "subjects", "routes", "why"], rows);
  list.classList.add("causes", "stacked");
  return list;
}

const causeLink = (id) => `#cause=${encodeURIComponent(id)}`;

function causeView(id) {
  const rows = cases
    .map((result) => [result, (result.raw.f || []).filter((f) => text(f[5]) === id)])
    .filter(([, covered]) => covered.length)
    .sort(([a, [x]], [b, [y]]) => x[11] - y[11] || b.state - a.state || a.place - b.place)
    .map(([result, covered]) => [
      element("a", { href: linkTo(result) }, result.id),
      SEVERITIES[covered[0][11]] || "",
      some(covered.map((f) => text(f[0])), 3),
      some(covered.map((f) => RANGES[f[12]]), 4),
      some(covered.map((f) => text(f[6])), 2),
      short(Math.max(...covered.map((f) => number(f[9])).filter((size) => !Number.isNaN(size)), 0)),
    ]);
  if (!rows.length) return missing(`cause ${id}`);
  const cause = registered.get(id);
  return element(
    "article",
    null,
    back(),
    element("h2", { tabindex: "-1" }, id),
    cause ? element("p", null, cause.reason) : null,
    cause ? element("p", { class: "quiet" }, registerLink(cause.link), cause.since && ` · since ${cause.since}`) : null,
    element("p", null, `${count(rows.length, "case")} with a finding of this cause, gravest first. `, element("a", { href: `#map&text=${encodeURIComponent(id.toLowerCase())}` }, "Show them on the map")),
    table(`Cases of the cause ${id}`, ["case", "severity", "class", "inputs", "blame", "#worst"], rows),
  );
}
