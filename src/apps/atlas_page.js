// The atlas: a map of all components, and for the one that is chosen what it is picked for (data/atlas.h).
const atlas = JSON.parse(document.getElementById("report").textContent);
const routed_names = atlas.owners.filter((o) => !o.always).map((o) => o.name);
const color = (name) => {
  if (atlas.owners.some((o) => o.always && o.name === name)) return "var(--cg)";
  const i = routed_names.indexOf(name);
  return `var(--c${(i < 0 ? routed_names.length + atlas.domains.indexOf(name) : i) % 8})`;
};
const owner_color = (c) => color(atlas.owners[c.owner].name);
const swatch = (c) => el("span", {class: "swatch", style: {"--c": c}, "aria-hidden": "true"});
const mean = (values) => values.reduce((a, b) => a + b, 0) / (values.length || 1);
const signed = (x) => (is_number(x) ? (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3) : "–");
const place = (id, heading, note, ...content) => document.getElementById(id).replaceChildren(...[el("h2", {}, heading), note && el("p", {class: "note"}, note), ...content].filter(Boolean));

// How much more often than on the average a component is picked for a class or domain.
const lift = (c, values, i) => (c.share > 0 ? values[i] / c.share : 0);
const uses = (c) => [...c.picked_for.classes, ...c.picked_for.domains].map(([name, times]) => `${name} (${times.toFixed(1)}×)`).join(", ") || "all alike";

function headline() {
  document.title = atlas.title + " · Tessera";
  document.getElementById("title").textContent = atlas.title;
  document.getElementById("byline").textContent = ["", atlas.model, atlas.date, atlas.commit && "commit " + atlas.commit, atlas.machine].filter((s) => s !== undefined && s !== null).join("  ·  ");
  const list = atlas.components, used = list.filter((c) => is_number(c.removal_nats));
  document.getElementById("summary").textContent =
    `${list.length} components in ${atlas.layers} layers, over ${human(atlas.tokens)} tokens of held-out text. ` +
    (atlas.dead.length ? `${atlas.dead.length} of them ${atlas.dead.length > 1 ? "are" : "is"} picked for fewer than 0.1 % of their domain's tokens.` : "None is dead: each is picked for at least 0.1 % of its domain's tokens.");
  document.getElementById("headline").append(tiles([
    ["Token class", fixed(mean(list.map((c) => c.class_bits))) + " bits", "mean mutual information of being picked with the class of the token"],
    ["Domain", fixed(mean(list.map((c) => c.domain_bits))) + " bits", "the same with the domain of the text"],
    ["Removal", signed(mean(used.map((c) => c.removal_nats))) + " nats", "a token that had picked it, mean over components"],
    ["Dead", String(atlas.dead.length), "picked for under 0.1 % of their domain's tokens"]]));
}

// ---- the map ----

let chosen = null;
function draw_map() {
  const strongest = Math.max(...atlas.components.map((c) => c.class_bits + c.domain_bits), 1e-9);
  const rows = [];
  for (let layer = 0; layer < atlas.layers; ++layer) {
    rows.push(el("tr", {}, el("th", {scope: "row"}, "layer " + layer), atlas.components.filter((c) => c.layer === layer).map((c) =>
      el("td", {}, el("button", {class: c.dead ? "dead" : null, "aria-pressed": c === chosen ? "true" : "false", onclick: () => show(c),
        title: `${c.name}: picked for ${percent(c.share)} of the tokens; ${uses(c)}`,
        "aria-label": `layer ${layer}, ${c.name}`, style: {"--c": owner_color(c), "--share": 0.08 + 0.8 * Math.sqrt((c.class_bits + c.domain_bits) / strongest)}}, String(c.id))))));
  }
  place("map", "All components", "A row a layer, a square a component, coloured by the domain that owns it: the fuller, the more its being picked says about the token's class and the text's domain. A red ring: dead. Choose one.",
    el("ul", {class: "legend"}, atlas.owners.map((o) => el("li", {}, swatch(color(o.name)), o.name + (o.always ? " (every text)" : "")))),
    el("div", {class: "scroll"}, el("table", {class: "heat map"}, el("tbody", {}, rows))));
}

// ---- one component ----

// Horizontal bars around the component's mean share: [[name, share, color]].
function bars(label, rows, c) {
  const width = 300, step = 22, left = 110, top = Math.max(...rows.map((r) => r[1]), c.share, 1e-9);
  const x = (v) => left + v / top * (width - left - 50);
  return svg("svg", {viewBox: `0 0 ${width} ${rows.length * step + 4}`, width, height: rows.length * step + 4, role: "img", "aria-label": label + ": " + rows.map((r) => `${r[0]} ${percent(r[1])}`).join(", ")},
    rows.map(([name, share, fill_color], i) => [svg("text", {x: left - 8, y: i * step + 15, "text-anchor": "end"}, name),
      svg("rect", {x: left, y: i * step + 3, width: Math.max(0, x(share) - left), height: step - 7, rx: 2, style: {fill: `rgb(${fill_color})`}}),
      svg("text", {x: x(share) + 5, y: i * step + 15}, percent(share))]),
    svg("line", {class: "cross", x1: x(c.share), x2: x(c.share), y1: 0, y2: rows.length * step}));
}

function show(c) {
  chosen = c;
  draw_map();
  const by_class = atlas.classes.map((name, i) => [name, c.classes[i], owner_color(c), i]).filter((r) => atlas.class_tokens[r[3]] > 0).sort((a, b) => b[1] - a[1]);
  const removal = Object.entries(c.removal || {}).map(([name, [nats, tokens]]) => [name, nats, tokens]).sort((a, b) => b[1] * b[2] - a[1] * a[2]);
  const unmeasured = atlas.classes.filter((name, i) => atlas.class_tokens[i] > 0 && !(c.removal || {})[name]);
  place("one", `Layer ${c.layer}, ${c.name}`,
    `Owned by ${atlas.owners[c.owner].name}${c.bank >= 0 ? `, on base bank ${c.bank}` : ""}. Picked for ${percent(c.share, 2)} of all tokens (the dashed line)${c.dead ? "; dead" : ""}, more than on the average for ${uses(c)}. Mutual information: ${fixed(c.class_bits, 4)} bits with the token's class, ${fixed(c.domain_bits, 4)} bits with the domain.`,
    el("div", {class: "two"},
      el("div", {class: "panel"}, el("h3", {}, "Share of each class that picks it"), bars("Share by class", by_class.map((r) => r.slice(0, 3)), c)),
      el("div", {class: "panel"}, el("h3", {}, "Share of each domain's tokens"), bars("Share by domain", atlas.domains.map((name, i) => [name, c.domains[i], color(name)]), c),
        removal.length ? table("What its removal costs, a token that had picked it", [{name: "class"}, {name: "nats", num: true}, {name: "tokens", num: true}],
          [...removal.map(([name, nats, tokens]) => [name, el("span", {class: nats > 0 ? "bad" : null}, signed(nats)), String(tokens)]), ...unmeasured.map((name) => [name, "–", "0"])], ["all", signed(c.removal_nats), String(removal.reduce((n, r) => n + r[2], 0))]) : el("p", {class: "note"}, "Never picked here."))),
    c.contexts.length && el("h3", {}, "Where it had most weight"),
    c.contexts.length && el("ul", {class: "contexts panel"}, c.contexts.map(([before, token, after]) => el("li", {}, before, el("mark", {style: {"--c": owner_color(c)}}, token), after))));
}

// ---- classes ----

function class_table() {
  const shown = atlas.classes.map((name, i) => [name, i]).filter(([, i]) => atlas.class_tokens[i] >= 20);
  const cell = (c, i) => {
    const times = lift(c, c.classes, i);
    return el("span", {style: {"--c": owner_color(c), "--share": Math.min(0.75, 0.15 * Math.max(0, Math.log2(times + 1e-9) + 1))}, title: `${percent(c.classes[i], 2)}; removal ${signed(c.removal?.[atlas.classes[i]]?.[0])} nats`}, times.toFixed(1));
  };
  const rows = atlas.components.filter((c) => c.share > 0).map((c) => [
    el("span", {}, swatch(owner_color(c)), `${c.layer}: ${c.name}`), ...shown.map(([, i]) => cell(c, i)), signed(c.removal_nats)]);
  place("classes", "By class", "How many times more often than on the average a component is picked for a class of tokens (1: no preference), and what its removal costs, in nats, over all classes (of one class: the cell's title, and the panel above).",
    table("Preference of each component (layer: name) by token class", [{name: "component"}, ...shown.map(([name]) => ({name})), {name: "removal", num: true}], rows, null, "heat small"));
}

headline();
show(atlas.components.reduce((a, b) => (b.class_bits + b.domain_bits > a.class_bits + a.domain_bits ? b : a)));
class_table();
place("dead", "Dead components", null, atlas.dead.length ? el("ul", {}, atlas.dead.map((name) => el("li", {}, name))) : el("p", {}, "None."));
