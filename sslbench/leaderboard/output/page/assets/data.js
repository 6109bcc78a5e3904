// What the page was built with, unpacked where it is asked for.

const board = JSON.parse(byId("data").textContent);

function floats(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = Kind.BYTES_PER_ELEMENT;
  const read = { 8: "getFloat64", 4: "getFloat32", 2: "getUint16" }[size];
  return Kind.from({ length: bytes.length / size }, (_, at) => view[read](at * size, true));
}

const known = (value) => (Number.isNaN(value) ? null : value);

// [i] is the i-th part of the pool; anything else is itself.
const part = (value) => (Array.isArray(value) ? board.pool[value[0]] : value);

// Rows from the lists of their fields.
function rowsFrom(lists) {
  const keys = Object.keys(lists);
  return (lists.label ?? []).map((_, at) =>
    Object.fromEntries(keys.map((key) => [key, lists[key][at]])),
  );
}

// The block, with `score(column, row)`, `behind` and `against(label)` of a ranking column and a row.
function unpacked(block) {
  if (block.score) return block;
  block.rows = rowsFrom(block.rows);
  const size = block.rows.length;
  const seeds = block.seeds.length;
  const values = floats(block.values, Float64Array);
  const means = floats(block.means, Float64Array);
  const halves = floats(block.halves, Float32Array);
  const gaps = new Map();
  for (const [state, places] of Object.entries(block.gaps)) {
    for (const place of places) gaps.set(place, state);
  }
  block.rows.forEach((row, at) => (row.at = at));
  block.columns.forEach((column, at) => (column.at = at));
  const cache = new Map();
  block.score = (column, row) => {
    const at = column.at * size + row.at;
    if (!cache.has(at)) cache.set(at, scoreAt(column, row, at));
    return cache.get(at);
  };
  function scoreAt(column, row, at) {
    const own = Array.from(values.subarray(at * seeds, (at + 1) * seeds), known);
    const ranks = block.ranks[column.at];
    const [rank, to] = ranks?.[row.at] ?? [null, null];
    return {
      values: own,
      gaps: own.map((_, seed) => gaps.get(at * seeds + seed) ?? null),
      n: own.filter((value) => value !== null).length,
      mean: known(means[at]),
      half: known(halves[at]),
      rank,
      to,
      best: block.best[column.at].includes(row.at),
    };
  }
  const ranking = block.columns.filter((column) => column.ranks);
  const pairs = (packed) => {
    const all = floats(packed, Float32Array);
    return (column, row) => {
      const at = 3 * (ranking.indexOf(column) * size + row.at);
      const [mean, half, p] = Array.from(all.subarray(at, at + 3), known);
      return mean === undefined || mean === null ? null : { mean, half, p };
    };
  };
  block.ranking = ranking;
  block.behind = pairs(block.behind);
  block.against = Object.entries(block.against).map(([label, packed]) => [label, pairs(packed)]);
  return block;
}

// Of one learning curve by seed: [{seed, points: [[epoch, value]]}].
function curveOf(row, name) {
  if (!row.curves || !Object.hasOwn(row.curves, name)) return [];
  return row.curves[name].flatMap(([seeds, epochs, low, high, packed]) => {
    const levels = floats(packed, Uint16Array);
    const xs = part(epochs);
    const value = (level) => (level === 65535 ? null : low + ((high - low) * level) / 65534);
    return seeds.map((seed, i) => ({
      seed,
      points: xs.map((x, k) => [x, value(levels[i * xs.length + k])]),
    }));
  });
}

// A sha256 as 64 digits; anything else comes in a list.
function digestOf(packed) {
  if (Array.isArray(packed)) return packed[0];
  return Array.from(atob(packed), (character) =>
    character.charCodeAt(0).toString(16).padStart(2, "0"),
  ).join("");
}
