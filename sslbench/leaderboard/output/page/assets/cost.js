// Accuracy against cost: who gives more for less.

const AXES = ["seconds", "FLOPs/image", "parameters", "peak memory"];

function costSection(section) {
  const state = { axis: "seconds", column: null };
  const controls = el("div", { class: "controls" });
  const box = el("div", { class: "chart" });
  const words = el("p", { class: "reading" });
  const table = el("div");
  section.append(controls, box, words, table);
  return {
    section,
    worth: (view) => view.block.columns.some((column) => column.metric && column.narrow),
    draw(view) {
      const columns = view.block.columns.filter((column) => column.metric && column.narrow);
      const chosen = columns.find((column) => `${column.at}` === state.column) ?? columns[0];
      const redraw = () => this.draw(view);
      controls.replaceChildren(
        choice(
          "Score",
          columns.map((c) => [`${c.at}`, `${c.protocol} ${c.label}`]),
          `${chosen.at}`,
          (v) => ((state.column = v), redraw()),
        ),
        choice(
          "Cost",
          AXES.map((name) => [name, name]),
          state.axis,
          (v) => ((state.axis = v), redraw()),
        ),
      );
      drawCost(view, chosen, state.axis, { box, words, table });
    },
  };
}

function drawCost(view, column, axis, { box, words, table }) {
  const { block } = view;
  const index = COSTS.findIndex(([label]) => label === axis);
  const format = COSTS[index][1];
  const scale = column.unit ? 1 : 100;
  const all = rowsOf(view).map((row) => ({
    row,
    cost: row.costs[index],
    score: block.score(column, row),
  }));
  const points = all.filter(({ cost, score }) => cost !== null && cost > 0 && score.mean !== null);
  const without = all.filter((point) => !points.includes(point)).map(({ row }) => row.label);
  const front = frontOf(
    points.filter(({ row }) => !row.baseline),
    column.up,
  );
  const values = points.map(({ row, cost, score }) => ({
    at: row.at,
    label: row.label,
    cost,
    mean: scale * score.mean,
    low: scale * (score.mean - score.half),
    high: scale * (score.mean + score.half),
    baseline: row.baseline,
    front: front.some((point) => point.row === row),
    named: front.some((point) => point.row === row) || row.baseline ? row.label : "",
    tip: `${row.label}: ${written(score, column.unit)}, ${format(cost)} ${axis}`,
  }));
  const named = front.map(({ row }) => row.label).join(", ");
  const left = without.length
    ? ` Without a cost above zero, or a score: ${without.join(", ")}.`
    : "";
  const where = "On the Pareto front, where nothing is both cheaper and better";
  words.textContent = `${where}: ${named || "nothing"}.${left}`;
  const title = `${column.protocol} ${column.label}`;
  draw(box, costSpec(values, column, { axis, title, width: box.clientWidth }), {
    sentence: `${title} against ${axis}. ${words.textContent}`,
    onclick: (datum) => openPanel(view, block.rows[datum.at]),
  });
  table.replaceChildren(
    alternative(`${title} against ${axis}`, ["method", axis, title, "on the front"], () =>
      all.map(({ row, cost, score }) => [
        row.label,
        format(cost),
        written(score, column.unit),
        front.some((f) => f.row === row) ? "yes" : "",
      ]),
    ),
  );
}

// By rising cost, each better than all that is cheaper.
function frontOf(points, up) {
  const better = (a, b) => (up ? a.score.mean > b.score.mean : a.score.mean < b.score.mean);
  const ordered = [...points].sort((a, b) => a.cost - b.cost || (better(a, b) ? -1 : 1));
  const front = [];
  for (const point of ordered)
    if (!front.length || better(point, front[front.length - 1])) front.push(point);
  return front;
}

function costSpec(values, column, { axis, title, width }) {
  const costs = values.map((value) => value.cost);
  const [least, most] = [Math.min(...costs), Math.max(...costs)];
  const wide = most > 3 * least;
  const room = wide
    ? [least / 1.15, most * 1.25]
    : [least - (most - least || most) / 20, most + (most - least || most) / 10];
  const colour = [
    { test: "datum.baseline", value: "var(--faint)" },
    { test: "datum.front", value: "var(--accent)" },
    { value: "var(--point)" },
  ];
  return {
    width,
    height: 380,
    padding: 4,
    autosize: { type: "fit", contains: "padding" },
    data: [
      { name: "points", values },
      {
        name: "front",
        source: "points",
        transform: [
          { type: "filter", expr: "datum.front" },
          { type: "collect", sort: { field: "cost" } },
        ],
      },
    ],
    scales: [
      {
        name: "x",
        type: wide ? "log" : "linear",
        domain: values.length ? room : [1, 10],
        range: "width",
        zero: false,
      },
      {
        name: "y",
        type: "linear",
        domain: { data: "points", fields: ["low", "high"] },
        range: "height",
        nice: true,
        zero: false,
        reverse: !column.up,
      },
    ],
    axes: [
      {
        scale: "x",
        orient: "bottom",
        title: `${axis}, mean over seeds${wide ? " (log)" : ""}`,
        format: axis === "seconds" ? "~g" : "~s",
        tickCount: wide ? 10 : 5,
        labelOverlap: true,
      },
      {
        scale: "y",
        orient: "left",
        title: column.unit ? title : `${title}, %`,
        grid: true,
        tickCount: 6,
        domain: false,
        ticks: false,
        titleLimit: 340,
      },
    ],
    marks: [
      {
        type: "line",
        interactive: false,
        from: from("front"),
        encode: {
          enter: {
            x: at("x", "cost"),
            y: at("y", "mean"),
            interpolate: { value: "step-after" },
            stroke: { value: "var(--accent)" },
            strokeWidth: { value: 1.25 },
            strokeOpacity: { value: 0.7 },
          },
        },
      },
      {
        type: "rule",
        interactive: false,
        from: from("points"),
        encode: {
          enter: {
            x: at("x", "cost"),
            y: at("y", "low"),
            y2: at("y", "high"),
            stroke: colour,
            strokeOpacity: { value: 0.45 },
          },
        },
      },
      {
        type: "symbol",
        name: "dots",
        from: from("points"),
        encode: {
          enter: {
            x: at("x", "cost"),
            y: at("y", "mean"),
            size: { value: 52 },
            strokeWidth: { value: 1.5 },
            fill: [{ test: "datum.baseline", value: "var(--paper)" }, ...colour.slice(1)],
            stroke: colour,
            tooltip: { field: "tip" },
            cursor: { value: "pointer" },
          },
        },
      },
      {
        type: "text",
        interactive: false,
        from: from("dots"),
        encode: {
          enter: {
            text: { field: "datum.named" },
            limit: { value: 160 },
            fill: [
              { test: "datum.datum.baseline", value: "var(--muted)" },
              { value: "var(--ink)" },
            ],
          },
        },
        transform: [
          {
            type: "label",
            size: { signal: "[width, height]" },
            offset: [5],
            anchor: ["top-left", "bottom-right", "right", "left", "top", "bottom"],
            avoidMarks: ["dots"],
          },
        ],
      },
    ],
  };
}
