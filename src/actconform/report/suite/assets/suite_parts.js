// What the pages of suites share: the verdict, the facts of runtimes, and tables that are sorted by any column.

const placed = (rows) => rows.map((row, place) => ({ ...row, place }));
const orNothing = (n) => (n ? n.toLocaleString("en") : "");
const RUNTIME = { name: "runtime", kind: "name", of: (row) => row.runtime };
const OPERATOR = { name: "operator", kind: "name", of: (row) => row.operator };

/** Columns of counts, of pairs of a name and a key of the rows, where any runtime has one. */
const counted = (pairs) =>
  pairs.filter(([, key]) => data.totals.some((row) => row[key])).map(([name, key]) => ({ name, number: true, of: (row) => row[key], cell: (row) => orNothing(row[key]) }));

function suiteHead(parts) {
  const verdict = element("p", { class: data.conforms ? "good line" : "bad line" }, data.conforms ? "CONFORMS" : "DOES NOT CONFORM");
  return pageHead(data.title, parts, data.about, verdict, element("ul", { class: "problems" }, data.problems.map((words) => element("li", null, words))));
}

/** The totals by runtime, in these columns, the facts of each runtime, and what else is to be said of them. */
function runtimesSection(columns, ...more) {
  const head = columns.map((column) => (column.number ? `#${column.name}` : column.name));
  const totals = table("Runtimes", ["runtime", ...head], data.totals.map((row) => [row.runtime, ...columns.map((column) => (column.cell || column.of)(row))]));
  const facts = data.runtimes.map((runtime) =>
    element("details", null, element("summary", null, `facts of ${runtime.name}`), table(`Facts of ${runtime.name}`, ["fact", "value"], runtime.facts)),
  );
  return section("runtimes", "Runtimes", totals, facts, ...more);
}

const runtimeChoice = (choose) =>
  dropdown("by-runtime", "runtime", [["", "all runtimes"], ...data.runtimes.map(({ name }) => [name, name])], "", choose);

const value = (of, row) => (typeof of(row) === "string" && ["inf", "-inf", "nan"].includes(of(row)) ? number(of(row)) : of(row));

/** Compare two rows by a column; what has no number stands last either way. */
function comparedBy(column, down) {
  const sign = down ? -1 : 1;
  return (a, b) => {
    const [first, second] = [value(column.of, a), value(column.of, b)];
    if (typeof first === "string") return sign * first.localeCompare(second) || a.place - b.place;
    if (Number.isNaN(first) !== Number.isNaN(second)) return Number.isNaN(first) ? 1 : -1;
    return first === second || Number.isNaN(first) ? a.place - b.place : sign * (first < second ? -1 : 1);
  };
}

/** A box with a table of `columns` ({name, of, number, kind, cell}) that redraws itself when a head is chosen; `rows` gives its rows. A cell is words, or an element. */
function sortedTable(caption, columns, rows, markOf) {
  const order = { column: null, down: false };
  const box = element("div", { class: "suite-box", tabindex: "0", role: "region", "aria-label": caption });

  function head(column, at) {
    const sorted = order.column === at ? (order.down ? "descending" : "ascending") : null;
    const choose = () => {
      Object.assign(order, { column: at, down: order.column === at ? !order.down : Boolean(column.number) });
      draw();
      box.querySelectorAll("thead button")[at].focus();
    };
    return element("th", { scope: "col", class: column.number && "number", "aria-sort": sorted }, element("button", { type: "button", onclick: choose }, column.name));
  }

  function draw() {
    const listed = rows();
    const sorted = order.column === null ? listed : [...listed].sort(comparedBy(columns[order.column], order.down));
    const body = sorted.map((row) =>
      element(
        "tr",
        { class: markOf(row) },
        columns.map((column) => {
          const content = (column.cell || column.of)(row);
          return element("td", { class: column.kind || (column.number && "number") }, content instanceof Node ? content : String(content));
        }),
      ),
    );
    box.replaceChildren(
      element(
        "table",
        { class: "plain suite" },
        element("caption", { class: "unseen" }, caption),
        element("thead", null, element("tr", null, columns.map(head))),
        element("tbody", null, body),
      ),
    );
    return listed.length;
  }
  return { box, draw };
}
