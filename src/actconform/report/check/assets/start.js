// Routing by the address, and keys.

const main = document.getElementById("main");
let lastLayer = null;

function showAll() {
  main.replaceChildren(
    ...[verdicts(), outputs(), agreementOverData(), layerSection(), trainedModels(), noiseOfFormat(), inputs(), weights(), facts(), again()].filter(Boolean),
  );
  document.title = `${data.model}: ${data.verdict.toLowerCase()} · actconform`;
}

function show(moved) {
  const [kind, value] = location.hash.slice(1).split(/=(.*)/s);
  tip.hidden = true;
  if (kind === "layer") {
    lastLayer = layers[Number(value)] || null;
    main.replaceChildren(layerView(value || ""));
    document.title = `${lastLayer ? brief(lastLayer.node) : "layer"} · actconform`;
    main.querySelector("h2").focus({ preventScroll: true });
    scrollTo(0, 0);
    return;
  }
  if (!document.getElementById("verdict")) showAll();
  const part = kind && document.getElementById(kind);
  if (part) part.scrollIntoView();
  if (moved && lastLayer && kind !== "again") requestAnimationFrame(() => layerList?.reveal(lastLayer, true));
}

document.getElementById("top").append(...header());
document.getElementById("foot").append("check.json beside this page holds every number to its last digit");
nameTheme();
addEventListener("hashchange", () => show(true));
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (tip.hidden && location.hash) location.hash = "#layers";
    tip.hidden = true;
  }
  const search = document.getElementById("by-text");
  if (event.key === "/" && search && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    search.focus();
  }
});
show(false);
