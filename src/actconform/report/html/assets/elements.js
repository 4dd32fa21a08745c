"use strict";
// What every page is made of: its data, elements, numbers. Text from outside reaches a page through textContent and attributes only.

const data = JSON.parse(document.getElementById("data").textContent);
const text = (number) => (number === undefined ? "" : data.texts[number]);
const SVG = "http://www.w3.org/2000/svg";

function number(value) {
  if (value === "inf") return Infinity;
  if (value === "-inf") return -Infinity;
  if (value === "nan") return NaN;
  return value;
}

/** Return a new HTML element with attributes, listeners as on*, and children, elements or strings. */
function element(tag, attributes, ...children) {
  return setAttributes(document.createElement(tag), attributes, children);
}

/** Return a new SVG element, as `element` does. */
function svg(tag, attributes, ...children) {
  return setAttributes(document.createElementNS(SVG, tag), attributes, children);
}

function setAttributes(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const unique = (values) => [...new Set(values)];
const count = (n, word, words) => `${n.toLocaleString("en")} ${n === 1 ? word : words || word + "s"}`;

/** A number to three digits, for people. */
function short(value) {
  value = number(value);
  if (value === null || value === undefined) return "";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3)
    return value
      .toExponential(2)
      .replace("e+", "e")
      .replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(3)));
}

/** An error against its limit: percent up to the limit, a multiple beyond it. */
function percent(errorRatio) {
  if (errorRatio === null) return "";
  if (errorRatio === 0) return "0";
  if (errorRatio === Infinity) return "∞";
  if (errorRatio < 0.01) return "<1%";
  return errorRatio <= 1 ? `${Math.round(100 * errorRatio)}%` : `${short(errorRatio)}×`;
}

function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** Have screen readers speak a message. */
function announce(message) {
  document.getElementById("announcement").textContent = message;
}

/** Have "/" go to the field to search in, where the page shows one. */
function searchByKey(event) {
  const search = document.getElementById("by-text");
  if (event.key === "/" && search && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    search.focus();
  }
}

/** A box of text that a button copies whole. */
function copyable(words, label) {
  const box = element("pre", { tabindex: "0", "aria-label": label }, words);
  const button = element("button", { type: "button", class: "copy", onclick: () => copy(words, box, button) }, "Copy");
  button.setAttribute("aria-label", `Copy: ${label}`);
  return element("div", { class: "copyable" }, box, button);
}

async function copy(words, box, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(words);
  } catch {
    // a page from disk may be refused the clipboard: select, and let the browser copy the selection
    getSelection().selectAllChildren(box);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  announce(done ? "Copied" : "Selected; press Ctrl+C");
  setTimeout(() => {
    button.textContent = "Copy";
  }, 1500);
}

/** A list to choose from: `options` are pairs of value and words, `choose` is called with the value that is chosen. */
function dropdown(id, label, options, chosen, choose) {
  const items = options.map(([value, words]) => element("option", { value, selected: chosen === value }, words));
  return element(
    "label",
    null,
    element("span", { class: "unseen" }, label),
    element("select", { id, onchange: (event) => choose(event.target.value) }, items),
  );
}

/** A table in a box that scrolls by itself; `head` names columns, "#" before a name aligns it as a number. */
function table(caption, head, rows) {
  const names = head.map((name) =>
    element("th", { scope: "col", class: name.startsWith("#") && "number" }, name.replace("#", "")),
  );
  const body = rows.map((row) =>
    element(
      "tr",
      null,
      row.map((cell, at) => element("td", { class: head[at].startsWith("#") && "number" }, cell)),
    ),
  );
  const inner = element(
    "table",
    { class: "plain" },
    element("caption", { class: "unseen" }, caption),
    element("thead", null, element("tr", null, names)),
    element("tbody", null, body),
  );
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, inner);
}
