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
  const [magnitude, got, wanted, place, histogram, segment, overflowed, nonfinite, wantedShape] = [
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
      layer.over && !Number.isFinite(layer.ratio) ? "not what it must be" : `error ${layer.over ? over(layer) : percent(layer.ratio)} of its bound`,
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
  const W = 960,
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
    label(x(-1), base + 28, "− bound", "tick"),
    label(x(1), base + 28, "+ bound", "tick"),
  ];
  for (let exponent = 1; 10 ** exponent < Math.abs(off) * 1.4; exponent++) {
    const ticks = Math.abs(off) > 1e6 && exponent % 3 ? [] : [10 ** exponent * Math.sign(off)];
    for (const tick of ticks) parts.push(line(x(tick), base - 4, x(tick), base + 4, "axis"), label(x(tick), base + 28, `${power(exponent)} bounds`, "tick"));
  }
  parts.push(
    tipped(
      svg("circle", { cx: x(off), cy: base, r: 6, class: layer.over ? "point bad" : "point" }),
      `got ${digits(got)}: ${short(Math.abs(off))} bounds off`,
    ),
    Math.abs(off) > 1.5 ? label(x(off), base - 22, `got ${digits(got)}`, "strong", "middle") : null,
  );
  return chart(W, H, `Right ${digits(wanted)}, allowed ± ${short(layer.bound)}, got ${digits(got)}`, parts);
}

function histogramFigure(layer, counts) {
  const W = 960,
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
