// Orders of methods: whether two protocols agree on one, and the mean over data sets.

function agreementSection(section) {
  const words = el("p", { class: "reading" });
  const legend = key("d", "−1", "1");
  const box = el("div", { class: "chart" });
  const table = el("div");
  section.append(words, legend, box, table);
  return {
    section,
    worth: (view) => view.block.agreement.pairs.length > 0,
    draw(view) {
      const { names, pairs, own } = view.block.agreement;
      const two = (tau) => (tau < 0 ? "−" : "") + Math.abs(tau).toFixed(2);
      const heads = names.map((_, at) => lettered(at));
      const lines = names.map((name, at) => `${name}  ${heads[at]}`);
      const cell = (x, y, tau, tip) => ({
        x: heads[x],
        y: lines[y],
        text: two(tau),
        tip,
        ...shade("d", tau, -1, 1),
      });
      const cells = [
        ...pairs.flatMap(([a, b, tau, interval, methods, seeds]) => {
          const range = interval ? `, 95 % ${two(interval[0])} to ${two(interval[1])}` : "";
          const over = `${plural(methods, "method")}, ${plural(seeds, "seed")}`;
          const tip = `${names[a]} and ${names[b]}: ${two(tau)}${range}; ${over}`;
          return [cell(a, b, tau, tip), cell(b, a, tau, tip)];
        }),
        ...own.map(([a, tau, methods, count]) =>
          cell(
            a,
            a,
            tau,
            `${names[a]} against itself on another seed: ${two(tau)}; ` +
              `${plural(methods, "method")}, ${plural(count, "pair")} of seeds`,
          ),
        ),
      ];
      const pair = ([a, b, tau]) => `${names[a]} and ${names[b]} (${two(tau)})`;
      words.textContent =
        "Kendall's tau between the orders in which two protocols put the methods: 1 the same, " +
        "0 none in common, −1 the opposite. On the diagonal, a protocol against itself on another " +
        `seed. Most alike: ${pair(pairs[0])}; least: ${pair(pairs.at(-1))}.`;
      const labels = box.clientWidth < 600 ? 110 : 380;
      const width = Math.max(box.clientWidth, labels + 34 * names.length);
      draw(box, squares({ xs: heads, ys: lines, cells, width, labels }), {
        sentence: words.textContent,
      });
      table.replaceChildren(
        alternative(
          "Kendall's tau",
          ["protocol", "protocol", "tau", "95 %", "methods", "seeds"],
          () => [
            ...pairs.map(([a, b, tau, interval, methods, seeds]) => [
              names[a],
              names[b],
              two(tau),
              interval ? `${two(interval[0])} to ${two(interval[1])}` : "–",
              String(methods),
              String(seeds),
            ]),
            ...own.map(([a, tau, methods, count]) => [
              names[a],
              "itself on another seed",
              two(tau),
              "–",
              String(methods),
              plural(count, "pair"),
            ]),
          ],
        ),
      );
    },
  };
}

// A ... Z, AA ...: short heads for long names.
const lettered = (at) =>
  (at < 26 ? "" : lettered(Math.floor(at / 26) - 1)) + String.fromCharCode(65 + (at % 26));

const STANDINGS = 40;

function overallSection(section) {
  const state = { at: 0 };
  const controls = el("div", { class: "controls" });
  const words = el("p", { class: "reading" });
  const box = el("div", { class: "chart" });
  const table = el("div");
  section.append(controls, words, box, table);
  return {
    section,
    worth: () => board.overall.length > 0,
    draw() {
      const each = board.overall[state.at];
      const options = board.overall.map((other, i) => [String(i), other.title]);
      controls.replaceChildren(
        choice(
          "Protocol",
          options,
          String(state.at),
          (value) => ((state.at = Number(value)), this.draw()),
        ),
      );
      const cut = each.standings.length > STANDINGS ? ` The first ${STANDINGS} are drawn.` : "";
      const without = each.lacking.length
        ? ` Without a value on some: ${each.lacking.join(", ")}.`
        : "";
      const bars = each.standings.some(([, , interval]) => interval)
        ? " Bars: bootstrap over data sets."
        : " No interval below six data sets.";
      const over = `${plural(each.datasets.length, "data set")} (${each.datasets.join(", ")})`;
      words.textContent = `Mean rank over ${over}; lower is better.${bars}${without}${cut}`;
      const values = each.standings.slice(0, STANDINGS).map(([label, rank, interval]) => ({
        label,
        rank,
        low: interval ? interval[0] : rank,
        high: interval ? interval[1] : rank,
        tip: [label, rank.toFixed(2), ...(interval ?? []).map((end) => end.toFixed(2))].join(" · "),
      }));
      draw(box, standingSpec(values, box.clientWidth), { sentence: words.textContent });
      table.replaceChildren(
        alternative(
          `Mean ranks, ${each.title}`,
          ["method", "mean rank", `${100 * board.level} % interval`],
          () =>
            each.standings.map(([label, rank, interval]) => [
              label,
              rank.toFixed(2),
              interval ? `${interval[0].toFixed(2)} to ${interval[1].toFixed(2)}` : "–",
            ]),
        ),
      );
    },
  };
}

function standingSpec(values, width) {
  return {
    width,
    height: 20 * values.length,
    padding: 4,
    autosize: { type: "fit-x", contains: "padding" },
    data: [{ name: "points", values }],
    scales: [
      {
        name: "x",
        type: "linear",
        domain: { data: "points", fields: ["low", "high"] },
        range: "width",
        zero: false,
        nice: true,
      },
      {
        name: "y",
        type: "point",
        domain: values.map((value) => value.label),
        range: "height",
        padding: 0.5,
      },
    ],
    axes: [
      { scale: "x", orient: "top", title: "mean rank", grid: true, domain: false, ticks: false },
      {
        scale: "y",
        orient: "left",
        domain: false,
        ticks: false,
        labelLimit: 180,
        labelColor: "var(--ink)",
      },
    ],
    marks: [
      {
        type: "rule",
        interactive: false,
        from: from("points"),
        encode: {
          enter: {
            x: at("x", "low"),
            x2: at("x", "high"),
            y: at("y", "label"),
            stroke: { value: "var(--point)" },
            strokeWidth: { value: 1.5 },
          },
        },
      },
      {
        type: "symbol",
        from: from("points"),
        encode: {
          enter: {
            x: at("x", "rank"),
            y: at("y", "label"),
            size: { value: 60 },
            fill: { value: "var(--accent)" },
            tooltip: { field: "tip" },
          },
        },
      },
    ],
  };
}
