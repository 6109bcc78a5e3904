// Learning curves: a small panel for each method and dataset, with a line for each seed.

const WIDTH = 260;
const HEIGHT = 120;
const MARGIN = { left: 44, right: 8, top: 8, bottom: 20 };

let chosen = null; // the name of the curve that is shown

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function showCurves(found) {
  const names = namesOf(found);
  byId("curves").hidden = names.length === 0;
  if (names.length === 0) return;
  const name = names.includes(chosen) ? chosen : names[0];
  byId("names").replaceChildren(
    choice("Curve", names.map((each) => [each, each]), name, (value) => {
      chosen = value;
      showCurves(found);
    }),
  );
  byId("panels").replaceChildren(...found.map((each) => panel(each, name)).filter(Boolean));
}

// Those of the most panels first.
function namesOf(found) {
  const counts = new Map();
  for (const { lines } of found)
    for (const name of new Set(lines.flatMap(({ points }) => Object.keys(points))))
      counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
}

function panel({ label, group, lines }, name) {
  const own = lines.filter(({ points }) => points[name]?.some(([, y]) => y !== null));
  if (own.length === 0) return null;
  const all = own.flatMap(({ points }) => points[name]).filter(([, y]) => y !== null);
  const [xs, ys] = [all.map(([x]) => x), all.map(([, y]) => y)];
  const x = scale(Math.min(...xs), Math.max(...xs), MARGIN.left, WIDTH - MARGIN.right);
  const y = scale(Math.min(...ys), Math.max(...ys), HEIGHT - MARGIN.bottom, MARGIN.top);
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said(own, name) },
    ...axes(xs, ys, x, y),
    ...own.flatMap((line) => drawn(line, name, x, y)),
  );
  return el("figure", {}, el("figcaption", {}, label, el("small", {}, group)), picture);
}

function scale(low, high, from, to) {
  const size = high - low || 1;
  return (value) => from + ((value - low) / size) * (to - from);
}

function axes(xs, ys, x, y) {
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const below = HEIGHT - 5;
  return [
    ...[...new Set([low, high])].flatMap((value) => [
      svg("line", { x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(value), y2: y(value) }),
      svg("text", { x: MARGIN.left - 5, y: y(value) + 3, "text-anchor": "end" }, brief(value)),
    ]),
    svg("text", { x: MARGIN.left, y: below }, `epoch ${left}`),
    ...(right > left
      ? [svg("text", { x: WIDTH - MARGIN.right, y: below, "text-anchor": "end" }, String(right))]
      : []),
  ];
}

// A line, and a dot at the end of one that still grows.
function drawn({ at_work: atWork, points }, name, x, y) {
  const kept = points[name].filter(([, value]) => value !== null);
  const path = kept.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`);
  const line = svg("polyline", { points: path.join(" "), class: atWork ? "growing" : "" });
  const [epoch, value] = kept.at(-1);
  const end = svg("circle", { cx: x(epoch), cy: y(value), r: 2.5 });
  return atWork || kept.length === 1 ? [line, end] : [line];
}

function said(lines, name) {
  const ends = lines.map(({ head, points }) => {
    const [epoch, value] = points[name].filter(([, y]) => y !== null).at(-1);
    return `${head}: ${brief(value)} at epoch ${epoch}`;
  });
  return `${name} by epoch; ${ends.join("; ")}`;
}

const brief = (value) => String(Number(value.toPrecision(3)));
