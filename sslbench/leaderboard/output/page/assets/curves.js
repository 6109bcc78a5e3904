// Learning curves: a small panel for each row, its seeds thin, their mean thick.

const PANELS = 12;

function curvesSection(section) {
  const state = { name: null, count: PANELS };
  const controls = el("div", { class: "controls" });
  const words = el("p", { class: "reading" });
  const panels = el("div", { class: "panels" });
  const after = el("div");
  section.append(controls, words, panels, after);
  return {
    section,
    worth: (view) => namesOf(view.block).length > 0,
    draw(view) {
      const names = namesOf(view.block);
      const name = names.includes(state.name) ? state.name : names[0];
      const rows = rowsOf(view).filter((row) => curveOf(row, name).length);
      const shownRows = rows.slice(0, state.count);
      controls.replaceChildren(
        choice(
          "Curve",
          names.map((each) => [each, each]),
          name,
          (value) => ((state.name = value), this.draw(view)),
        ),
      );
      words.textContent =
        `${name} by epoch: ${shownRows.length} of ${plural(rows.length, "row")}, as the table is ` +
        "filtered and sorted. Thick: mean over seeds; thin: each seed.";
      const shared = name === "loss" ? null : rangeOf(shownRows, name);
      panels.replaceChildren();
      for (const row of shownRows) panels.append(curvePanel(view, row, name, shared, panels));
      const more = el(
        "button",
        {
          type: "button",
          class: "plain js",
          onclick: () => ((state.count += PANELS), this.draw(view)),
        },
        "Show more rows",
      );
      const table = alternative(
        `${name}, at the ends of each curve`,
        ["method", "seed", "epochs", "first", "last", "lowest", "highest"],
        () => shownRows.flatMap((row) => extremes(row, name)),
      );
      after.replaceChildren(...(rows.length > shownRows.length ? [more] : []), table);
    },
  };
}

// Those of the most rows first.
function namesOf(block) {
  const counts = new Map();
  for (const row of block.rows)
    for (const name of Object.keys(row.curves ?? {})) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
}

function rangeOf(rows, name) {
  const values = rows
    .flatMap((row) => curveOf(row, name).flatMap(({ points }) => points.map(([, y]) => y)))
    .filter((y) => y !== null);
  return values.length ? [Math.min(...values), Math.max(...values)] : null;
}

function extremes(row, name) {
  return curveOf(row, name).map(({ seed, points }) => {
    const values = points.map(([, y]) => y).filter((y) => y !== null);
    const shownEnds = [values[0], values.at(-1), Math.min(...values), Math.max(...values)];
    return [
      row.label,
      String(seed),
      String(points.at(-1)?.[0] ?? "–"),
      ...shownEnds.map((y) => (Number.isFinite(y) ? y.toPrecision(4) : "–")),
    ];
  });
}

function curvePanel(view, row, name, shared, panels) {
  const box = el("div", { class: "chart" });
  const title = el(
    "button",
    {
      type: "button",
      class: "name",
      "aria-haspopup": "dialog",
      onclick: () => openPanel(view, row),
    },
    row.label,
  );
  const figure = el("figure", {}, el("figcaption", {}, title), box);
  panels.append(figure); // its width must be known
  const seeds = curveOf(row, name);
  const values = seeds.flatMap(({ seed, points }) =>
    points.filter(([, y]) => y !== null).map(([x, y]) => ({ x, y, seed: String(seed) })),
  );
  draw(box, curveSpec(values, meanOf(seeds), shared, box.clientWidth), {
    sentence: `${name} of ${row.label} by epoch, ${plural(seeds.length, "seed")}`,
  });
  return figure;
}

// At the epochs that every seed has.
function meanOf(seeds) {
  const at = new Map();
  for (const { points } of seeds)
    for (const [x, y] of points) if (y !== null) at.set(x, [...(at.get(x) ?? []), y]);
  return [...at]
    .filter(([, ys]) => ys.length === seeds.length)
    .map(([x, ys]) => ({ x, y: ys.reduce((a, b) => a + b) / ys.length }))
    .sort((a, b) => a.x - b.x);
}

function curveSpec(values, means, shared, width) {
  const domain = shared ?? { data: "points", field: "y" };
  const line = (stroke, strokeWidth, strokeOpacity) => ({
    enter: {
      x: at("x", "x"),
      y: at("y", "y"),
      stroke: { value: stroke },
      strokeWidth: { value: strokeWidth },
      strokeOpacity: { value: strokeOpacity },
    },
  });
  return {
    width,
    height: 120,
    padding: 2,
    autosize: { type: "fit", contains: "padding" },
    data: [
      { name: "points", values },
      { name: "means", values: means },
    ],
    scales: [
      {
        name: "x",
        type: "linear",
        domain: { data: "points", field: "x" },
        range: "width",
        zero: false,
      },
      { name: "y", type: "linear", domain, range: "height", zero: false, nice: 4 },
    ],
    axes: [
      { scale: "x", orient: "bottom", tickCount: 4, labelOverlap: true },
      {
        scale: "y",
        orient: "left",
        tickCount: 4,
        grid: true,
        domain: false,
        ticks: false,
        minExtent: 28,
      },
    ],
    marks: [
      {
        type: "group",
        from: { facet: { name: "seed", data: "points", groupby: "seed" } },
        marks: [
          {
            type: "line",
            interactive: false,
            from: from("seed"),
            encode: line("var(--point)", 0.8, 0.55),
          },
        ],
      },
      {
        type: "line",
        interactive: false,
        from: from("means"),
        encode: line("var(--accent)", 2, 1),
      },
      {
        type: "symbol",
        from: from("points"),
        encode: {
          enter: {
            x: at("x", "x"),
            y: at("y", "y"),
            size: { value: 40 },
            fill: { value: "transparent" },
            tooltip: {
              signal: "'epoch ' + datum.x + ', seed ' + datum.seed + ': ' + format(datum.y, '.4')",
            },
          },
        },
      },
    ],
  };
}
