// Generated text: each token on the colour of its most probable domain; pointing at one, or walking with the arrow keys,
// shows pi and the components of every layer.

const most_probable = (pi) => pi.indexOf(Math.max(...pi));
// 0 for a uniform pi, 1 when one domain has it all.
const certainty = (pi) => Math.max(0, (Math.max(...pi) - 1 / pi.length) / (1 - 1 / pi.length));

// pi in force at each token (the last one has none of its own: it was never read), or null without level 1.
function pi_by_token(sample) {
  const route = sample.route, num = route?.num_domains || 0;
  if (num < 2 || num !== routed.length || !route.chunk_starts.length) return null;
  let chunk = 0;
  return sample.tokens.map((_, t) => {
    while (chunk + 1 < route.chunk_starts.length && route.chunk_starts[chunk + 1] <= t) ++chunk;
    return route.pi.slice(chunk * num, (chunk + 1) * num);
  });
}

const tip = document.getElementById("tip");
function hide_tip() { tip.hidden = true; }
function show_tip(node, sample, t, pi) {
  const route = sample.route, per_layer = route?.num_active || 0, first = report.config?.model?.trunk?.num_dense_layers || 0;
  const text = sample.tokens[t], shown = text === "" ? "start of the text" : JSON.stringify(text).slice(1, -1).replace(/\\"/g, '"');
  const layers = [];
  if (route && t < route.num_tokens) {
    for (let l = 0; l < route.num_layers; ++l) {
      const from = (t * route.num_layers + l) * per_layer;
      layers.push(el("span", {}, `layer ${first + l}`), el("span", {}, route.components.slice(from, from + per_layer).map((c) =>
        el("span", {class: "chip", style: {"--c": component_color(c)}}, component_name(c)))));
    }
  }
  tip.replaceChildren(el("p", {}, el("code", {}, shown), ` token ${t}, ${t < sample.prompt_tokens ? "of the prompt" : "generated"}`),
    pi && el("div", {class: "pi"}, routed.map((d, i) => [el("span", {}, d), el("i", {style: {"--c": color(d), width: (110 * pi[i]).toFixed(1) + "px"}}), el("span", {class: "num"}, percent(pi[i]))])) || "",
    layers.length ? el("div", {class: "layers" + (route.num_layers > 10 ? " many" : "")}, layers) : "");
  tip.hidden = false;
  const at = node.getClientRects()[0], size = tip.getBoundingClientRect(), room = document.documentElement;
  const below = at.bottom + 8 + size.height < room.clientHeight || at.top < size.height + 8;
  tip.style.left = Math.max(12, Math.min(at.left, room.clientWidth - size.width - 12)) + "px";
  tip.style.top = Math.max(8, below ? at.bottom + 8 : at.top - size.height - 8) + "px";
}

function sample_block(sample) {
  const pis = pi_by_token(sample), text = el("p", {class: "tokens", role: "group", "aria-label": `Text for the prompt of ${sample.domain}; the arrow keys walk through its tokens`});
  const nodes = sample.tokens.map((token, t) => {
    const pi = pis && pis[t];
    const node = el("span", {class: t < sample.prompt_tokens ? "prompt" : null, tabindex: -1, "aria-describedby": "tip",
      style: pi ? {"--c": color(routed[most_probable(pi)]), "--o": (0.46 * certainty(pi)).toFixed(3)} : {"--c": "var(--cg)", "--o": "0"}}, token);
    node.addEventListener("pointerenter", () => show_tip(node, sample, t, pi));
    node.addEventListener("pointerleave", hide_tip);
    node.addEventListener("focus", () => show_tip(node, sample, t, pi));
    node.addEventListener("blur", hide_tip);
    return node;
  }).filter((node, t) => sample.tokens[t] !== "" || node.remove());
  if (nodes.length) nodes[0].tabIndex = 0;
  text.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10}[event.key], at = nodes.indexOf(document.activeElement);
    if (event.key === "Escape") hide_tip();
    if (!step || at < 0) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(nodes.length - 1, at + step));
    nodes[at].tabIndex = -1;
    nodes[to].tabIndex = 0;
    nodes[to].focus();
  });
  text.append(...nodes);
  const generated = pis ? pis.slice(sample.prompt_tokens).reduce((sum, pi) => pi.map((p, i) => p + (sum[i] || 0)), []) : [];
  return el("article", {class: "panel sample"}, el("h3", {}, el("span", {}, named(sample.domain)),
    generated.length > 0 && el("small", {}, `level 1 places the continuation in ${routed[most_probable(generated)]} (${percent(Math.max(...generated) / generated.reduce((a, b) => a + b, 0), 0)})`)), text);
}

function samples() {
  const some = (report.samples || []).filter((s) => s.tokens?.length);
  if (!some.length) return;
  const key = routed.length > 1 && el("ul", {class: "legend"}, routed.map((d) => el("li", {}, el("span", {class: "key", style: {"--c": color(d)}}, d))),
    el("li", {}, "stronger is surer; none: not decided yet"), el("li", {}, "bold and underlined: the prompt"));
  section("text", "Generated text", "One prompt per domain, and what the model makes of it." +
    (routed.length > 1 ? " The colour behind a token is the domain that level 1 held most probable there." : "") + (owners.length ? " Point at a token to see which components served it." : ""),
    key, some.map(sample_block));
}
