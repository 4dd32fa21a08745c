// One case: what came of it, where in the input domain, and how to see it again. And the cases of one cell.

function chip(state, word, gravity) {
  return make("span", { class: chipClass(state, gravity) }, `${markOf(state, gravity)} ${word}`.trim());
}

/** A known deviation is as loud as it is grave. */
const chipClass = (state, gravity) => `chip s${state}${state === KNOWN && gravity < 3 ? ` g${gravity}` : ""}`;

function verdictOf(one) {
  return chip(
    one.state,
    one.state === KNOWN || one.state === NEW || one.state < KNOWN ? data.words[one.verdict] : one.verdict,
    one.gravity,
  );
}

function cellView(key) {
  const slash = key.indexOf("/"),
    subject = key.slice(0, slash),
    route = key.slice(slash + 1);
  const some = cases.filter((one) => one.subject === subject && one.route === route);
  if (!some.length) return missing(`cell ${key}`);
  const shown = some.filter(fits),
    hidden = some.length - shown.length;
  const rows = [...(shown.length ? shown : some)].sort(gravestFirst).map((one) => [
    make("a", { href: linkTo(one) }, `${one.aspect} ${one.dtype}`),
    verdictOf(one),
    one.severity,
    one.word,
    percent(one.share),
    text(one.raw.blame),
    reasonOf(one, 160),
  ]);
  return make(
    "article",
    null,
    back(),
    make("h2", { tabindex: "-1" }, subject, make("span", { class: "quiet" }, " on "), route),
    table(`Cases of ${subject} on ${route}`, ["case", "verdict", "severity", "gravest", "#worst / limit", "blame", "reason"], rows),
    hidden && shown.length ? make("p", { class: "quiet" }, `${count(hidden, "case")} hidden by the filters.`) : null,
  );
}

function reasonOf(one, most) {
  const reason = text(one.raw.why);
  return reason.length > most ? `${reason.slice(0, most)}…` : reason;
}

const back = (one) =>
  make(
    "p",
    { class: "back" },
    make("a", { href: "#" }, "← all subjects"),
    one
      ? [" / ", make("a", { href: cellLink(`${one.subject}/${one.route}`) }, `${one.subject} on ${one.route}`)]
      : null,
  );
const missing = (what) =>
  make(
    "article",
    null,
    back(),
    make("h2", { tabindex: "-1" }, "Not in this report"),
    make("p", null, `There is no ${what} here.`),
  );

function caseView(id) {
  const one = byId.get(id);
  if (!one) return missing(`case ${id}`);
  const command = `actconform run ${quoted(one.id)} --out conform-case`;
  const parts = [
    back(one),
    make("h2", { tabindex: "-1" }, one.id),
    make(
      "p",
      { class: "line" },
      verdictOf(one),
      one.severity && ` ${one.severity} ·`,
      one.share === null ? null : ` worst error ${percent(one.share)} of its limit`,
      text(one.raw.blame) && ` · blame: ${text(one.raw.blame)}`,
    ),
  ];
  if (text(one.raw.why)) parts.push(make("p", { class: "reason" }, text(one.raw.why)));
  parts.push(neighbours(one), facts(one));
  if (one.raw.m) parts.push(...measured(one));
  if (one.raw.f) parts.push(make("h3", null, "Findings"), findings(one));
  if (one.raw.m) parts.push(numbers(one));
  if (one.raw.t)
    parts.push(
      make("h3", null, "Over time"),
      trend(one),
      one.raw.since.length
        ? make(
            "ul",
            null,
            one.raw.since.map(([c, t, r, words]) =>
              make("li", null, `${text(c)} in ${[text(t), text(r)].filter(Boolean).join(", ")}: ${text(words)}`),
            ),
          )
        : null,
    );
  parts.push(make("h3", null, "Repeat"), copyable(command, "the command that repeats this case"), reproduction(one));
  return make("article", null, parts);
}

function neighbours(one) {
  const others = cases.filter(
    (other) =>
      other.subject === one.subject &&
      other.aspect === one.aspect &&
      other.dtype === one.dtype &&
      other.state !== NOT_RUN &&
      other !== one,
  );
  if (!others.length) return null;
  return make(
    "p",
    { class: "others" },
    "the same elsewhere: ",
    others.map((other) => [
      make(
        "a",
        { href: linkTo(other), class: `s${other.state}` },
        `${other.route} ${markOf(other.state, other.gravity)}${percent(other.share)}`,
      ),
      " ",
    ]),
  );
}

function facts(one) {
  const rows = [
    ["computed by", text(one.raw.how)],
    ["stage", text(one.raw.stage)],
  ];
  for (const [name, value] of Object.entries(one.raw.on || {})) rows.push([`on ${name}`, text(value)]);
  for (const [name, value] of Object.entries(one.raw.export || {})) rows.push([`export: ${name}`, text(value)]);
  const entries = rows
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [make("dt", null, name), make("dd", null, value)]);
  return entries.length ? make("dl", { class: "facts" }, entries) : null;
}

function reproduction(one) {
  if (one.raw.py !== undefined)
    return make(
      "div",
      null,
      make("p", { class: "quiet" }, `Without actconform, the worst input of the gravest finding, in an array of 67:`),
      copyable(text(one.raw.py), "a reproduction in Python"),
    );
  if (!one.raw.f) return null;
  const why =
    one.route.includes("+") && !one.route.startsWith("authored+")
      ? "the graph has to be exported again"
      : "it takes more than one call on one number";
  return make(
    "p",
    { class: "quiet" },
    `No short program without actconform shows this: ${why}. The command above does.`,
  );
}
