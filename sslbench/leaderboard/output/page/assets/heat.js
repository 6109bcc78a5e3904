// How far a row falls under each corruption, from weak to strong.

const SEVERITY = /^(.+)\.([1-9])$/;

// Protocols with numbers by severity: [{protocol, names, levels, column(name, level)}].
function severitiesOf(block) {
  const found = new Map();
  for (const column of block.columns) {
    const match = SEVERITY.exec(column.metric);
    if (!match || column.unit) continue;
    if (!found.has(column.protocol)) found.set(column.protocol, new Map());
    const names = found.get(column.protocol);
    if (!names.has(match[1])) names.set(match[1], new Map());
    names.get(match[1]).set(match[2], column);
  }
  return Array.from(found, ([protocol, names]) => ({
    protocol,
    names: [...names.keys()],
    levels: [...new Set([...names.values()].flatMap((levels) => [...levels.keys()]))].sort(),
    column: (name, level) => names.get(name).get(level),
  })).filter(({ levels }) => levels.length > 1);
}

function heatSection(section) {
  const state = { protocol: null, row: null, minus: "" };
  const controls = el("div", { class: "controls" });
  const box = el("div", { class: "chart narrow" });
  const under = el("div");
  section.append(controls, under, box);
  const table = el("div");
  section.append(table);
  return {
    section,
    worth: (view) => severitiesOf(view.block).length > 0,
    draw(view) {
      const { block } = view;
      const kinds = severitiesOf(block);
      const kind = kinds.find((each) => each.protocol === state.protocol) ?? kinds[0];
      const first = kind.column(kind.names[0], kind.levels[0]);
      const rows = block.rows.filter((row) => block.score(first, row).mean !== null);
      const row = rows.find((each) => each.label === state.row) ?? rows[0];
      const minus = rows.find((each) => each.label === state.minus) ?? null;
      const set = (name) => (value) => ((state[name] = value), this.draw(view));
      const labels = rows.map((each) => [each.label, each.label]);
      controls.replaceChildren(
        ...(kinds.length > 1
          ? [
              choice(
                "Protocol",
                kinds.map((k) => [k.protocol, k.protocol]),
                kind.protocol,
                set("protocol"),
              ),
            ]
          : []),
        choice("Row", labels, row?.label, set("row")),
        choice("Minus", [["", "nothing"], ...labels], minus?.label ?? "", set("minus")),
      );
      if (row) drawHeat(block, kind, { row, minus }, { box, under, table });
    },
  };
}

function drawHeat(block, kind, { row, minus }, { box, under, table }) {
  const mean = (name, level, of) => {
    const column = kind.column(name, level);
    return column ? block.score(column, of).mean : null;
  };
  const value = (name, level) => {
    const [own, other] = [mean(name, level, row), minus ? mean(name, level, minus) : 0];
    return own === null || other === null ? null : 100 * (own - other);
  };
  const every = minus
    ? kind.names.flatMap((name) => kind.levels.map((level) => value(name, level)))
    : block.rows
        .flatMap((of) =>
          kind.names.flatMap((name) => kind.levels.map((level) => mean(name, level, of))),
        )
        .map((x) => (x === null ? null : 100 * x));
  const numbers = every.filter((x) => x !== null);
  const far = Math.max(...numbers.map(Math.abs), 0.1);
  const [low, high] = minus ? [-far, far] : [Math.min(...numbers), Math.max(...numbers)];
  const text = (x) =>
    x === null ? "–" : minus ? difference(x / 100, "").replace(/\d$/, "") : x.toFixed(1);
  const spaced = (name) => name.replaceAll("_", " ");
  const cells = kind.names.flatMap((name) =>
    kind.levels.map((level) => {
      const x = value(name, level);
      return {
        x: level,
        y: spaced(name),
        text: text(x),
        tip: `${spaced(name)}, severity ${level}: ${text(x)}`,
        ...(minus ? shade("d", x, low, high) : shade("q", x === null ? null : -x, -high, -low)),
      };
    }),
  );
  const what = minus ? `${row.label} minus ${minus.label}, in points` : `${row.label}, percent`;
  const sentence = `Accuracy by corruption and severity under ${kind.protocol}: ${what}.`;
  under.replaceChildren(
    el(
      "p",
      { class: "reading" },
      sentence,
      minus ? "" : " The stronger the colour, the lower; on one scale for all rows of the table.",
    ),
    minus ? key("d", text(low), text(high)) : key("q", text(high), text(low)),
  );
  draw(
    box,
    squares({ xs: kind.levels, ys: kind.names.map(spaced), cells, width: box.clientWidth }),
    { sentence },
  );
  table.replaceChildren(
    alternative(sentence, ["corruption", ...kind.levels.map((level) => `severity ${level}`)], () =>
      kind.names.map((name) => [
        spaced(name),
        ...kind.levels.map((level) => text(value(name, level))),
      ]),
    ),
  );
}
