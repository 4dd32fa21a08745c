// The parts around the map: the verdict, self-test, throughput, facts.

const registered = new Map(data.register.map((cause) => [cause.id, cause]));

function deviationNote(id) {
  const entry = registered.get(id);
  if (!entry) return id;
  return [
    id,
    element("span", { class: "quiet" }, ` ${entry.reason} · `),
    registerLink(entry.link),
    entry.until ? ` until ${entry.until}` : "",
  ];
}

/** A register's link as an anchor, where it is a URL. */
function registerLink(link) {
  return /^https?:\/\//.test(link) ? element("a", { href: link, rel: "noreferrer" }, "link") : link;
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
  const theme = element("button", { type: "button", id: "theme", onclick: turn }, "");
  return [
    element(
      "div",
      { class: "top" },
      element("h1", { class: data.conforms ? "good" : "bad" }, data.conforms ? "✓ Conforms" : "✗ Does not conform"),
      element(
        "nav",
        { "aria-label": "parts" },
        ["new", "known", "map", trained.length && "training", data.throughput && "throughput", data.selftest && "selftest", "facts"]
          .filter(Boolean)
          .map((name) => element("a", { href: `#${name}`, onclick: (event) => event.currentTarget.setAttribute("href", address(name)) }, name)),
      ),
      theme,
    ),
    element("p", { class: "quiet" }, words.join(" · ")),
    data.problems.length
      ? element(
          "ul",
          { class: "problems" },
          data.problems.map((problem) => element("li", null, problem)),
        )
      : null,
  ];
}

function selftest() {
  const report = data.selftest;
  if (!report) return null;
  const part = (...children) =>
    element("section", { id: "selftest" }, element("h2", null, "Self-test: injected faults"), children);
  if (report.error) return part(element("p", null, report.error));
  const caught = report.detections.filter((detection) => detection.outcome === "caught").length;
  const rows = report.detections.map((detection) => [
    chip(detection.outcome === "caught" ? CLEAN : NEW, detection.outcome),
    detection.fault,
    detection.what,
    detection.wanted,
    detection.seen.join(", "),
  ]);
  return part(
    element(
      "p",
      null,
      `${caught} of ${report.detections.length} caught, ${count(report.false_alarms.length, "false alarm")} among `,
      count(report.healthy, "healthy case"),
    ),
    report.false_alarms.length
      ? element(
          "ul",
          { class: "problems" },
          report.false_alarms.map((alarm) => element("li", null, alarm)),
        )
      : null,
    element(
      "details",
      { open: caught < report.detections.length },
      element("summary", null, count(rows.length, "fault")),
      table("Injected faults", ["outcome", "fault", "what", "wanted", "seen"], rows),
    ),
  );
}

/** Rates of one subject and direction at a time, a chart for each size, with their intervals. */
function throughput() {
  const measured = data.throughput;
  if (!measured) return null;
  const part = (...children) => element("section", { id: "throughput" }, element("h2", null, "Throughput"), children);
  if (measured.error) return part(element("p", null, measured.error));
  const name = (chart) => `${chart.subject}, ${chart.direction}`;
  const names = unique(measured.charts.map(name));
  const shown = element("div", { id: "throughput-charts" });
  const choose = (wanted) => {
    memory.throughput = wanted;
    shown.replaceChildren(...measured.charts.filter((chart) => name(chart) === wanted).map(speedChart));
  };
  const select = element(
    "select",
    { id: "by-speed", onchange: (event) => choose(event.target.value) },
    names.map((option) => element("option", { value: option, selected: option === memory.throughput }, option)),
  );
  if (names.length) choose(names.includes(memory.throughput) ? memory.throughput : names[0]);
  return part(
    element("p", { class: "quiet" }, `${measured.about}. Medians, and intervals of at least 95 %; ● computes what is wrong.`),
    element("div", { class: "controls" }, element("label", null, "timed: ", select)),
    shown,
  );
}

function speedChart(chart) {
  const rows = chart.rows.map(([route, rate, low, high, mark, words]) => ({
    name: `${mark}${route}`,
    value: rate,
    low,
    high,
    bad: mark === "●",
    words: `${route}: ${short(rate)} ${chart.unit}, ${words}`,
  }));
  return element(
    "div",
    null,
    element("h3", null, `${chart.size}, ${chart.unit}`),
    bars(`${chart.subject}, ${chart.direction}, ${chart.size}`, rows, { limit: false, unit: big }),
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
  return element(
    "section",
    { id: "facts" },
    element("h2", null, "Facts"),
    table("Facts of each backend", ["fact", ...backends], rows),
    data.goldens ? element("p", { class: "quiet" }, `goldens ${data.goldens}`) : null,
  );
}
