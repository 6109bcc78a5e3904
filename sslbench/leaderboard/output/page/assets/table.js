// The table of one block: what is chosen, its head, its rows, and their order.

const WIDE = 7; // columns of a printed table; more make further tables

function newView(block) {
  const fields = fieldsOf(unpacked(block));
  const first = fields.find((field) => field.column);
  return {
    block,
    fields,
    shown: new Set(fields.filter((field) => field.narrow).map((field) => field.key)),
    query: "",
    baselines: true,
    healthy: false,
    sort: { key: first ? first.key : "label", best: true },
  };
}

const shownFields = (view) => view.fields.filter((field) => view.shown.has(field.key));

const FIXED = {
  label: { key: "label", label: "method", up: false, value: (row) => row.label },
  n: { key: "n", label: "n", up: true, value: (row) => row.n },
  health: { key: "health", label: "health", up: false, value: (row) => row.verdicts.length },
};

const fieldOf = (view, key) => FIXED[key] ?? view.fields.find((field) => field.key === key);

// Rows that pass the filters, in order; those without a value last, ties as the board has them.
function rowsOf(view) {
  const words = view.query.toLowerCase().split(/\s+/).filter(Boolean);
  const said = (row) => `${row.label} ${row.method} ${row.health}`.toLowerCase();
  const rows = view.block.rows.filter(
    (row) =>
      (view.baselines || !row.baseline) &&
      (!view.healthy || row.verdicts.length === 0) &&
      words.every((word) => said(row).includes(word)),
  );
  const field = fieldOf(view, view.sort.key);
  const sign = (field.up ? -1 : 1) * (view.sort.best ? 1 : -1);
  const compare = (a, b) => {
    const [x, y] = [field.value(a), field.value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "string" ? x.localeCompare(y, "en") : x - y);
  };
  return rows.sort((a, b) => a.baseline - b.baseline || compare(a, b) || a.at - b.at);
}

function tableOf(
  view,
  { interactive = true, fields = shownFields(view), rows = rowsOf(view), published = true } = {},
) {
  const line = interactive ? linesOf(view, fields) : (row) => rowOf(row, fields, false);
  const table = el("table", { class: "scores" }, el("caption", {}, view.block.title));
  const groups = grouped(fields).map((group) =>
    el(
      "colgroup",
      {},
      group.fields.map((field) => columnOf(view, field)),
    ),
  );
  const fixed = el(
    "colgroup",
    {},
    Object.values(FIXED).map((field) => columnOf(view, field)),
  );
  table.append(
    fixed,
    ...groups,
    headOf(view, fields, interactive),
    ...bodiesOf(view, rows, { line, published, width: 3 + fields.length }),
  );
  return table;
}

const columnOf = (view, field) =>
  el("col", { class: view.sort.key === field.key ? "sorted" : null });

// Lines are made once for each choice of columns: sorting and filtering only move them.
function linesOf(view, fields) {
  const key = fields.map((field) => field.key).join("\n");
  if (view.lines?.key !== key) view.lines = { key, made: new Map() };
  const { made } = view.lines;
  return (row) => {
    if (!made.has(row)) made.set(row, rowOf(row, fields, true));
    return made.get(row);
  };
}

function bodiesOf(view, rows, { line, published, width }) {
  const held = rows.filter((row) => row.baseline);
  const methods = rows.filter((row) => !row.baseline);
  const bodies = [el("tbody", {}, cut(view, methods, methods.map(line)))];
  if (held.length) bodies.push(el("tbody", {}, divider("baselines", width), held.map(line)));
  if (published) bodies.push(...view.block.published.map((group) => publishedOf(group, width)));
  return bodies;
}

// A line where all rows above separate from all below, in the order of a column that ranks.
function cut(view, rows, lines) {
  const { places } = fieldOf(view, view.sort.key);
  rows.forEach((row, at) => {
    const [one, other] = at && places ? [places(rows[at - 1]), places(row)] : [];
    const ranked = one && one.rank !== null && other.rank !== null;
    const apart = ranked && (one.to < other.rank || other.to < one.rank);
    lines[at].classList.toggle("cut", Boolean(apart));
  });
  return lines;
}

function divider(text, width) {
  return el(
    "tr",
    { class: "divider" },
    el("th", { scope: "rowgroup", colspan: width }, el("span", {}, text)),
  );
}

function publishedOf(group, width) {
  const heading = ["published, not ranked: ", link(group.source, group.url), ` · ${group.said}`];
  const lines = group.rows.map(([method, numbers]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, method),
      el("td", { colspan: width - 1 }, el("span", { class: "cite" }, numbers)),
    ),
  );
  return el("tbody", { class: "ref" }, divider(heading, width), lines);
}

// ---- head ----

function headOf(view, fields, interactive) {
  const head = (field, more = {}) => {
    const sorted = view.sort.key === field.key;
    const falling = view.sort.best === field.up;
    const order = sorted ? (falling ? "descending" : "ascending") : null;
    const mark = el(
      "span",
      { class: "mark", "aria-hidden": "true" },
      sorted ? (falling ? "↓" : "↑") : "",
    );
    const name = interactive
      ? el(
          "button",
          { type: "button", class: "sort", "data-key": field.key },
          el("span", {}, field.label),
          mark,
        )
      : field.label;
    const kind = field.column || field.key.startsWith("cost") ? "num" : "";
    return el(
      "th",
      {
        scope: "col",
        "aria-sort": order,
        class: `${kind} ${sorted ? "sorted" : ""}`.trim() || null,
        ...more,
      },
      name,
    );
  };
  const fixed = Object.values(FIXED).map((field) => head(field, { rowspan: 2 }));
  const groups = grouped(fields).map((group) =>
    el("th", { scope: "colgroup", colspan: group.fields.length }, protocolName(group.name)),
  );
  const starts = new Set(grouped(fields).map((group) => group.fields[0].key));
  const metrics = fields.map((field) => {
    const cell = head(field);
    if (starts.has(field.key)) cell.classList.add("start");
    return cell;
  });
  return el("thead", {}, el("tr", {}, fixed, groups), el("tr", {}, metrics));
}

// The parameters of a protocol are set below its name, and may be broken at commas.
function protocolName(name) {
  const at = name.indexOf("[");
  if (at < 1) return el("span", { class: "protocol" }, name);
  const inner = name
    .slice(at)
    .split(",")
    .flatMap((text, i) => (i ? [",", el("wbr"), text] : [text]));
  return el("span", { class: "protocol" }, name.slice(0, at), el("small", {}, inner));
}

// ---- rows ----

function rowOf(row, fields, interactive) {
  const name = interactive
    ? el(
        "button",
        { type: "button", class: "name", "data-row": String(row.at), "aria-haspopup": "dialog" },
        row.label,
      )
    : row.label;
  const seeds = row.n === row.declared ? String(row.n) : `${row.n}/${row.declared}`;
  const health = el(
    "td",
    { class: row.verdicts.length ? "word bad" : "word", title: row.remarks.join("\n") || null },
    row.verdicts.length ? row.verdicts.map((code) => el("span", {}, `${code} `)) : row.health,
  );
  const cells = fields.map((field) => field.cell(row));
  let group = null;
  fields.forEach((field, at) => {
    if (field.group !== group) cells[at].classList.add("start");
    group = field.group;
  });
  const count = el("td", { class: row.n < row.declared ? "count bad" : "count" }, seeds);
  return el("tr", {}, el("th", { scope: "row" }, name), count, health, cells);
}

function boxed(view, table) {
  return el(
    "div",
    { class: "box tall", role: "region", "aria-label": view.block.title, tabindex: "0" },
    table,
  );
}

// For paper: every row, the chosen columns, in as many tables as fit a page's width.
function printedTables(view) {
  const fields = shownFields(view);
  const rows = rowsOf({ ...view, query: "", baselines: true, healthy: false });
  const found = [];
  for (let at = 0; at < Math.max(1, fields.length); at += WIDE) {
    const few = fields.slice(at, at + WIDE);
    found.push(tableOf(view, { interactive: false, fields: few, rows, published: at === 0 }));
  }
  return found;
}
