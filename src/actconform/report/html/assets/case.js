// One case: its verdict, its errors over the input domain, and how to reproduce it. And the cases of one cell.

function chip(state, word, gravity) {
  return element("span", { class: chipClass(state, gravity) }, `${markOf(state, gravity)} ${word}`.trim());
}

/** A known deviation is as loud as it is grave. */
const chipClass = (state, gravity) => `chip s${state}${state === KNOWN && gravity < 3 ? ` g${gravity}` : ""}`;

function verdictOf(result) {
  return chip(
    result.state,
    result.state === KNOWN || result.state === NEW || result.state < KNOWN ? data.words[result.verdict] : result.verdict,
    result.gravity,
  );
}

function cellView(key) {
  const slash = key.indexOf("/"),
    subject = key.slice(0, slash),
    route = key.slice(slash + 1);
  const ofCell = cases.filter((result) => result.subject === subject && result.route === route);
  if (!ofCell.length) return missing(`cell ${key}`);
  const shown = chosenCases(ofCell),
    hidden = ofCell.length - shown.length;
  const rows = [...(shown.length ? shown : ofCell)].sort(gravestFirst).map((result) => rowOf(result, `${result.aspect} ${result.dtype}`, 160));
  return element(
    "article",
    null,
    back(),
    element("h2", { tabindex: "-1" }, subject, element("span", { class: "quiet" }, " on "), route),
    caseTable(`Cases of ${subject} on ${route}`, rows),
    hidden && shown.length ? element("p", { class: "quiet" }, `${count(hidden, "case")} hidden by the filters.`) : null,
  );
}

/** A table of rows of `rowOf`; on a phone each row is a block. */
function caseTable(caption, rows) {
  const list = table(caption, ["case", "verdict", "severity", "gravest", "#worst / limit", "blame", "reason"], rows);
  list.classList.add("cases", "stacked");
  return list;
}

// A result as a row of a table, its link called `name`, of its reason at most so many letters.
const rowOf = (result, name, most) => [
  element("a", { href: linkTo(result) }, name),
  verdictOf(result),
  result.severity,
  result.word,
  percent(result.errorRatio),
  text(result.raw.blame),
  reasonOf(result, most),
];

function reasonOf(result, most) {
  const reason = text(result.raw.why);
  return reason.length > most ? `${reason.slice(0, most)}…` : reason;
}

const back = (result) =>
  element(
    "p",
    { class: "back" },
    element("a", { href: address() }, "← all subjects"),
    result
      ? [" / ", element("a", { href: cellLink(`${result.subject}/${result.route}`) }, `${result.subject} on ${result.route}`)]
      : null,
  );
const missing = (name) =>
  element(
    "article",
    null,
    back(),
    element("h2", { tabindex: "-1" }, "Not in this report"),
    element("p", null, `There is no ${name} here.`),
  );

function caseView(id) {
  const result = byId.get(id);
  if (!result) return missing(`case ${id}`);
  const command = `actconform run ${quoted(result.id)} --out conform-case`;
  const parts = [
    back(result),
    element("h2", { tabindex: "-1" }, result.id),
    element(
      "p",
      { class: "line" },
      verdictOf(result),
      result.severity && ` ${result.severity} ·`,
      result.errorRatio === null ? null : ` worst error ${percent(result.errorRatio)} of its limit`,
      text(result.raw.blame) && ` · blame: ${text(result.raw.blame)}`,
    ),
  ];
  if (text(result.raw.why)) parts.push(element("p", { class: "reason" }, text(result.raw.why)));
  parts.push(neighbours(result), facts(result));
  if (result.raw.l) parts.push(...trainingOf(result));
  if (result.raw.m) parts.push(...measured(result));
  if (result.raw.f) parts.push(element("h3", null, "Findings"), findings(result));
  if (result.raw.m) parts.push(numbers(result));
  if (result.raw.t)
    parts.push(
      element("h3", null, "Over time"),
      trend(result),
      result.raw.since.length
        ? element(
            "ul",
            null,
            result.raw.since.map(([c, t, r, words]) =>
              element("li", null, `${text(c)} in ${[text(t), text(r)].filter(Boolean).join(", ")}: ${text(words)}`),
            ),
          )
        : null,
    );
  parts.push(element("h3", null, "Repeat"), copyable(command, "the command that repeats this case"), reproduction(result));
  return element("article", null, parts);
}

function neighbours(result) {
  const sameCase = cases.filter(
    (neighbour) =>
      neighbour.subject === result.subject &&
      neighbour.aspect === result.aspect &&
      neighbour.dtype === result.dtype &&
      neighbour.state !== NOT_RUN &&
      neighbour !== result,
  );
  if (!sameCase.length) return null;
  return element(
    "p",
    { class: "others" },
    "the same elsewhere: ",
    sameCase.map((neighbour) => [
      element(
        "a",
        { href: linkTo(neighbour), class: `s${neighbour.state}` },
        `${neighbour.route} ${markOf(neighbour.state, neighbour.gravity)}${percent(neighbour.errorRatio)}`,
      ),
      " ",
    ]),
  );
}

function facts(result) {
  const rows = [
    ["computed by", text(result.raw.how)],
    ["stage", text(result.raw.stage)],
  ];
  for (const [name, value] of Object.entries(result.raw.on || {})) rows.push([`on ${name}`, text(value)]);
  for (const [name, value] of Object.entries(result.raw.export || {})) rows.push([`export: ${name}`, text(value)]);
  const entries = rows
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", null, name), element("dd", null, value)]);
  return entries.length ? element("dl", { class: "facts" }, entries) : null;
}

function reproduction(result) {
  if (result.raw.py !== undefined)
    return element(
      "div",
      null,
      element("p", { class: "quiet" }, `Without actconform, the worst input of the gravest finding, in an array of 67:`),
      copyable(text(result.raw.py), "a reproduction in Python"),
    );
  if (!result.raw.f) return null;
  const reason =
    result.route.includes("+") && !result.route.startsWith("authored+")
      ? "the graph has to be exported again"
      : "it takes more than one call on one number";
  return element(
    "p",
    { class: "quiet" },
    `No short program without actconform shows this: ${reason}. The command above does.`,
  );
}
