// The columns of a table: scores by protocol, then cost and record.
// A field: key, group, label, narrow, up (more is better), value(row) to sort by, cell(row).

const COSTS = [
  ["seconds", (value) => (value === null ? "–" : value.toFixed(1))],
  ["images/s", (value) => (value === null ? "–" : value.toFixed(0)), true],
  ["parameters", si],
  ["FLOPs/image", si],
  ["peak memory", (value) => (value === null ? "–" : `${(value / MIB).toFixed(0)} MiB`)],
  ["trials", (value) => (value ? String(value) : "–")],
];
const NARROW_COSTS = ["seconds", "parameters"];

function fieldsOf(block) {
  return [
    ...block.columns.map((column) => scoreField(block, column)),
    ...costFields(block),
    ...recordFields(block),
  ];
}

const FIGURE = "\u2007"; // a space as wide as a digit: cells stay text, which is laid out fast

function scoreField(block, column) {
  return {
    key: `score ${column.at}`,
    group: column.protocol,
    label: column.label || "–",
    narrow: column.narrow,
    up: column.up,
    column,
    value: (row) => block.score(column, row).mean,
    cell: (row) => scoreCell(block.score(column, row), row, column),
    places: column.ranks ? (row) => block.score(column, row) : null,
  };
}

function scoreCell(score, row, column) {
  const cell = el("td", { class: "score", title: exact(score, column.unit) });
  if (score.mean === null) {
    const failed = score.gaps.some((gap) => gap !== null);
    cell.append(el("span", { class: failed ? "gap bad" : "gap" }, lacking(score)));
    return cell;
  }
  const [value, half] = shown(score.mean, score.half, column.unit);
  const partial = score.n < row.n && half !== null ? ` n=${score.n}` : "";
  const padded = value.padStart(4, FIGURE);
  const after = half === null ? "n=1" : `±${half}${partial}`;
  cell.append(
    score.best ? el("b", {}, padded) : padded,
    el("span", { class: "h" }, ` ${after.padEnd(column.ranks ? 6 : 0, FIGURE)}`),
  );
  if (score.best) cell.append(spoken(", best mean"));
  if (column.ranks) {
    cell.append(el("span", { class: "k" }, ranked(score)));
  }
  return cell;
}

function costFields(block) {
  return COSTS.flatMap(([label, format, up], at) => {
    if (label === "trials" && !block.rows.some((row) => row.costs[at])) return [];
    return [
      {
        key: `cost ${label}`,
        group: "training cost",
        label,
        narrow: NARROW_COSTS.includes(label),
        up: Boolean(up),
        value: (row) => row.costs[at],
        cell: (row) =>
          el(
            "td",
            { class: "cost", title: String(row.costs[at] ?? "not known") },
            format(row.costs[at]),
          ),
      },
    ];
  });
}

const conformance = (row) => row.conformance || "not checked";
const attested = (row) => row.attested || "self-reported";

function recordFields() {
  return [
    ["conformance", conformance],
    ["attested", attested],
  ].map(([label, text]) => ({
    key: `record ${label}`,
    group: "record",
    label,
    narrow: true,
    up: false,
    value: text,
    cell: (row) => el("td", { class: "word" }, text(row)),
  }));
}

// Fields in runs of one group, for the upper line of a head.
function grouped(fields) {
  const groups = [];
  for (const field of fields) {
    const last = groups[groups.length - 1];
    if (last && last.name === field.group) last.fields.push(field);
    else groups.push({ name: field.group, fields: [field] });
  }
  return groups;
}
