// What was measured of a case, and what was found in it.

/** All findings in one table, gravest first; what several say alike, evidence and deviation, stands once below it. */
function findings(one) {
  const many = unique(one.raw.f.map((f) => text(f[2]))).length > 1;
  const said = new Map(),
    why = new Map();
  const rows = one.raw.f.map((f) => {
    const [class_, regime, tensor, low, high, deviation, blame, evidence] = f.slice(0, 8).map(text);
    const [n, magnitude, worst, gravity] = f.slice(8);
    const state = !deviation ? NEW : gravity === SEVERITIES.length - 1 ? BY_CONVENTION : KNOWN;
    if (evidence) said.set(`${blame}\n${evidence}`, [...(said.get(`${blame}\n${evidence}`) || []), class_]);
    if (deviation) why.set(deviation, [...(why.get(deviation) || []), class_]);
    const at = (pattern) => (pattern ? `${pattern} (${decimal(pattern, one.dtype)})` : "");
    const [hex, truth, got, ulp, scaled, cotangent] = worst;
    const by = cotangent === 1 || cotangent === 0 || !worst.length ? "" : ` (both times the cotangent ${cotangent})`;
    const mark = make("span", { title: (data.classes[class_] || [])[0] }, chip(state, class_, gravity));
    return [
      mark,
      SEVERITIES[gravity] || "",
      truth,
      got && `${got}${by}`,
      at(hex),
      [regime, many ? tensor : ""].filter(Boolean).join(", "),
      short(ulp),
      short(scaled),
      n.toLocaleString("en"),
      low === high ? at(low) : `${at(low)} … ${at(high)}`,
      blame,
      magnitude ? short(magnitude) : "",
    ];
  });
  const kinds = (words) => make("span", { class: "quiet" }, ` (${unique(words).join(", ")})`);
  return [
    table(
      `Findings of ${one.id}`,
      [
        "finding",
        "severity",
        "truth",
        "got",
        "worst at x",
        "regime",
        "#ULP",
        "#units",
        "#elements",
        "inputs",
        "blame",
        "#magnitude",
      ],
      rows,
    ),
    said.size
      ? make(
          "dl",
          { class: "facts" },
          [...said].map(([key, words]) => [
            make("dt", null, `blame: ${key.split("\n")[0]}`),
            make("dd", null, key.slice(key.indexOf("\n") + 1), kinds(words)),
          ]),
        )
      : null,
    why.size
      ? make(
          "dl",
          { class: "facts" },
          [...why].map(([id, words]) => [make("dt", null, "known as"), make("dd", null, known(id), kinds(words))]),
        )
      : null,
    make(
      "p",
      { class: "quiet" },
      unique(one.raw.f.map((f) => text(f[0])))
        .filter((word) => data.classes[word])
        .map((word) => `${word}: ${data.classes[word][0]}`)
        .join(" · "),
    ),
  ];
}

function measured(one) {
  const tensors = unique(one.raw.m.map((m) => text(m[0])));
  const layers = one.raw.m.filter((m) => text(m[1]) === "layers");
  const model = layers.length > 0 || tensors.length > 3;
  const parts = [];
  const row = (m, name) => ({
    name,
    share: ratio(m),
    words: `${name}: error ${short(m[4])}, limit ${short(m[6])}, ${short(m[3])} ULP at most, ${count(m[2], "element")}`,
    bad: breaks(one, m),
  });
  if (layers.length)
    parts.push(
      make("h3", null, "Error along the layers"),
      make("p", { class: "quiet" }, "each layer given what it read itself, against its own bound"),
      bars(
        `Error along the layers of ${one.id}`,
        layers.map((m) => row(m, text(m[0]))),
      ),
    );
  const rest = one.raw.m.filter((m) => text(m[1]) !== "layers");
  if (model) {
    const title = one.aspect === "gradient" ? "Gradient error by parameter" : "Error of the outputs";
    parts.push(
      make("h3", null, title),
      bars(
        `${title} of ${one.id}`,
        rest.map((m) => row(m, text(m[0]))),
      ),
    );
  } else {
    for (const tensor of tensors) {
      const suffix = tensors.length > 1 ? `: ${tensor}` : "";
      const over = domain(one, tensor);
      if (over) parts.push(make("h3", null, `Error over the input domain${suffix}`), over);
      else
        parts.push(
          make("h3", null, `Error by regime${suffix}`),
          bars(
            `Error by regime of ${one.id}${suffix}`,
            rest.filter((m) => text(m[0]) === tensor).map((m) => row(m, text(m[1]))),
          ),
        );
      const many = histogram(one, tensor);
      if (many) parts.push(make("h3", null, `Histogram of ULP${suffix}`), many);
    }
  }
  return parts;
}

function numbers(one) {
  const rows = one.raw.m.map((m) => [
    text(m[1]),
    text(m[0]),
    m[2].toLocaleString("en"),
    short(m[3]),
    short(m[4]),
    short(m[6]),
    percent(ratio(m)),
    short(m[5]),
  ]);
  return make(
    "details",
    null,
    make("summary", null, `${count(rows.length, "measurement")}`),
    table(
      `Measurements of ${one.id}`,
      ["regime", "tensor", "#elements", "#max ULP", "#max error", "#limit", "#of limit", "#bias"],
      rows,
    ),
  );
}

const ratio = (m) => (number(m[6]) ? number(m[4]) / number(m[6]) : number(m[4]));
const breaks = (one, m) => (one.raw.f || []).some((f) => f[1] === m[1] && f[2] === m[0]);
