// What stands around the map: the verdict, what is new, known deviations, self-test, facts.

const NEWS_SHOWN = 20;
const registered = new Map(data.register.map((one) => [one.id, one]));

function known(id) {
  const entry = registered.get(id);
  if (!entry) return id;
  return [
    id,
    make("span", { class: "quiet" }, ` ${entry.reason} · `),
    outward(entry.link),
    entry.until ? ` until ${entry.until}` : "",
  ];
}

/** A link of a register, where it is one. */
function outward(link) {
  return /^https?:\/\//.test(link) ? make("a", { href: link, rel: "noreferrer" }, "link") : link;
}

function header() {
  const newest = { keras: 1, tensorflow: 1, torch: 1, jax: 1, onnxruntime: 1, openvino: 1 };
  const versions = Object.values(data.backends).flatMap((facts) =>
    Object.entries(facts)
      .filter(([name]) => newest[name])
      .map(([name, value]) => `${name} ${value}`),
  );
  const capability = Object.values(data.backends)
    .map((facts) => facts.cpu_capability)
    .filter(Boolean);
  const words = unique(
    [
      ...versions,
      ...capability,
      data.actconform && `actconform ${data.actconform}`,
      data.when && data.when.replace("T", " ").replace("Z", " UTC"),
      data.seconds ? `${Math.floor(data.seconds / 60)}m${String(Math.round(data.seconds % 60)).padStart(2, "0")}s` : "",
    ].filter(Boolean),
  );
  const theme = make("button", { type: "button", id: "theme", onclick: turn }, "");
  return [
    make(
      "div",
      { class: "top" },
      make("h1", { class: data.conforms ? "good" : "bad" }, data.conforms ? "✓ Conforms" : "✗ Does not conform"),
      make(
        "nav",
        { "aria-label": "parts" },
        ["map", "deviations", data.throughput && "throughput", data.selftest && "selftest", "facts"]
          .filter(Boolean)
          .map((name) => make("a", { href: `#${name}` }, name)),
      ),
      theme,
    ),
    make("p", { class: "quiet" }, words.join(" · ")),
    data.problems.length
      ? make(
          "ul",
          { class: "problems" },
          data.problems.map((problem) => make("li", null, problem)),
        )
      : null,
  ];
}

/** Cases that are new or broken, gravest first: what a reader came for. */
function news() {
  const bad = cases.filter((one) => one.state === NEW || one.state === BROKEN).sort(gravestFirst);
  if (!bad.length) return null;
  const rows = bad
    .slice(0, NEWS_SHOWN)
    .map((one) => [
      make("a", { href: linkTo(one) }, one.id),
      verdictOf(one),
      one.severity,
      one.word,
      percent(one.share),
      text(one.raw.blame),
      reasonOf(one, 120),
    ]);
  return make(
    "section",
    null,
    make("h2", null, `New: ${count(bad.length, "case")}`),
    table("New findings, gravest first", ["case", "verdict", "severity", "gravest", "#worst / limit", "blame", "reason"], rows),
    bad.length > NEWS_SHOWN ? make("p", { class: "quiet" }, `and ${bad.length - NEWS_SHOWN} more: filter by verdict.`) : null,
  );
}

function deviations() {
  const seen = new Map();
  for (const one of cases) {
    for (const f of one.raw.f || []) {
      const id = text(f[5]);
      if (!id) continue;
      if (!seen.has(id))
        seen.set(id, {
          cases: new Set(),
          subjects: new Set(),
          routes: new Set(),
          classes: new Set(),
          blames: new Set(),
          most: 0,
          gravity: SEVERITIES.length,
        });
      const entry = seen.get(id);
      entry.cases.add(one.id);
      entry.subjects.add(one.subject);
      entry.routes.add(one.route);
      entry.classes.add(text(f[0]));
      entry.blames.add(text(f[6]));
      entry.most = Math.max(entry.most, number(f[9]));
      entry.gravity = Math.min(entry.gravity, f[11]);
    }
  }
  const all = (set, most = 4) => {
    const words = [...set];
    return words.slice(0, most).join(", ") + (words.length > most ? ` and ${words.length - most} more` : "");
  };
  const rows = [...seen]
    .sort(([a, x], [b, y]) => x.gravity - y.gravity || y.cases.size - x.cases.size || (a < b ? -1 : 1))
    .map(([id, e]) => [
      make(
        "button",
        {
          type: "button",
          class: "quietly",
          onclick: () => {
            filters.text = id.toLowerCase();
            location.hash = "#";
            showMap();
          },
        },
        id,
      ),
      SEVERITIES[e.gravity] || "",
      all(e.classes),
      all(e.blames),
      String(e.cases.size),
      all(e.subjects),
      all(e.routes, 3),
      e.most ? short(e.most) : "",
      registered.has(id) ? [registered.get(id).reason, " · ", outward(registered.get(id).link)] : "",
    ]);
  const head = ["deviation", "severity", "class", "blame", "#cases", "subjects", "routes", "#worst"];
  if (data.register.length) head.push("why");
  return make(
    "section",
    { id: "deviations" },
    make("h2", null, "Known deviations seen"),
    rows.length
      ? table(
          "Known deviations",
          head,
          rows.map((row) => row.slice(0, head.length)),
        )
      : make("p", { class: "quiet" }, "None."),
  );
}

function selftest() {
  const trial = data.selftest;
  if (!trial) return null;
  const part = (...children) =>
    make("section", { id: "selftest" }, make("h2", null, "Self-test: planted faults"), children);
  if (trial.error) return part(make("p", null, trial.error));
  const caught = trial.detections.filter((one) => one.outcome === "caught").length;
  const rows = trial.detections.map((one) => [
    chip(one.outcome === "caught" ? CLEAN : NEW, one.outcome),
    one.fault,
    one.what,
    one.wanted,
    one.seen.join(", "),
  ]);
  return part(
    make(
      "p",
      null,
      `${caught} of ${trial.detections.length} caught, ${count(trial.false_alarms.length, "false alarm")} among `,
      count(trial.healthy, "healthy case"),
    ),
    trial.false_alarms.length
      ? make(
          "ul",
          { class: "problems" },
          trial.false_alarms.map((alarm) => make("li", null, alarm)),
        )
      : null,
    make(
      "details",
      { open: caught < trial.detections.length },
      make("summary", null, count(rows.length, "fault")),
      table("Planted faults", ["outcome", "fault", "what", "wanted", "seen"], rows),
    ),
  );
}

/** Rates of one subject and direction at a time, a chart for each size, with their intervals. */
function throughput() {
  const measured = data.throughput;
  if (!measured) return null;
  const part = (...children) => make("section", { id: "throughput" }, make("h2", null, "Throughput"), children);
  if (measured.error) return part(make("p", null, measured.error));
  const name = (one) => `${one.subject}, ${one.direction}`;
  const names = unique(measured.charts.map(name));
  const shown = make("div", { id: "throughput-charts" });
  const choose = (wanted) => {
    memory.throughput = wanted;
    shown.replaceChildren(...measured.charts.filter((one) => name(one) === wanted).map(speedChart));
  };
  const select = make(
    "select",
    { id: "by-speed", onchange: (event) => choose(event.target.value) },
    names.map((one) => make("option", { value: one, selected: one === memory.throughput }, one)),
  );
  if (names.length) choose(names.includes(memory.throughput) ? memory.throughput : names[0]);
  return part(
    make("p", { class: "quiet" }, `${measured.about}. Medians, and intervals of at least 95 %; ● computes what is wrong.`),
    make("div", { class: "controls" }, make("label", null, "timed: ", select)),
    shown,
  );
}

function speedChart(one) {
  const rows = one.rows.map(([route, rate, low, high, mark, words]) => ({
    name: `${mark}${route}`,
    share: rate,
    low,
    high,
    bad: mark === "●",
    words: `${route}: ${short(rate)} ${one.unit}, ${words}`,
  }));
  return make(
    "div",
    null,
    make("h3", null, `${one.size}, ${one.unit}`),
    bars(`${one.subject}, ${one.direction}, ${one.size}`, rows, { limit: false, unit: big }),
  );
}

/** A rate with a prefix: 1.2 M. */
function big(value) {
  const [scale, prefix] = [
    [1e9, " G"],
    [1e6, " M"],
    [1e3, " K"],
    [1, ""],
  ].find(([size]) => value >= size) || [1, ""];
  return `${Number((value / scale).toPrecision(3))}${prefix}`;
}

function factsTable() {
  const backends = Object.keys(data.backends);
  const names = unique(Object.values(data.backends).flatMap((facts) => Object.keys(facts)));
  const rows = names.map((name) => [name, ...backends.map((backend) => data.backends[backend][name] || "")]);
  return make(
    "section",
    { id: "facts" },
    make("h2", null, "Facts"),
    table("Facts of each backend", ["fact", ...backends], rows),
    data.goldens ? make("p", { class: "quiet" }, `goldens ${data.goldens}`) : null,
  );
}
