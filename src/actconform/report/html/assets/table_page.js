// What pages of tables have around them: a head, sections, what columns mean, a field to search in, keys.

const main = document.getElementById("main");

/** The head of a page: a title, links to its sections, the switch of the theme, a quiet line, and what else stands there. */
function pageHead(title, parts, about, ...more) {
  return [
    element(
      "div",
      { class: "top" },
      element("h1", null, title),
      element("nav", { "aria-label": "parts" }, parts.map((name) => element("a", { href: `#${name}` }, name))),
      element("button", { type: "button", id: "theme", onclick: turn }, ""),
    ),
    element("p", { class: "quiet" }, about),
    ...more,
  ];
}

/** What the verdict XFAIL means, where it stands among `verdicts`. */
const meaningOfXfail = (verdicts) =>
  verdicts.includes("XFAIL") ? element("p", { class: "quiet" }, "XFAIL: a known deviation: a registered cause, or a convention, explains every finding.") : "";

const section = (id, title, ...children) => element("section", { id }, element("h2", null, title), ...children);

function meanings(sentences) {
  return element("details", null, element("summary", null, "What the columns mean"), sentences.map((words) => element("p", { class: "quiet" }, words)));
}

/** The row of controls: a field to search in, which calls `search` with what is typed, and lists to choose from. */
function controlRow(label, search, ...dropdowns) {
  const field = element("input", { type: "search", id: "by-text", placeholder: label, oninput: (event) => search(event.target.value) });
  return element("div", { class: "controls" }, element("label", { class: "grow" }, element("span", { class: "unseen" }, label), field), ...dropdowns);
}

/** Put a page together; `draw` draws its tables, at first and after each choice. */
function openPage(head, sections, foot, draw) {
  document.getElementById("top").append(...head);
  main.append(...sections);
  document.getElementById("foot").append(foot);
  nameTheme();
  draw();
  addEventListener("keydown", searchByKey);
}
