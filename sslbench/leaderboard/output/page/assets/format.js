// Numbers as they are read: percent, SI prefixes, and the words for what is not there.

const PREFIXES = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

function si(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  for (const [unit, letter] of PREFIXES) {
    if (size >= unit) return `${(value / unit).toPrecision(3)} ${letter}`;
  }
  if (value && size < 100) return String(Number(value.toPrecision(3)));
  return value.toFixed(0);
}

// Two digits where one would say ± 0.0.
function shown(value, half, unit) {
  if (unit) return [si(value), half === null ? null : si(half)];
  const digits = half !== null && half > 0 && half < 0.0005 ? 2 : 1;
  return [(100 * value).toFixed(digits), half === null ? null : (100 * half).toFixed(digits)];
}

function written(score, unit) {
  if (score.mean === null) return lacking(score);
  const [value, half] = shown(score.mean, score.half, unit);
  return half === null ? `${value} (n=1)` : `${value} ± ${half}`;
}

// "failed (nan)"; with numbers where seeds differ.
function lacking(score) {
  const counts = new Map();
  for (const gap of score.gaps) if (gap) counts.set(gap, (counts.get(gap) ?? 0) + 1);
  if (counts.size < 2) return counts.keys().next().value ?? "–";
  return Array.from(counts, ([state, count]) => `${count} ${state}`).join(", ");
}

// Full precision, for titles and panels.
function exact(score, unit) {
  if (score.mean === null) return lacking(score);
  const of = unit && unit !== "1" ? ` ${unit}` : "";
  const between =
    score.half === null ? "no interval" : `${100 * board.level} % t interval ${ends(score)}`;
  return `${score.mean}${of}, ${between}, n=${score.n}`;
}

const seven = (value) => String(Number(value.toPrecision(7)));
const ends = ({ mean, half }) =>
  half === null ? "–" : `${seven(mean - half)} to ${seven(mean + half)}`;

const MIB = 2 ** 20;
// "#2": second; "#1–4": first to fourth.
const ranked = ({ rank, to }) => (rank === null ? "" : `#${rank === to ? rank : `${rank}–${to}`}`);
const plural = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;

function p(value) {
  if (value === null) return "–";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

function difference(value, unit) {
  if (value === null) return "–";
  const sign = value > 0 ? "+" : value < 0 ? "−" : "";
  return sign + (unit ? si(Math.abs(value)) : (100 * Math.abs(value)).toFixed(2));
}
