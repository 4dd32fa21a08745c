// Loss curves as small multiples: a panel for each kernel, all of an experiment and role on one logarithmic scale.

const PANEL = { W: 186, H: 96, left: 40, right: 4, top: 6, floor: 82 };

/** The scale of a group of panels: all medians, no higher than twenty times the best constant, no lower than a millionth of it. */
function scaleOf(group, constant) {
  const values = group.flatMap((row) => row.curve[0].map(number)).filter((loss) => loss > 0 && Number.isFinite(loss));
  const middle = constant > 0 ? constant : 1;
  const high = Math.min(Math.max(middle * 1.5, ...values), middle * 20);
  const low = Math.max(Math.min(middle / 4, ...values), middle / 1e6);
  return { low, high, y: logScale(low, high, PANEL.floor, PANEL.top) };
}

/** The stretches of a curve where it is finite, as lists of [epoch, loss]. */
function stretches(curve) {
  const runs = [[]];
  curve.map(number).forEach((loss, epoch) => {
    if (Number.isFinite(loss)) runs.at(-1).push([epoch, loss]);
    else if (runs.at(-1).length) runs.push([]);
  });
  return runs.filter((run) => run.length);
}

function panel(row, epochs, scale, experiment) {
  const { W, H, left, right, top, floor } = PANEL;
  const x = (epoch) => left + (epoch / Math.max(1, epochs - 1)) * (W - left - right);
  const y = (loss) => Math.max(top, scale.y(loss));
  const at = ([epoch, loss], place) => `${place ? "L" : "M"}${x(epoch).toFixed(1)} ${y(loss).toFixed(1)}`;
  const parts = [line(left, floor, W - right, floor, "axis"), line(left, top, left, floor, "axis")];
  for (const [loss, kind] of [
    [number(experiment.constant), "constant"],
    [number(experiment.stated), "stated"],
  ])
    if (loss > scale.low && loss < scale.high) parts.push(line(left, y(loss), W - right, y(loss), kind));
  const [median, low, high] = row.curve;
  const tops = high.map((loss) => (finite(loss) ? loss : scale.high)); // a seed that diverged is beyond the panel
  for (const run of stretches(low.map((loss, epoch) => (finite(median[epoch]) ? loss : NaN)))) {
    const back = run.map(([epoch]) => [epoch, number(tops[epoch])]).reverse();
    parts.push(svg("path", { class: "band", d: `${[...run, ...back].map(at).join("")}Z` }));
  }
  for (const run of stretches(median)) parts.push(svg("path", { class: "median", d: run.length > 1 ? run.map(at).join("") : `${at(run[0], 0)}h2` }));
  const lost = median.findIndex((loss) => !finite(loss));
  if (lost >= 0) parts.push(line(x(lost), top, x(lost), floor, "lost"));
  parts.push(
    label(left - 3, top + 7, short(scale.high), null, "end"),
    label(left - 3, floor, short(scale.low), null, "end"),
    label(left, H - 4, "1", null, "start"),
    label(W - right, H - 4, `${epochs} epochs`, null, "end"),
  );
  const words = `${row.kernel}: ${row.words}; loss ${finite(row.loss[0]) ? short(row.loss[0]) : "not finite"}`;
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": words, tabindex: "0" }, parts);
  return element(
    "div",
    { class: `small-panel${row.present ? " present" : ""}${row.divergedSeeds === row.seeds ? " bad-end" : ""}` },
    element("h4", null, row.kernel, element("span", null, finite(row.loss[0]) ? short(row.loss[0]) : "diverged")),
    tipped(drawing, words),
  );
}

function curves(shownRows) {
  const parts = [];
  for (const experiment of data.experiments)
    for (const role of data.roles) {
      const group = shownRows.filter((row) => row.experiment === experiment.name && row.role === role && !row.reason);
      if (!group.length) continue;
      const scale = scaleOf(group, number(experiment.constant));
      const epochs = Math.max(...group.map((row) => row.curve[0].length));
      parts.push(
        element("h3", null, `${experiment.name}, ${role} `, element("span", { class: "quiet" }, `has ${experiment.has[role]}`)),
        element("div", { class: "small-panels" }, group.map((row) => panel(row, epochs, scale, experiment))),
      );
    }
  return parts;
}
