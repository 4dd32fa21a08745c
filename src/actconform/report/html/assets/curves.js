// Trainings: a panel of loss curves for each experiment, a line for each route; and the curves of one case.

const trained = cases.filter((result) => result.raw.l);
const TRAINED_ROUTES = unique(trained.map((result) => result.route));
const LOG_FROM = 20; // the largest loss over the smallest from which the scale is logarithmic
const FEW_EPOCHS = 4; // below which the first steps tell more
const CLAIM_HOLDS = 4; // where in a claim of the data it says so: 1 or 0, null where none is judged

const lineClass = (route) => `curve k${TRAINED_ROUTES.indexOf(route) % 8}`;
const steps = (series, kind, of, route) => ({ losses: series.map(number), kind, of, route });
const seriesOf = (result) => [
  steps(result.raw.l.t, "", "training", result.route),
  steps(result.raw.l.v, " dashed", "validation", result.route),
];

const firstSteps = (result) => steps(result.raw.l.s, "", "training", result.route);

/** Where the first wrong step is on a curve by epoch, or by step. */
function wrongMark(result, byStep) {
  const curve = result.raw.l,
    x = byStep ? curve.w : Math.ceil(curve.w / (curve.n || 1));
  return { x, loss: number((byStep ? curve.s : curve.t)[x - 1]), words: `${result.route}: ${text(curve.why)}`, known: text(curve.d) };
}

/** A scale of losses onto pixels and the losses at its ticks: logarithmic where they are positive and far apart. */
function lossScale(losses, floor, top) {
  const finite = losses.filter(Number.isFinite);
  const low = Math.min(...finite),
    high = Math.max(...finite);
  if (low > 0 && high / low >= LOG_FROM) {
    const from = 10 ** Math.floor(Math.log10(low)),
      to = 10 ** Math.ceil(Math.log10(high));
    return { y: logScale(from, to, floor, top), ticks: decades(from, to, 5).map((exponent) => 10 ** exponent), log: true };
  }
  const size = 10 ** Math.floor(Math.log10(high - low || Math.abs(high) || 1));
  const step = [0.2, 0.5, 1, 2].map((part) => part * size).find((each) => (high - low) / each <= 5) || size;
  const from = Math.floor(low / step) * step,
    to = Math.max(Math.ceil(high / step) * step, from + step);
  const ticks = Array.from({ length: Math.round((to - from) / step) + 1 }, (_, at) => from + at * step);
  return { y: (loss) => floor - ((loss - from) / (to - from)) * (floor - top), ticks, log: false };
}

/** Loss curves in one picture. `series` are of one length or shorter; `wrong` are {x, loss, words}, x counted as steps of the axis are. */
function curves(title, series, unit, wrong = []) {
  const W = 380,
    H = 216,
    left = 46,
    right = 10,
    top = 12,
    floor = H - 36;
  const most = Math.max(...series.map((each) => each.losses.length));
  const all = series.flatMap((each) => each.losses);
  if (!all.some(Number.isFinite)) return element("p", { class: "quiet" }, "No loss is a number.");
  const scale = lossScale(all, floor, top);
  const x = (at) => left + 6 + ((at - 1) * (W - left - right - 12)) / Math.max(1, most - 1);
  const parts = scale.ticks.flatMap((loss) => [
    line(left, scale.y(loss * 1.0000001), W - right, scale.y(loss * 1.0000001), "grid"),
    label(left - 5, scale.y(loss * 1.0000001) + 4, short(loss), "tick", "end"),
  ]);
  const every = [1, 2, 5, 10, 20, 50, 100].find((step) => most / step <= 6) || most;
  for (let at = 1; at <= most; at++) if (at === 1 || at % every === 0) parts.push(label(x(at), floor + 14, String(at), "tick"));
  parts.push(
    line(left, floor, W - right, floor, "axis"),
    label((left + W - right) / 2, H - 6, `${unit} · loss${scale.log ? ", logarithmic" : ""}`, "tick"),
  );
  // the first lie below and are wider, so that curves which agree show all the same
  const routes = unique(series.map((each) => each.route));
  for (const each of series) {
    const width = 1.5 + 1.4 * Math.min(3, routes.length - 1 - routes.indexOf(each.route));
    parts.push(...drawnCurve(each, x, scale.y, width, floor));
  }
  for (const each of wrong.filter((mark) => Number.isFinite(mark.loss))) {
    const at = Math.min(Math.max(x(each.x), left), W - right);
    parts.push(tipped(svg("path", { d: cross(at, scale.y(each.loss)), class: each.known ? "wrong known" : "wrong" }), each.words));
  }
  parts.push(...columns(series, x, most, unit, top, floor));
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "panel-chart", role: "img", "aria-label": title }, parts);
}

/** A line through the losses that are numbers, broken where one is not; points where there are few. */
function drawnCurve(series, x, y, width, floor) {
  const parts = [],
    style = { class: lineClass(series.route) + series.kind, "stroke-width": width };
  let run = [];
  const finish = () => {
    if (run.length > 1) parts.push(svg("polyline", { points: run.map((at) => `${x(at + 1).toFixed(1)},${y(series.losses[at]).toFixed(1)}`).join(" "), ...style }));
    if (run.length && series.losses.length <= 8)
      for (const at of run) parts.push(svg("circle", { cx: x(at + 1), cy: y(series.losses[at]), r: 1.2 + width / 2, class: `${lineClass(series.route)} dot` }));
    run = [];
  };
  series.losses.forEach((loss, at) => {
    if (Number.isFinite(loss)) run.push(at);
    else finish();
  });
  finish();
  const broken = series.losses.findIndex((loss) => !Number.isFinite(loss));
  if (broken >= 0) parts.push(label(x(broken + 1), floor - 4, short(series.losses[broken]), "limit-name"));
  return parts;
}

const cross = (x, y) => `M${x - 5} ${y - 5}L${x + 5} ${y + 5}M${x - 5} ${y + 5}L${x + 5} ${y - 5}`;

/** A column for each epoch or step whose tooltip has the losses of all routes there. */
function columns(series, x, most, unit, top, floor) {
  const wide = most > 1 ? x(2) - x(1) : 40;
  const word = unit.replace(/s$/, "");
  return Array.from({ length: most }, (_, at) => {
    const lines = unique(series.map((each) => each.route)).map((route) => {
      const losses = series.filter((each) => each.route === route).map((each) => each.losses[at]);
      return `${route}: ${losses.map((loss) => (loss === undefined ? "–" : short(loss))).join(" / ")}`;
    });
    const mark = svg("rect", { x: x(at + 1) - wide / 2, y: top, width: wide, height: floor - top, class: "column" });
    return tipped(mark, `${word} ${at + 1}\n${lines.join("\n")}`);
  });
}

/** The section: a legend, and a panel for each experiment. */
function training() {
  if (!trained.length) return null;
  const subjects = unique(trained.map((result) => result.subject));
  return element(
    "section",
    { id: "training" },
    element("h2", null, "Training"),
    element(
      "p",
      { class: "quiet" },
      "Every judged step is compared with the step that the truth makes from the state before it. The losses below are those that each route came to by itself; trajectories part by nature, so of them the first 20 steps and the claims are judged.",
    ),
    curveLegend(),
    element(
      "div",
      { class: "panels" },
      subjects.map((subject) => panel(subject, trained.filter((result) => result.subject === subject))),
    ),
  );
}

function curveLegend(shown = trained) {
  const entry = (kind, words) =>
    element(
      "span",
      null,
      svg("svg", { viewBox: "0 0 24 12", "aria-hidden": "true", class: "wide" }, svg("line", { x1: 1, y1: 6, x2: 23, y2: 6, class: kind, "stroke-width": 2.5 })),
      words,
    );
  return element(
    "p",
    { class: "legend" },
    unique(shown.map((result) => result.route)).map((route) => entry(lineClass(route), route)),
    entry("curve plain-curve", "training, mean of an epoch"),
    entry("curve plain-curve dashed", "validation"),
    shown.some((result) => result.raw.l.w) ? element("span", null, element("b", { class: "bad" }, "✕"), "first wrong step") : null,
  );
}

function panel(subject, ofSubject) {
  const about = text(ofSubject[0].raw.l.a);
  const byStep = ofSubject.every((result) => result.raw.l.t.length < FEW_EPOCHS);
  const wrong = ofSubject.filter((result) => result.raw.l.w).map((result) => wrongMark(result, byStep));
  const series = byStep ? ofSubject.map(firstSteps) : ofSubject.flatMap(seriesOf);
  const unit = byStep ? "steps" : "epochs";
  return element(
    "article",
    { class: "panel" },
    element("h3", null, subject),
    about && element("p", { class: "quiet small" }, about),
    curves(`Loss of ${subject} by ${unit} on ${count(ofSubject.length, "route")}`, series, unit, wrong),
    claims(ofSubject),
    wrongSteps(ofSubject),
    measures(ofSubject),
  );
}

const holds = (result, at) => result.raw.l.c[at]?.[CLAIM_HOLDS];

/** Each claim with its limits and what the routes measured; by name those that do not bear it out, and those that came to no numbers. */
function claims(ofSubject) {
  const stated = ofSubject[0].raw.l.c;
  if (!stated.length) return null;
  return element(
    "ul",
    { class: "claims" },
    stated.map(([words, measure, wanted, published], at) => {
      const unjudged = ofSubject.filter((result) => holds(result, at) === null);
      const judged = ofSubject.filter((result) => holds(result, at) !== null);
      const values = judged.map((result) => ({ result, value: number(result.raw.l.x[text(measure)] ?? "nan") }));
      const broken = values.filter(({ result }) => holds(result, at) === 0);
      const numbers = unique(values.map(({ value }) => value).sort((a, b) => a - b).map(short));
      const range = numbers.length > 1 ? ` ${numbers[0]} to ${numbers.at(-1)}` : numbers.map((each) => ` ${each}`).join("");
      const mark = broken.length ? ["bad", "✗ "] : values.length ? ["good", "✓ "] : ["quiet", "– "];
      return element(
        "li",
        null,
        element("b", { class: mark[0] }, mark[1]),
        text(words),
        element("span", { class: "quiet" }, `: ${text(measure)}${range}, expected ${text(wanted)}${text(published) && ` (published: ${text(published)})`}`),
        broken.map(({ result, value }) => [" ", element("a", { href: linkTo(result), class: "bad" }, `${result.route} ${short(value)}`)]),
        unjudged.map((result) => [" ", element("a", { href: linkTo(result), class: "quiet" }, `${result.route} not judged, no numbers`)]),
      );
    }),
  );
}

function wrongSteps(ofSubject) {
  const wrong = ofSubject.filter((result) => result.raw.l.w);
  if (!wrong.length) return null;
  return element(
    "ul",
    { class: "claims" },
    wrong.map((result) =>
      element(
        "li",
        null,
        element("b", { class: result.raw.l.d === undefined ? "bad" : "quiet" }, "✕ "),
        element("a", { href: linkTo(result) }, result.route),
        ` ${text(result.raw.l.why)}`,
        result.raw.l.d === undefined ? null : element("span", { class: "quiet" }, `, known as ${text(result.raw.l.d)}`),
      ),
    ),
  );
}

function measures(ofSubject) {
  const names = unique(ofSubject.flatMap((result) => Object.keys(result.raw.l.x)));
  const rows = ofSubject.map((result) => [
    element("a", { href: linkTo(result) }, result.route),
    ...names.map((name) => (name in result.raw.l.x ? short(result.raw.l.x[name]) : "")),
  ]);
  return element(
    "details",
    null,
    element("summary", null, `Measures of ${count(ofSubject.length, "route")}`),
    table(`Measures of ${ofSubject[0].subject}`, ["route", ...names.map((name) => `#${name}`)], rows),
  );
}

/** The curves of one case: by epoch, and of the first steps with the first wrong one marked. */
function trainingOf(result) {
  const curve = result.raw.l;
  const wrong = curve.w ? [wrongMark(result, true)] : [];
  const kept = curve.e ? `; the weights of epoch ${curve.e} were kept` : "";
  return [
    element("h3", null, "Training"),
    element("p", { class: "quiet" }, `${text(curve.a)}${kept}`),
    curveLegend([result]),
    element(
      "div",
      { class: "panels" },
      element("article", { class: "panel" }, element("h4", null, "By epoch"), curves(`Loss of ${result.id} by epoch`, seriesOf(result), "epochs")),
      element("article", { class: "panel" }, element("h4", null, "The first steps"), curves(`Loss of the first steps of ${result.id}`, [firstSteps(result)], "steps", wrong)),
    ),
    claims([result]),
    wrongSteps([result]),
    measures([result]),
  ].filter(Boolean);
}
