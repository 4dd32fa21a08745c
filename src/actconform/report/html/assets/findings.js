// The measurements and findings of a case.

/** All findings in one table, gravest first; evidence and deviations that several share follow once below it. */
function findings(result) {
  const many = unique(result.raw.f.map((f) => text(f[2]))).length > 1;
  const evidences = new Map(),
    deviations = new Map();
  const rows = result.raw.f.map((f) => {
    const [class_, regime, tensor, low, high, deviation, blame, evidence] = f.slice(0, 8).map(text);
    const [n, magnitude, worst, gravity, range] = f.slice(8);
    if (evidence) evidences.set(`${blame}\n${evidence}`, [...(evidences.get(`${blame}\n${evidence}`) || []), class_]);
    if (deviation) deviations.set(deviation, [...(deviations.get(deviation) || []), class_]);
    const at = (pattern) => (pattern && !result.raw.l ? `${pattern} (${decimal(pattern, result.dtype)})` : "");
    const [hex, truth, got, ulp, scaled, cotangent] = worst;
    const by = cotangent === 1 || cotangent === 0 || !worst.length ? "" : ` (both times the cotangent ${cotangent})`;
    const mark = element("span", { title: (data.classes[class_] || [])[0] }, chip(stateOf(f), class_, gravity));
    return [
      mark,
      SEVERITIES[gravity] || "",
      truth,
      got && `${got}${by}`,
      at(hex),
      [regime, many ? tensor : ""].filter(Boolean).join(", "),
      RANGES[range],
      short(ulp),
      short(scaled),
      n.toLocaleString("en"),
      low === high ? at(low) : `${at(low)} … ${at(high)}`,
      blame,
      magnitude ? short(magnitude) : "",
    ];
  });
  const kinds = (words) => element("span", { class: "quiet" }, ` (${unique(words).join(", ")})`);
  return [
    table(
      `Findings of ${result.id}`,
      [
        "finding",
        "severity",
        "truth",
        "got",
        "worst at x",
        "regime",
        "range",
        "#ULP",
        "#units",
        "#elements",
        "inputs",
        "blame",
        "#magnitude",
      ],
      rows,
    ),
    evidences.size
      ? element(
          "dl",
          { class: "facts" },
          [...evidences].map(([key, words]) => [
            element("dt", null, `blame: ${key.split("\n")[0]}`),
            element("dd", null, key.slice(key.indexOf("\n") + 1), kinds(words)),
          ]),
        )
      : null,
    deviations.size
      ? element(
          "dl",
          { class: "facts" },
          [...deviations].map(([id, words]) => [element("dt", null, "known as"), element("dd", null, deviationNote(id), kinds(words))]),
        )
      : null,
    element(
      "p",
      { class: "quiet" },
      unique(result.raw.f.map((f) => text(f[0])))
        .filter((word) => data.classes[word])
        .map((word) => `${word}: ${data.classes[word][0]}`)
        .join(" · "),
    ),
  ];
}

function measured(result) {
  const tensors = unique(result.raw.m.map((m) => text(m[0])));
  const layers = result.raw.m.filter((m) => text(m[1]) === "layers");
  const model = layers.length > 0 || tensors.length > 3;
  const parts = [];
  const row = (m, name) => ({
    name,
    value: ratio(m),
    words: `${name}: error ${short(m[4])}, limit ${short(m[6])}, ${short(m[3])} ULP at most, ${count(m[2], "element")}`,
    bad: breaks(result, m),
  });
  if (layers.length)
    parts.push(
      element("h3", null, "Error along the layers"),
      element("p", { class: "quiet" }, "each layer on the inputs that it had in this run, against its own bound"),
      bars(
        `Error along the layers of ${result.id}`,
        layers.map((m) => row(m, text(m[0]))),
      ),
    );
  const rest = result.raw.m.filter((m) => text(m[1]) !== "layers");
  if (result.raw.l) {
    const worst = unique(rest.map((m) => text(m[1]))).map((part) =>
      rest.filter((m) => text(m[1]) === part).reduce((a, b) => (ratio(b) > ratio(a) ? b : a)),
    );
    parts.push(
      element("h3", null, "Error by part of a step"),
      element("p", { class: "quiet" }, "the worst tensor of each part, over all judged steps, each from the state before it"),
      bars(
        `Error by part of a step of ${result.id}`,
        worst.map((m) => row(m, unique([text(m[1]), text(m[0])]).join(": "))),
      ),
    );
  } else if (model) {
    const title = result.aspect === "gradient" ? "Gradient error by parameter" : "Error of the outputs";
    parts.push(
      element("h3", null, title),
      bars(
        `${title} of ${result.id}`,
        rest.map((m) => row(m, text(m[0]))),
      ),
    );
  } else {
    for (const tensor of tensors) {
      const suffix = tensors.length > 1 ? `: ${tensor}` : "";
      const over = domain(result, tensor);
      if (over) parts.push(element("h3", null, `Error over the input domain${suffix}`), over);
      else
        parts.push(
          element("h3", null, `Error by regime${suffix}`),
          bars(
            `Error by regime of ${result.id}${suffix}`,
            rest.filter((m) => text(m[0]) === tensor).map((m) => row(m, text(m[1]))),
          ),
        );
      const many = histogram(result, tensor);
      if (many) parts.push(element("h3", null, `Histogram of ULP${suffix}`), many);
    }
  }
  return parts;
}

function numbers(result) {
  const rows = result.raw.m.map((m) => [
    text(m[1]),
    text(m[0]),
    m[2].toLocaleString("en"),
    short(m[3]),
    short(m[4]),
    short(m[6]),
    percent(ratio(m)),
    short(m[5]),
  ]);
  return element(
    "details",
    null,
    element("summary", null, `${count(rows.length, "measurement")}`),
    table(
      `Measurements of ${result.id}`,
      ["regime", "tensor", "#elements", "#max ULP", "#max error", "#limit", "#of limit", "#bias"],
      rows,
    ),
  );
}

const ratio = (m) => (number(m[6]) ? number(m[4]) / number(m[6]) : number(m[4]));
const breaks = (result, m) => (result.raw.f || []).some((f) => f[1] === m[1] && f[2] === m[0]);
