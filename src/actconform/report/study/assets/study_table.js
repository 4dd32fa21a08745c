// The table of a study: a row for each kernel in a role of an experiment, sorted by any column.

const rows = data.rows.map((row, place) => ({ ...row, place }));
const experimentOf = new Map(data.experiments.map((experiment) => [experiment.name, experiment]));
const percents = (share) => (Number.isFinite(number(share)) ? `${short(100 * share)} %` : "");
const finite = (value) => Number.isFinite(number(value));
const orEmpty = (value) => (finite(value) ? short(value) : "");

/** A median over seeds, the least and greatest below it where they differ. */
function spread([median, low, high]) {
  if (!finite(median)) return finite(low) ? ["–", element("span", { class: "spread" }, `from ${short(low)}`)] : "–";
  const range = short(low) === short(high) ? "" : `${short(low)} – ${finite(high) ? short(high) : "not finite"}`;
  return [short(median), range && element("span", { class: "spread" }, range)];
}

/** Gradient norms by layer, first to last, logarithmic: before the first step, and after the last. */
function norms(row) {
  if (row.before.length < 2) return "";
  const values = [...row.before, ...row.after].map(([, norm]) => number(norm)).filter((norm) => norm > 0 && Number.isFinite(norm));
  const words = row.before
    .map(([layer, norm], at) => `${layer}: ${short(norm)} before, ${row.after[at] ? short(row.after[at][1]) : "–"} after`)
    .join("\n");
  if (!values.length) return row.before.every(([, norm]) => number(norm) === 0) ? "0" : "not finite";
  const y = logScale(Math.min(...values) / 1.5, Math.max(...values) * 1.5, 24, 2);
  const x = (at) => 3 + (86 * at) / (row.before.length - 1);
  const path = (pairs, kind) =>
    pairs.length > 1 && pairs.every(([, norm]) => finite(norm))
      ? svg("path", { class: kind, d: pairs.map(([, norm], at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(number(norm)).toFixed(1)}`).join("") })
      : null;
  const drawing = svg(
    "svg",
    { viewBox: "0 0 92 26", class: "norms", role: "img", tabindex: "0", "aria-label": words },
    [path(row.before, "before"), path(row.after, "after")].filter(Boolean),
  );
  return tipped(drawing, words);
}

const COLUMNS = [
  { name: "experiment", of: (row) => row.experiment },
  { name: "role", of: (row) => row.role },
  { name: "kernel", kind: "kernel", of: (row) => row.kernel },
  { name: "what became of it", kind: "words", of: (row) => row.reason || row.words },
  { name: "loss", number: true, of: (row) => number(row.loss[0]), cell: (row) => spread(row.loss) },
  { name: "validation loss", number: true, of: (row) => number(row.validation[0]), cell: (row) => spread(row.validation) },
  { name: "metric", number: true, of: (row) => number(row.metric[0]), cell: (row) => spread(row.metric) },
  {
    name: "step to the stated loss",
    number: true,
    of: (row) => number(row.reached),
    cell: (row) =>
      row.reachedSeeds
        ? [short(row.reached), row.reachedSeeds < row.seeds ? element("span", { class: "spread" }, `${row.reachedSeeds} of ${row.seeds}`) : null]
        : "–",
  },
  { name: "gradient by layer", of: (row) => number(row.ratio), cell: norms },
  { name: "first / last", number: true, of: (row) => number(row.ratio), cell: (row) => orEmpty(row.ratio) },
  { name: "dead", number: true, of: (row) => number(row.dead), cell: (row) => percents(row.dead) },
  { name: "saturated", number: true, of: (row) => number(row.saturated), cell: (row) => percents(row.saturated) },
  {
    name: "rank",
    number: true,
    of: (row) => number(row.rank) / row.width,
    cell: (row) => (finite(row.rank) ? `${short(row.rank)} of ${row.width}` : ""),
  },
  { name: "effective dimension", number: true, of: (row) => number(row.dimension), cell: (row) => orEmpty(row.dimension) },
  { name: "ms a step", number: true, of: (row) => number(row.seconds), cell: (row) => (finite(row.seconds) ? short(1000 * row.seconds) : "") },
  { name: "parameters", number: true, of: (row) => row.parameters, cell: (row) => row.parameters.toLocaleString("en") },
];

const order = { column: null, down: false };

function compared(a, b) {
  const [first, second] = [a, b].map(COLUMNS[order.column].of);
  const sign = order.down ? -1 : 1;
  if (typeof first === "string") return sign * first.localeCompare(second) || a.place - b.place;
  if (Number.isFinite(first) !== Number.isFinite(second)) return Number.isFinite(first) ? -1 : 1; // what has no number stands last
  return Number.isFinite(first) ? sign * (first - second) || a.place - b.place : a.place - b.place;
}

function headCell(column, at, redraw) {
  const sorted = order.column === at ? (order.down ? "descending" : "ascending") : null;
  const choose = () => {
    Object.assign(order, { column: at, down: order.column === at && !order.down });
    redraw();
    document.querySelectorAll("table.study thead button")[at].focus();
  };
  return element(
    "th",
    { scope: "col", class: column.number && "number", "aria-sort": sorted },
    element("button", { type: "button", onclick: choose }, column.name),
  );
}

function rowOf(row) {
  const kind = row.reason ? "absent" : row.present ? "present" : null;
  const cells = COLUMNS.map((column, at) =>
    element("td", { class: column.kind || (column.number && "number") }, row.reason && at > 3 ? "" : column.cell ? column.cell(row) : column.of(row)),
  );
  return element("tr", { class: kind }, cells);
}

function studyTable(shownRows, redraw) {
  const sorted = order.column === null ? shownRows : [...shownRows].sort(compared);
  const inner = element(
    "table",
    { class: "plain study" },
    element("caption", { class: "unseen" }, "Kernels by experiment and role"),
    element("thead", null, element("tr", null, COLUMNS.map((column, at) => headCell(column, at, redraw)))),
    element("tbody", null, sorted.map(rowOf)),
  );
  return element("div", { class: "study-box", tabindex: "0", role: "region", "aria-label": "Kernels by experiment and role" }, inner);
}
