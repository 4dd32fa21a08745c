// What stands around the layers: the verdict, whose fault, outputs, inputs, weights, facts.

const ANSWERED = ["explained", "not explained"];
const runName = ([runtime, level, sample]) =>
  [data.runtimes[runtime].name, level, data.samples.length > 1 && `sample ${sample + 1}`].filter(Boolean).join(" · ");
const marksOf = ([, , , marks]) => (marks === "all" ? "all tensors shown" : "tensors that survive the optimizer shown");

function header() {
  const time = data.seconds ? `${short(data.seconds)} s` : "";
  const words = [
    `opset ${data.opset}`,
    count(data.nodes, "node"),
    count(data.samples.length, "sample"),
    data.runtimes.map((runtime) => runtime.name).join(", "),
    data.actconform && `actconform ${data.actconform}`,
    time,
  ].filter(Boolean);
  return [
    element(
      "div",
      { class: "top" },
      element(
        "h1",
        { class: data.explained ? "good" : "bad" },
        `${data.explained ? "✓" : "✗"} ${data.verdict}`,
      ),
      element(
        "nav",
        { "aria-label": "parts" },
        ["outputs", "layers", data.trained.length && "trained", data.noise && "noise", data.agreement.length && "agreement", "inputs", data.weights.length && "weights", "facts", data.command && "again"]
          .filter(Boolean)
          .map((name) => element("a", { href: `#${name}` }, name)),
      ),
      element("button", { type: "button", id: "theme", onclick: turn }, ""),
    ),
    element("p", { class: "model" }, brief(data.model, 120)),
    element("p", { class: "quiet" }, words.join(" · ")),
  ];
}

/** A foreign name, its middle left out where it is long: the layer's own view and check.json have all of it. */
const nameOf = (name) => element("span", { class: "name" }, brief(name, 120));
const brief = (name, letters = 40) =>
  name.length > letters ? `${name.slice(0, letters / 2 - 2)}…${name.slice(2 - letters / 2)}` : name;

const status = (good, words) => element("span", { class: `chip ${good ? "s0" : "s3"}` }, `${good ? "✓" : "✗"} ${words}`);

/** On top: of each runtime whether rounding explains it, and the first place where it does not. */
function verdicts() {
  return element(
    "section",
    { id: "verdict" },
    element("h2", { class: "headline", tabindex: "-1" }, data.headline),
    data.runtimes.map(verdict),
    data.graph.some(([, , , , ill, overflows]) => ill || overflows) ? graphNotes() : null,
  );
}

function verdict(runtime, place) {
  const fault = runtime.fault;
  const atFault = runtime.status === "at fault"; // the graph itself
  const parts = [
    element(
      "h3",
      null,
      runtime.name,
      " ",
      status(runtime.status === "explained", ANSWERED.includes(runtime.status) ? `${runtime.status} by rounding` : runtime.status),
    ),
  ];
  if (runtime.reason) parts.push(element("p", { class: "reason" }, runtime.reason));
  if (fault) {
    parts.push(
      element(
        "dl",
        { class: "facts" },
        named(atFault ? "node" : fault.tensor === null ? "made by node" : "first bad layer", [layerLink(fault, place), fault.op && ` (${fault.op})`]),
        fault.layer ? named("in the trained model", element("strong", null, fault.layer)) : null,
        named("what is wrong", fault.sentence),
        named("whose fault", [element("strong", null, fault.blame), fault.blame in data.blames ? `: ${data.blames[fault.blame]}` : ""]),
        atFault ? null : named("at", [fault.level && `level ${fault.level}, `, `sample ${fault.sample + 1}`]),
        fault.segment.length > 1 ? named("nodes in it", fault.segment.join(", ")) : null,
        fault.source ? named("source line", fault.source) : null,
      ),
      element("h4", null, "What shows it"),
      element(
        "ul",
        { class: "evidence" },
        fault.evidence.map((words) => element("li", null, words)),
      ),
    );
  } else if (runtime.largest) {
    const [ratio, node, op, level, overBound] = runtime.largest;
    parts.push(
      element(
        "p",
        null,
        overBound ? "" : "The layer nearest to its bound is ",
        nameOf(node),
        ` (${op}${level && `, level ${level}`}): ${overBound || `${percent(number(ratio))} of it`}.`,
      ),
    );
  }
  parts.push(...powerOf(runtime));
  return element("div", { class: `card ${runtime.status === "explained" ? "fine" : "wrong"}` }, parts);
}

const named = (name, ...value) => [element("dt", null, name), element("dd", null, value)];

function layerLink(fault, runtime) {
  const row = fault.tensor !== null
    ? layers.find(
        (layer) =>
          layer.run[0] === runtime && layer.run[1] === fault.level && layer.run[2] === fault.sample && layer.raw[4] === fault.tensor,
      )
    : null;
  return row ? element("a", { href: row.link, class: "name" }, brief(fault.node, 120)) : nameOf(fault.node);
}

/** How much was judged, what not and why, and how large a fault must be to be seen. */
function powerOf(runtime) {
  const parts = [];
  if (runtime.powers.length) {
    const rows = runtime.powers.map(([level, tensors, loosest, node, blind]) => [
      level || "as it runs",
      tensors.toLocaleString("en"),
      tensors ? share(loosest) : "–",
      nameOf(node),
      blind ? blind.toLocaleString("en") : "–",
    ]);
    parts.push(
      element("h4", null, "How sharp the test was"),
      table(
        `Power of the test of ${runtime.name}`,
        ["level", "#tensors judged", "#loosest bound", "at", "#bound larger than its values"],
        rows,
      ),
      element("p", { class: "quiet" }, "A fault smaller than the loosest bound, a share of the tensor's largest value, may go unseen there."),
    );
  }
  const notes = [
    ...runtime.failures.map(([level, sample, words]) => `${level || "the run"}, sample ${sample + 1}, gave no layers: ${words}`),
    ...runtime.moved.map(
      ([level, sample, names]) =>
        `Showing layers changed the outputs ${names.join(", ")} (${level || "as it runs"}, sample ${sample + 1}): the layers seen may not be those of a plain run.`,
    ),
    ...(runtime.unsteady.length ? [`Two calls with equal inputs gave different outputs: ${runtime.unsteady.join(", ")}.`] : []),
    ...(runtime.mutated.length ? [`It changed its inputs in place: ${runtime.mutated.join(", ")}.`] : []),
  ];
  if (notes.length)
    parts.push(
      element(
        "ul",
        { class: "problems" },
        notes.map((words) => element("li", null, words)),
      ),
    );
  for (const [reason, operators, nodes] of runtime.unjudged)
    parts.push(
      element(
        "details",
        null,
        element("summary", null, `${count(nodes.length, "node")} not judged (${operators.slice(0, 6).join(", ")}): ${reason}`),
        element("p", { class: "names" }, nodes.slice(0, NAMES_SHOWN).join(", "), nodes.length > NAMES_SHOWN && ` and ${nodes.length - NAMES_SHOWN} more`),
      ),
    );
  return parts;
}

const NAMES_SHOWN = 200;

/** A share of the largest value: percent, or a power of ten below. */
function share(value) {
  value = number(value);
  if (value === Infinity) return "unbounded";
  return value >= 0.001 ? `${short(100 * value)} %` : short(value);
}

function graphNotes() {
  const words = data.graph.flatMap(([output, sample, spread, magnitude, ill, overflows]) => [
    ill
      ? `${output} (sample ${sample + 1}) is ill-conditioned: rounding alone moves it by ${short(spread)} where its largest value is ${short(magnitude)}.`
      : null,
    overflows,
  ]);
  return element(
    "div",
    { class: "card warn" },
    element("h3", null, "The graph itself, whatever computes it"),
    element(
      "ul",
      null,
      unique(words.filter(Boolean)).map((sentence) => element("li", null, sentence)),
    ),
  );
}

function outputs() {
  const parts = data.runtimes
    .filter((runtime) => runtime.outputs.length)
    .flatMap((runtime) => [
      data.runtimes.length > 1 ? element("h3", null, runtime.name) : null,
      table(
        `Outputs of ${runtime.name}`,
        ["output", "sample", "verdict", `#spreads (limit ${data.limit})`, "#error", "#relative", "got", "right", "top-1", "shape"],
        runtime.outputs.map(outputRow),
      ),
    ]);
  return element(
    "section",
    { id: "outputs" },
    element("h2", null, "Outputs, end to end"),
    element("p", { class: "quiet" }, `A spread is ${data.spread}. Up to ${data.limit} spreads are explained by rounding.`),
    parts.length ? parts : element("p", null, "No runtime gave outputs."),
  );
}

function outputRow(row) {
  const [name, sample, explained, reason, unjudged, spreads, error, relative, spread, got, wanted, place, nonfinite, overflowed, decided, alike, shape] = [
    ...row.slice(0, 2),
    ...row.slice(3),
    row[2],
  ];
  const words = [
    reason,
    nonfinite ? `${count(nonfinite, "element")} NaN or infinite, or should be` : "",
    overflowed ? `${count(overflowed, "element")} beyond the format's range` : "",
  ].filter(Boolean);
  return [
    nameOf(name),
    String(sample + 1),
    [
      unjudged ? element("span", { class: "chip" }, "not judged") : status(explained, explained ? "explained" : "not explained"),
      words.length ? ` ${brief(words.join("; "), 400)}` : null,
    ],
    unjudged ? "" : element("span", { "data-tip": `one spread is ${short(spread)}` }, short(spreads)),
    unjudged ? "" : short(error),
    unjudged ? "" : short(relative),
    unjudged ? "" : [digits(got), place && element("span", { class: "quiet" }, ` at [${place}]`)],
    unjudged ? "" : digits(wanted),
    decided ? `${alike.toLocaleString("en")} of ${decided.toLocaleString("en")}` : "",
    shape,
  ];
}

const digits = (value) => (typeof value === "number" ? String(value) : short(value));

function inputs() {
  const rows = data.samples.flatMap((sample, place) =>
    (sample.inputs.length ? sample.inputs : [["", "", ""]]).map(([name, shape, drawn]) => [
      String(place + 1),
      nameOf(name),
      shape,
      drawn || sample.origin,
      drawn ? sample.origin : "",
    ]),
  );
  return element(
    "section",
    { id: "inputs" },
    element("h2", null, "Inputs"),
    table("Inputs of each sample", ["sample", "input", "shape", "values", "from"], rows),
  );
}

function weights() {
  if (!data.weights.length) return null;
  const rows = data.weights.map(([name, shape, dtype, lowest, highest]) => ({ name: text(name), shape: text(shape), dtype: text(dtype), lowest, highest }));
  const list = longTable("Ranges of weights", [
    { name: "weight", kind: "wide name", cell: (row) => row.name },
    { name: "type", kind: "narrow roomy", cell: (row) => row.dtype },
    { name: "shape", kind: "shape roomy", cell: (row) => row.shape },
    { name: "lowest", kind: "number", cell: (row) => short(row.lowest) },
    { name: "highest", kind: "number", cell: (row) => short(row.highest) },
  ]);
  const search = element("input", {
    type: "search",
    placeholder: "search weights",
    "aria-label": "search weights",
    oninput: () => list.show(rows.filter((row) => has(row.name, search.value))),
  });
  requestAnimationFrame(() => list.show(rows));
  return element(
    "section",
    { id: "weights" },
    element("h2", null, "Weights"),
    element("div", { class: "controls" }, element("label", { class: "grow" }, search)),
    list.box,
  );
}

/** Whether every word of a search is in a text. */
const has = (words, wanted) =>
  wanted
    .toLowerCase()
    .split(/\s+/)
    .every((word) => words.toLowerCase().includes(word));

function facts() {
  const answered = data.runtimes.filter((runtime) => Object.keys(runtime.facts).length);
  const names = unique(answered.flatMap((runtime) => Object.keys(runtime.facts)));
  const rows = names.map((name) => [name, ...answered.map((runtime) => runtime.facts[name] || "")]);
  const operators = data.operators.map(([name, uses]) => `${name} ${uses}`).join(", ");
  return element(
    "section",
    { id: "facts" },
    element("h2", null, "Facts"),
    rows.length ? table("Facts of each runtime", ["fact", ...answered.map((runtime) => runtime.name)], rows) : null,
    element(
      "dl",
      { class: "facts" },
      named("model", data.model),
      named("SHA-256", data.sha256),
      operators ? named("operators", operators) : null,
      data.answered.length ? named("taken from the runtime", `${data.answered.join(", ")}: cannot be evaluated here`) : null,
    ),
    data.notes.length
      ? element(
          "ul",
          null,
          data.notes.map((note) => element("li", null, note)),
        )
      : null,
  );
}

const again = () =>
  data.command
    ? element(
        "section",
        { id: "again" },
        element("h2", null, "Again"),
        element("p", { class: "quiet" }, "In the folder in which the check was made."),
        copyable(data.command, "the command that checks the model again"),
      )
    : null;
