// Plots by Vega: scalable, in the page's own colours, and silent to screen readers, which get a
// sentence and a table instead.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const CONFIG = {
  background: null,
  axis: {
    domainColor: "var(--rule)",
    tickColor: "var(--rule)",
    gridColor: "var(--hair)",
    labelColor: "var(--muted)",
    titleColor: "var(--ink)",
    labelFont: FONT,
    titleFont: FONT,
    labelFontSize: 11,
    titleFontSize: 12,
    titleFontWeight: "normal",
    titlePadding: 8,
    tickSize: 4,
  },
  text: { font: FONT, fontSize: 11, fill: "var(--ink)" },
  title: { font: FONT, color: "var(--ink)" },
  style: { "guide-label": { font: FONT }, "guide-title": { font: FONT } },
};

// Colours are variables of the style sheet, so both themes and paper need no other picture.
function draw(box, spec, { sentence, onclick } = {}) {
  box.replaceChildren();
  const view = new vega.View(vega.parse(spec, CONFIG, { ast: true }), {
    expr: vega.expressionInterpreter,
    renderer: "svg",
    container: box,
    hover: false,
    tooltip: showTip,
    logLevel: 0,
  });
  if (onclick)
    view.addEventListener(
      "click",
      (_, item) => item?.datum?.at !== undefined && onclick(item.datum),
    );
  view.run();
  // Vega has words of its own for these
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", sentence);
  box.removeAttribute("aria-roledescription");
  box.querySelector("svg")?.setAttribute("aria-hidden", "true");
  return view;
}

function showTip(_, event, __, text) {
  const tip = byId("tip");
  tip.hidden = text === null || text === undefined || text === "";
  if (tip.hidden) return;
  tip.textContent = String(text);
  const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8);
  tip.style.setProperty("left", `${Math.max(8, left)}px`);
  tip.style.setProperty(
    "top",
    `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`,
  );
}

const from = (name) => ({ data: name });
const at = (scale, field, more = {}) => ({ scale, field, ...more });

// Coloured squares under short heads. Cells: {x, y, fill, ink, text, tip}.
function squares({ xs, ys, cells, width, step = 24, labels = 150 }) {
  return {
    width,
    height: ys.length * step,
    padding: { left: 0, right: 4, top: 0, bottom: 4 },
    autosize: { type: "fit-x", contains: "padding" },
    data: [{ name: "cells", values: cells }],
    scales: [
      { name: "x", type: "band", domain: xs, range: "width", padding: 0.03 },
      { name: "y", type: "band", domain: ys, range: "height", padding: 0.05 },
    ],
    axes: [
      { scale: "x", orient: "top", domain: false, ticks: false, labelPadding: 6 },
      {
        scale: "y",
        orient: "left",
        domain: false,
        ticks: false,
        labelLimit: labels,
        labelPadding: 6,
      },
    ],
    marks: [
      {
        type: "rect",
        from: from("cells"),
        encode: {
          enter: {
            x: at("x", "x"),
            y: at("y", "y"),
            width: { scale: "x", band: 1 },
            height: { scale: "y", band: 1 },
            fill: { field: "fill" },
            tooltip: { field: "tip" },
            cornerRadius: { value: 1.5 },
          },
        },
      },
      {
        type: "text",
        interactive: false,
        from: from("cells"),
        encode: {
          enter: {
            x: at("x", "x", { band: 0.5 }),
            y: at("y", "y", { band: 0.5 }),
            align: { value: "center" },
            baseline: { value: "middle" },
            fill: { field: "ink" },
            text: { field: "text" },
            fontSize: { value: 11 },
          },
        },
      },
    ],
  };
}

const STEPS = 9;

// Colour and ink of a value between two ends; `name` is q (one way) or d (both ways from the middle).
function shade(name, value, low, high) {
  if (value === null) return { fill: "transparent", ink: "var(--muted)" };
  const share = high > low ? (value - low) / (high - low) : 0.5;
  const step = Math.max(0, Math.min(STEPS - 1, Math.floor(share * STEPS)));
  const strong = name === "q" ? step > 4 : step < 2 || step > 6;
  return { fill: `var(--${name}${step})`, ink: strong ? "var(--on-strong)" : "var(--on-weak)" };
}

function key(name, low, high) {
  const swatches = Array.from({ length: STEPS }, (_, step) => el("i", { class: `${name}${step}` }));
  return el("p", { class: "key", "aria-hidden": "true" }, low, el("span", {}, swatches), high);
}
