// Which columns are shown: protocols as a whole, or their metrics one by one.

function columnChooser(view, changed) {
  const count = el("span", { class: "muted" });
  const list = el("div", { class: "protocols" });
  const say = () => (count.textContent = ` ${view.shown.size} of ${view.fields.length}`);
  const fill = () => {
    list.replaceChildren(
      ...byGroup(view).map((group) => groupOf(view, group, () => (say(), changed()))),
    );
    say();
  };
  const preset = (label, keep) =>
    el(
      "button",
      {
        type: "button",
        class: "plain",
        onclick: () => {
          view.shown = new Set(view.fields.filter(keep).map((field) => field.key));
          fill();
          changed();
        },
      },
      label,
    );
  fill();
  return el(
    "details",
    { class: "columns" },
    el("summary", {}, "Columns", count),
    el(
      "div",
      { class: "presets" },
      preset("Main ones", (field) => field.narrow),
      preset("Ranked only", (field) => field.places),
      preset("All", () => true),
      preset("None", () => false),
    ),
    list,
  );
}

function byGroup(view) {
  const groups = new Map();
  for (const field of view.fields) {
    if (!groups.has(field.group)) groups.set(field.group, []);
    groups.get(field.group).push(field);
  }
  return Array.from(groups, ([name, fields]) => ({ name, fields }));
}

// Checking a protocol shows its main metrics; unchecking hides all of them.
function groupOf(view, group, changed) {
  const on = () => group.fields.filter((field) => view.shown.has(field.key)).length;
  const whole = check(group.name, on() > 0, (checked) => {
    const main = group.fields.filter((field) => field.narrow);
    for (const field of group.fields) view.shown.delete(field.key);
    if (checked)
      for (const field of main.length ? main : group.fields.slice(0, 1)) view.shown.add(field.key);
    refresh();
    changed();
  });
  const box = whole.querySelector("input");
  const summary = el("summary", {});
  const metrics = el("div", { class: "metrics" });
  const more = el("details", {}, summary, metrics);
  const mark = () => {
    box.checked = on() > 0;
    box.indeterminate = on() > 0 && on() < group.fields.length;
    summary.replaceChildren(
      `${on()} of ${plural(group.fields.length, "column")}`,
      spoken(` of ${group.name}`),
    );
  };
  const refresh = () => {
    mark();
    if (more.open) metrics.replaceChildren(...group.fields.map(one));
  };
  const one = (field) =>
    check(field.label, view.shown.has(field.key), (checked) => {
      if (checked) view.shown.add(field.key);
      else view.shown.delete(field.key);
      mark();
      changed();
    });
  more.addEventListener("toggle", refresh);
  refresh();
  return el("div", { class: "protocol-choice" }, whole, group.fields.length > 1 ? more : null);
}
