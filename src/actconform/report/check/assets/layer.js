// One layer: what is right, what rounding allows, what came; its values; the same layer in other runs.

const back = () => element("p", { class: "back" }, element("a", { href: "#layers" }, "← all layers"));

function layerView(index) {
  const layer = layers[Number(index)];
  if (!layer || !/^\d+$/.test(index))
    return element(
      "article",
      null,
      back(),
      element("h2", { tabindex: "-1" }, "Not in this check"),
      element("p", null, "There is no such layer here."),
    );
  const { segment, nonfinite, wantedShape } = layer;
  const [magnitude, got, wanted, place, histogram, , overflowed] = [
    layer.raw[10],
    ...layer.raw.slice(13),
  ];
  const at = text(place);
  const entries = [
    named("right", [element("strong", null, digits(wanted)), at && ` at [${at}]`]),
    named("allowed by rounding", layer.bound === 0 ? "nothing: it must be exact" : `± ${short(layer.bound)}`),
    named("got", [element("strong", { class: layer.over ? "bad" : null }, digits(got)), ` off by ${short(Math.abs(number(got) - number(wanted)))}`]),
    named("largest error", `${short(layer.error)} of values up to ${short(magnitude)}`),
    wantedShape === null ? null : named("right shape", text(wantedShape)),
    named("shape", layer.shape),
    named("tensor", layer.tensor),
    layer.trained ? named("layer of the trained model", layer.trained) : null,
    named("range", `${short(layer.lowest)} to ${short(layer.highest)}`),
    overflowed ? named("beyond the format's range", `${count(overflowed, "element")}, infinite as they must be`) : null,
    nonfinite ? named("NaN or infinite", `${count(nonfinite, "element")} that should not be, or should be and are not`) : null,
    named("loosest bound", `${share(layer.looseness)} of the largest value: a smaller fault may go unseen`),
    named("run", `${runName(layer.run)}, ${marksOf(layer.run)}`),
    segment.length ? named(`${segment.length} nodes judged together`, segment.map(text).join(" → ")) : null,
  ];
  return element(
    "article",
    null,
    back(),
    element("h2", { tabindex: "-1" }, layer.node || layer.tensor, element("span", { class: "quiet" }, ` ${layer.op}`)),
    element(
      "p",
      { class: "line" },
      status(!layer.over, layer.over ? "over its bound" : "within its bound"),
      " ",
      layer.over && !Number.isFinite(layer.ratio) ? over(layer) : `error ${layer.over ? over(layer) : percent(layer.ratio)} of its bound`,
    ),
    neighbours(layer),
    truthFigure(layer, number(got), number(wanted)),
    element("dl", { class: "facts" }, entries),
    histogram.length > 1 ? [element("h3", null, "Its values"), histogramFigure(layer, histogram)] : null,
    elsewhere(layer),
  );
}

/** Links to the layers before and after it in the same run. */
function neighbours(layer) {
  const run = layers.filter((other) => other.runPlace === layer.runPlace);
  const at = run.indexOf(layer);
  const link = (other, words) => (other ? element("a", { href: other.link }, words.replace("%", brief(other.node))) : null);
  return element("p", { class: "others" }, link(run[at - 1], "← % "), " ", link(run[at + 1], "% →"));
}

/** The right value in the middle, the band that rounding allows around it, and what came; linear near the band, logarithmic beyond. */
function truthFigure(layer, got, wanted) {
  const off = (got - wanted) / layer.bound;
  if (!Number.isFinite(off)) return null;
  const W = figureWidth(),
    H = 74,
    middle = W / 2,
    base = 40;
  const reach = Math.asinh(Math.max(3, Math.abs(off) * 1.4));
  const x = (bounds) => middle + (Math.asinh(bounds) / reach) * (middle - 30);
  const parts = [
    svg("rect", { x: x(-1), y: base - 14, width: x(1) - x(-1), height: 28, class: "band" }),
    line(20, base, W - 20, base, "axis"),
    line(middle, base - 18, middle, base + 18, "truth"),
    label(middle, base - 22, `right ${digits(wanted)}`, "tick"),
    label(middle, base + 28, "± bound", "tick"),
  ];
  const side = Math.sign(off);
  let free = Math.max(Math.abs(x(1) - middle), 28); // where the next label may stand, from the middle
  for (let exponent = 1; 10 ** exponent < Math.abs(off) * 1.3; exponent++) {
    const tick = x(10 ** exponent * side),
      from = Math.abs(tick - middle);
    parts.push(line(tick, base - 4, tick, base + 4, "axis"));
    if (from - 34 < free) continue;
    parts.push(label(tick, base + 28, `${power(exponent)} bounds`, "tick"));
    free = from + 34;
  }
  parts.push(
    tipped(
      svg("circle", { cx: x(off), cy: base, r: 6, class: layer.over ? "point bad" : "point" }),
      `got ${digits(got)}: ${short(Math.abs(off))} bounds off`,
    ),
  );
  const room = Math.abs(x(off) - middle) > 150;
  if (room) parts.push(label(x(off) + side * 24, base - 22, `got ${digits(got)}`, "strong", side > 0 ? "end" : "start"));
  return chart(W, H, `Right ${digits(wanted)}, allowed ± ${short(layer.bound)}, got ${digits(got)}`, parts);
}

/** Charts are drawn to the width that there is, so that their letters keep their size. */
const figureWidth = () => Math.max(300, Math.min(1100, main.clientWidth));

function histogramFigure(layer, counts) {
  const W = figureWidth(),
    H = 130,
    left = 20,
    floor = H - 22,
    top = 14;
  const lowest = number(layer.lowest),
    highest = number(layer.highest),
    most = Math.max(...counts),
    wide = (W - 2 * left) / counts.length;
  const total = counts.reduce((sum, value) => sum + value, 0);
  const edge = (part) => short(lowest + (highest - lowest) * (part / counts.length));
  const parts = counts.map((value, part) => {
    const tall = value ? Math.max(1.5, (floor - top) * (Math.log1p(value) / Math.log1p(most))) : 0;
    return tipped(
      svg("rect", { x: left + part * wide + 0.5, y: floor - tall, width: Math.max(1, wide - 1), height: tall, class: "bar" }),
      `${edge(part)} to ${edge(part + 1)}: ${count(value, "value")}`,
    );
  });
  parts.push(
    line(left, floor, W - left, floor, "axis"),
    label(left, H - 6, short(lowest), "tick", "start"),
    label(W - left, H - 6, short(highest), "tick", "end"),
    label(left, top - 3, `${count(total, "value")}, heights logarithmic`, "tick", "start"),
  );
  return chart(W, H, `Histogram of ${count(total, "value")} from ${short(lowest)} to ${short(highest)}`, parts);
}

function elsewhere(layer) {
  const same = layers.filter((other) => other.tensor === layer.tensor && other !== layer);
  if (!same.length) return null;
  const rows = same.map((other) => [
    element("a", { href: other.link }, runName(other.run)),
    status(!other.over, other.over ? "over its bound" : "within"),
    other.over ? over(other) : percent(other.ratio),
    short(other.error),
    short(other.bound),
    String(other.segment.length || 1),
  ]);
  return [
    element("h3", null, "The same layer elsewhere"),
    table("The same layer in other runs", ["run", "verdict", "#error / bound", "#error", "#bound", "#nodes"], rows),
  ];
}
