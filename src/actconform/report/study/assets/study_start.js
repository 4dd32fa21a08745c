// The page: what was studied, the controls, the table, the curves.

const chosen = { experiment: "", role: "", kernel: "" };
const tableBox = element("div"),
  curveBox = element("div");

const MEANINGS = [
  "Numbers are medians over the seeds, with the least and greatest below. Loss: the mean of the last epoch; a loss that is not finite counts as beyond every other.",
  `No better than a constant: the last epoch's loss is at least 98 % of that of the best constant answer; worse: more than a tenth above it. Stated loss: ${short(data.reach)} of that; the step is the first at which the mean loss of an epoch's worth of steps is at most as much.`,
  `Dead: units of the role whose derivative is 0 at each of up to 256 examples; saturated: below ${short(data.saturated)} of the largest that it has for inputs from −2 to 2. First / last: the norm of the loss's gradient by the first layer's weights over that by the last one's, before the first step.`,
  "Rank and effective dimension, (Σλ)² / Σλ² of the covariance's eigenvalues, are those of the last hidden activation. All of these by the float64 truth of the parameters.",
];

function experimentsSection() {
  const cells = data.experiments.map((experiment) => [
    experiment.name,
    experiment.source,
    experiment.loss,
    experiment.metric,
    orEmpty(experiment.constant),
    orEmpty(experiment.stated),
    data.roles.map((role) => `${role}: ${experiment.has[role]}`).join("; "),
    `${experiment.examples} / ${experiment.validation}`,
    `${experiment.epochs} / ${experiment.steps}, batch ${experiment.batch}`,
    experiment.optimizer,
  ]);
  const head = ["experiment", "source", "loss", "metric", "#best constant", "#stated loss", "its own kernels", "examples / validation", "epochs / steps", "optimizer"];
  return section("experiments", "Experiments", table("Experiments", head, cells));
}

const key = (words, ...marks) =>
  element("span", null, svg("svg", { viewBox: "0 0 26 10", class: "key", "aria-hidden": "true" }, marks), words);

function legend() {
  return element(
    "p",
    { class: "legend" },
    key("median of the seeds", line(0, 5, 26, 5, "median")),
    key("least to greatest", svg("rect", { x: 0, y: 1, width: 26, height: 8, class: "band" })),
    key("best constant answer", line(0, 5, 26, 5, "constant")),
    key("stated loss", line(0, 5, 26, 5, "stated")),
    key("the median is not finite from here", line(13, 0, 13, 10, "lost")),
    element("span", null, "A darker frame: the experiment's own kernel."),
  );
}

function controls() {
  const change = (name) => (value) => {
    chosen[name] = value;
    draw();
  };
  const names = data.experiments.map((experiment) => [experiment.name, experiment.name]);
  const roles = data.roles.map((role) => [role, role]);
  return controlRow(
    "kernel",
    change("kernel"),
    dropdown("by-experiment", "experiment", [["", "all experiments"], ...names], "", change("experiment")),
    dropdown("by-role", "role", [["", "both roles"], ...roles], "", change("role")),
  );
}

function draw() {
  const shownRows = rows.filter(
    (row) =>
      (!chosen.experiment || row.experiment === chosen.experiment) &&
      (!chosen.role || row.role === chosen.role) &&
      row.kernel.includes(chosen.kernel.trim().toLowerCase()),
  );
  tableBox.replaceChildren(studyTable(shownRows, draw));
  curveBox.replaceChildren(...curves(shownRows));
  announce(count(shownRows.length, "row"));
}

const gradients = element(
  "p",
  { class: "legend" },
  key("gradient by layer before the first step", line(0, 5, 26, 5, "before")),
  key("after the last", line(0, 5, 26, 5, "after")),
);
openPage(
  pageHead("Kernels in training", ["experiments", "table", "curves", "again"], `${data.study} · ${count(data.seeds, "seed")}`),
  [
    experimentsSection(),
    section("table", "Table", controls(), meanings(MEANINGS), gradients, tableBox),
    section("curves", "Loss curves", legend(), curveBox),
    section("again", "Again", copyable(data.command, "the command of this study")),
  ],
  `${data.csv} beside this page has a line for each training, with all of its losses`,
  draw,
);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
});
