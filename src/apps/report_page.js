// The sections of the page, from the report (its keys: report_page.h). A section without its data isn't shown.
const report = JSON.parse(document.getElementById("report").textContent);
const hierarchy = report.config?.model?.hierarchy || {};
const owners = hierarchy.domains || [];                          // every domain, the always eligible ones too
const routed = owners.filter((d) => !d.always).map((d) => d.name); // what level 1 chooses among
const component_owner = owners.flatMap((d, i) => Array(d.num_components).fill(i));
const final_bpb = report.final || report.evaluations?.[report.evaluations.length - 1];

// A colour for each routed domain; text of other domains takes the colours behind them; general domains are grey.
const other = [];
function color(name) {
  if (owners.some((d) => d.always && d.name === name)) return "var(--cg)";
  let i = routed.indexOf(name);
  if (i < 0) {
    if (!other.includes(name)) other.push(name);
    i = routed.length + other.indexOf(name);
  }
  return `var(--c${i % 8})`;
}
const component_color = (c) => (owners.length > 1 ? color(owners[component_owner[c]]?.name) : "var(--c0)");
function component_name(c) {
  const owner = owners[component_owner[c]];
  if (!owner) return "component " + c;
  const first = component_owner.indexOf(component_owner[c]);
  return owner.components?.[c - first] || `${owner.name} ${c - first}`;
}
const swatch = (c) => el("span", {class: "swatch", style: {"--c": c}, "aria-hidden": "true"});
const named = (name) => [swatch(color(name)), name];
const legend = (names) => el("ul", {class: "legend"}, names.map((n) => el("li", {}, named(n))));

const nav = [];
function section(id, heading, note, ...content) {
  const kept = content.flat().filter(Boolean);
  if (!kept.length) return;
  nav.push([id, heading]);
  document.getElementById(id).append(el("h2", {}, heading), note && el("p", {class: "note"}, note), ...kept);
}

// ---- what was trained, and how good it is in one sentence ----

function versus_trigram() {
  const theirs = report.trigram?.bpb;
  if (!final_bpb?.bpb || !theirs) return null;
  const domains = Object.keys(final_bpb.bpb).filter((d) => is_number(theirs[d]));
  return {domains, better: domains.filter((d) => final_bpb.bpb[d] < theirs[d]).length};
}

function headline() {
  const title = report.title || "Report of a run", model = report.model || {};
  document.title = title + " · Tessera";
  document.getElementById("title").textContent = title;
  document.getElementById("byline").textContent = ["", report.date, report.commit && "commit " + report.commit].filter((s) => s !== undefined && s !== null).join("  ·  ");
  const score = versus_trigram();
  const compared = score && is_number(report.trigram.bpb_all)
    ? `, ${percent(Math.abs(1 - final_bpb.bpb_all / report.trigram.bpb_all))} ${final_bpb.bpb_all < report.trigram.bpb_all ? "fewer" : "more"} than a token trigram that read the same tokens; it is better in ${score.better} of ${score.domains.length} domains` : "";
  document.getElementById("summary").textContent =
    (report.summary ? report.summary + " " : "") + (final_bpb ? `This model needs ${fixed(final_bpb.bpb_all)} bits for a byte of text it has never seen${compared}.` : "");
  const share = model.total_parameters / model.flat_total_parameters, active_share = model.active_parameters / model.flat_active_parameters;
  document.getElementById("headline").append(tiles([
    is_number(model.total_parameters) && ["Parameters", human(model.total_parameters), is_number(share) && `${percent(share, 0)} of the flat MoE's ${human(model.flat_total_parameters)}`],
    is_number(model.active_parameters) && ["Active for a token", human(model.active_parameters), is_number(active_share) && `${percent(active_share, 0)} of the flat MoE's ${human(model.flat_active_parameters)}`],
    is_number(report.tokens) && ["Tokens read", human(report.tokens), is_number(report.bytes) ? human_bytes(report.bytes) + " of text" : report.config?.train?.steps && report.config.train.steps.toLocaleString("en") + " steps"],
    is_number(report.seconds) && ["Training took", human_seconds(report.seconds), [report.machine, is_number(report.tokens) && human(report.tokens / report.seconds) + " tokens/s"].filter(Boolean).join(", ")],
  ]), parts(model) || "");
}

function parts(model) {
  if (!model.parts) return null;
  const colors = {"components": "--c0", "base banks": "--c2", "attention": "--c4", "embedding": "--cg", "head": "--c5", "dense feed-forward": "--c7", "always-on component": "--c6", "domain router": "--c1", "component router": "--c3", "norms": "--cg"};
  const total = (p) => (is_number(p) ? p : p.total) || 0, sum = (all) => Object.values(all).reduce((s, p) => s + total(p), 0);
  const widest = Math.max(sum(model.parts), model.flat_parts ? sum(model.flat_parts) : 0);
  const stack = (name, all) => [el("span", {}, name),
    el("div", {class: "stack", role: "img", style: {width: (100 * sum(all) / widest).toFixed(2) + "%"}, "aria-label": Object.entries(all).map(([n, p]) => `${n} ${human(total(p))}`).join(", ")},
      Object.entries(all).map(([n, p]) => total(p) > 0 && el("i", {title: `${n}: ${human(total(p))}`, style: {"flex-grow": String(total(p)), background: `rgb(var(${colors[n] || "--cg"}))`}}))),
    el("span", {class: "num"}, human(sum(all)))];
  const names = [...new Set([...Object.keys(model.parts), ...Object.keys(model.flat_parts || {})])].filter((n) => total(model.parts[n] || model.flat_parts[n]) / widest > 0.002);
  return el("div", {class: "panel"}, el("h3", {}, "Where the parameters are"),
    el("div", {class: "stacks"}, stack("this model", model.parts), model.flat_parts && stack("flat MoE", model.flat_parts)),
    el("ul", {class: "legend", style: {margin: "0"}}, names.map((n) => el("li", {}, swatch(`var(${colors[n] || "--cg"})`), n))));
}

function mosaic() {
  // A row is one text from left to right, a tile a token or a few.
  const rows = (report.samples || []).map(pi_by_token).filter(Boolean).slice(0, 4), columns = 90, size = 12;
  if (!rows.length) return;
  document.getElementById("mosaic").append(svg("svg", {viewBox: `0 0 ${columns * size} ${rows.length * size}`}, rows.map((pis, r) =>
    Array.from({length: columns}, (_, i) => {
      const pi = pis[Math.floor(i * pis.length / columns)], share = 0.12 + 0.8 * certainty(pi);
      return svg("rect", {x: i * size + 0.75, y: r * size + 0.75, width: size - 1.5, height: size - 1.5, rx: 1.5,
        style: {fill: `rgb(${certainty(pi) > 0.01 ? color(routed[most_probable(pi)]) : "var(--cg)"} / ${share.toFixed(2)})`}});
    }))));
}

// ---- results ----

function verdict() {
  const ours = final_bpb?.bpb, theirs = report.trigram?.bpb || {};
  if (!ours) return;
  const domains = Object.keys(ours), all = [...Object.values(ours), ...Object.values(theirs)].filter(is_number);
  const low = Math.min(...all), high = Math.max(...all), has_trigram = domains.some((d) => is_number(theirs[d]));
  const row = (name, label, a, b, c) => [label, fixed(a), has_trigram && fixed(b),
    has_trigram && el("span", {class: a < b ? "good" : "bad"}, is_number(b) ? `${percent(Math.abs(a / b - 1))} ${a < b ? "better" : "worse"}` : "–"),
    dumbbell(a, b, low, high, c, `${name}: model ${fixed(a)}, trigram ${fixed(b)}`)].filter((x) => x !== false);
  const columns = [{name: "held-out text"}, {name: "this model", num: true}, has_trigram && {name: "token trigram", num: true}, has_trigram && {name: "difference", num: true},
    {name: has_trigram ? "● model   ○ trigram   (left is better)" : "left is better", css: "plot"}].filter(Boolean);
  section("verdict", "Bits per byte by domain", "How many bits the model needs for each byte of held-out text, from sources it was never trained on. Less is better; 8 would be no knowledge at all." +
    (has_trigram ? " The yardstick is a trigram with modified Kneser-Ney smoothing over the same tokens." : ""),
    el("div", {class: "panel"}, table("Bits per byte of held-out text", columns, domains.map((d) => row(d, el("span", {}, named(d)), ours[d], theirs[d], color(d))),
      row("all text", "all text", final_bpb.bpb_all, report.trigram?.bpb_all, "var(--cg)"))));
}

function curves() {
  const history = report.history || [], evaluations = report.evaluations || [];
  if (!history.length && !evaluations.length) return;
  const of = (key) => history.filter((h) => is_number(h[key])).map((h) => [h.tokens, h[key]]);
  const train = of("bpb"), domains = [...new Set(evaluations.flatMap((e) => Object.keys(e.bpb || {})))];
  const panel = (title, chart) => chart && el("div", {class: "panel"}, el("h3", {}, title), chart);
  const all = [...smooth(train).map((p) => p[1]), ...evaluations.flatMap((e) => Object.values(e.bpb || {}))].filter(is_number);
  const loads = routed.map((d) => ({name: d, label: true, color: color(d), points: history.filter((h) => is_number(h.load?.[d]?.[d])).map((h) => [h.tokens, h.load[d][d]])}));
  section("curves", "Learning curves", "Training text as it was read, and held-out text of each domain after every so many steps.",
    panel("Bits per byte", line_chart({title: "Bits per byte against tokens read", height: 380, log: true, x_name: "tokens read", y_max: all.length ? Math.max(...all) : undefined, y_min: all.length ? Math.min(...all) : undefined,
      y_text: (v, digits) => (digits ? String(+v.toFixed(2)) : v.toFixed(3)),
      series: [{name: "training", color: "var(--cg)", faint: true, points: train}, {name: "training", color: "var(--cg)", label: true, points: smooth(train)},
        ...domains.map((d) => ({name: d, color: color(d), dots: true, label: true, points: evaluations.filter((e) => is_number(e.bpb?.[d])).map((e) => [e.tokens, e.bpb[d]])}))]})),
    el("div", {class: "charts"},
      panel("Picks that stay in the text's domain", routed.length > 1 && line_chart({title: "Own share against tokens", x_name: "tokens read", y_text: (v, d) => percent(v, d ? 0 : 1), series: loads})),
      panel("Learning rate", line_chart({title: "Learning rate against tokens", x_name: "tokens read", y_min: 0, y_text: (v) => (v === 0 ? "0" : v.toExponential(0)), series: [{name: "rate", color: "var(--c0)", points: of("lr")}]})),
      panel("Tokens a second", line_chart({title: "Speed against tokens", x_name: "tokens read", y_min: 0, y_text: human, series: [{name: "tokens/s", color: "var(--c0)", points: of("tokens_per_s")}]}))));
}

function load() {
  const route = report.route_statistics;
  if (!route?.components?.length) return;
  const heat = el("div", {class: "panel"}, el("h3", {}, "Who serves which text"), table("Share of the picks: a row is a text's domain, a column the domain that owns the component",
    [{name: ""}, ...route.owner_domains.map((d) => ({name: el("span", {}, named(d))}))],
    route.text_domains.map((text, t) => [el("span", {}, named(text)), ...route.load[t].map((share, o) =>
      el("span", {style: {"--c": color(route.owner_domains[o]), "--share": (0.04 + 0.6 * share).toFixed(3)}}, percent(share)))]), null, "heat"));
  heat.querySelectorAll("tbody tr").forEach((tr, t) => tr.querySelectorAll("td").forEach((td, o) =>
    td.classList.toggle("own", route.text_domains[t] === route.owner_domains[o])));
  const first = report.config?.model?.trunk?.num_dense_layers || 0;
  const mean = (a) => a.reduce((s, v) => s + v, 0) / a.length, count = route.components.length * route.components[0].length;
  section("load", "Load by domain", "Level 1 places a text in a domain; level 2 picks components for each token, from that domain and the general one. Measured on the held-out text.",
    tiles([is_number(route.document_accuracy) && ["Documents placed rightly", percent(route.document_accuracy), "by their first 512 tokens"],
      is_number(route.chunk_accuracy) && ["Chunks placed rightly", percent(route.chunk_accuracy), "of the chunks after the first decision"],
      ["Components in use", `${count - route.dead_components} of ${count}`, "dead: picked by under 0.1 % of its domain's tokens"],
      ["Evenness", percent(mean(route.entropy), 0), "entropy of the picks; 100 % if all were used alike"]]),
    route.owner_domains.length > 1 && heat, el("h3", {}, "Components by layer"),
    el("p", {class: "note small"}, "A bar is one component's share of the layer's picks; the dashed line is an equal share."), route.owner_domains.length > 1 && legend(route.owner_domains),
    el("div", {class: "panel bars"}, route.components.map((picks, l) => el("figure", {}, el("figcaption", {}, el("span", {}, `layer ${first + l}`), el("span", {}, `evenness ${percent(route.entropy[l], 0)}`)),
      component_bars(picks, component_color, component_name)))));
}

// ---- data and what next ----

function data() {
  const sources = report.data?.sources || [], removals = report.data?.removals || [];
  const splits = ["train", "heldout", "cross"].filter((s) => sources.some((x) => (x.split || "train") === s));
  const domains = [...new Set(sources.map((s) => s.domain || "unlabelled"))];
  const add = (some) => some.reduce((sum, s) => ({documents: sum.documents + (s.documents || 0), bytes: sum.bytes + (s.bytes || 0), tokens: sum.tokens + (s.tokens || 0)}), {documents: 0, bytes: 0, tokens: 0});
  const cells = (some) => { const s = add(some); return lines(some.length ? [human_bytes(s.bytes), `${s.documents.toLocaleString("en")} documents`, s.tokens ? human(s.tokens) + " tokens" : null].filter(Boolean) : ["–"]); };
  const lines = ([first, ...more]) => [first, more.length > 0 && el("div", {class: "more"}, more.join(", "))];
  const title = {train: "training", heldout: "held out", cross: "cross-domain"}, number = (name) => ({name, num: true});
  const licences = (s) => [s.licences || []].flat().filter(Boolean).join(", ") || "not stated";
  const of = (d) => (s) => (s.domain || "unlabelled") === d;
  section("data", "Data", "What the model learnt from, and what was kept for measuring it. A source is held out whole, so that held-out text comes from projects that it never saw.",
    sources.length && el("div", {class: "panel"}, table("Documents, bytes and tokens by domain and split",
      [{name: "domain"}, ...splits.map((s) => number(title[s]))],
      domains.map((d) => [el("span", {}, named(d)), ...splits.map((s) => cells(sources.filter((x) => of(d)(x) && (x.split || "train") === s)))]),
      ["all", ...splits.map((s) => cells(sources.filter((x) => (x.split || "train") === s)))]),
      el("details", {}, el("summary", {}, `${sources.length} sources and their licences`), table("Sources",
        [{name: "source"}, {name: "domain"}, {name: "split"}, {name: "licence"}, number("documents"), number("text")],
        sources.map((s) => [s.source, s.domain || "", title[s.split] || s.split || "training", licences(s), (s.documents || 0).toLocaleString("en"), human_bytes(s.bytes || 0)])))),
    removals.length && el("h3", {}, "What curation dropped"),
    removals.length && el("div", {class: "panel"}, table("Dropped or taken out, by step and reason", [{name: "step"}, {name: "reason"}, number("documents"), number("text")],
      removals.map((r) => [r.step, el("div", {}, r.reason, r.samples?.length > 0 && el("details", {style: {"margin-top": "0"}}, el("summary", {class: "small"}, "examples"),
        el("ul", {class: "samples-of"}, r.samples.map((s) => el("li", {}, s))))), (r.documents || 0).toLocaleString("en"), human_bytes(r.bytes || 0)]))));
}

function next() {
  section("next", "How to go on", "From the folder that ./tessera is in.", report.commands?.length && el("ul", {class: "commands"}, report.commands.map((c) => {
    const copy = el("button", {type: "button", "aria-label": "Copy the command: " + c.what, onclick: () => navigator.clipboard?.writeText(c.command).then(() => {
      copy.textContent = "copied";
      setTimeout(() => { copy.textContent = "copy"; }, 1500);
    }, () => {})}, "copy");
    return el("li", {}, el("p", {}, c.what), el("div", {}, el("code", {tabindex: 0}, c.command), copy));
  })));
}

headline();
mosaic();
verdict();
curves();
load();
samples();
data();
next();
document.getElementById("nav").append(...nav.map(([id, heading]) => el("a", {href: "#" + id}, heading)));
