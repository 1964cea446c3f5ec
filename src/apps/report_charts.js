// Nodes and figures. Text from outside goes only into text nodes and attributes, never through innerHTML.

const kSvg = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.flat(3).filter((c) => c !== undefined && c !== null && c !== false));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(kSvg, tag), attributes, children);

// ---- numbers ----

const is_number = (x) => typeof x === "number" && isFinite(x);
function human(x) {
  if (!is_number(x)) return "–";
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(x) >= size * 0.9995) return (x / size).toFixed(Math.abs(x) >= 99.95 * size ? 0 : 1) + unit;
  }
  return String(Math.round(x));
}
function human_bytes(x) {
  if (!is_number(x)) return "–";
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (x >= size * 0.9995) return (x / size).toFixed(x >= 99.95 * size ? 0 : 1) + " " + unit;
  }
  return Math.round(x) + " B";
}
function human_seconds(s) {
  if (!is_number(s)) return "–";
  if (s < 60) return Math.round(s) + " s";
  const minutes = Math.round(s / 60);
  return minutes < 90 ? minutes + " min" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}
const fixed = (x, digits = 3) => (is_number(x) ? x.toFixed(digits) : "–");
const percent = (x, digits = 1) => (is_number(x) ? (100 * x).toFixed(digits) + " %" : "–");

// ---- pieces of a page ----

// columns: [{name, num}]; rows: cells, each a string or a node; the first cell of a row is its header.
function table(caption, columns, rows, foot, css) {
  const row = (cells) => el("tr", {}, cells.map((cell, i) =>
    el(i ? "td" : "th", {class: [columns[i].num && "num", columns[i].css].filter(Boolean).join(" ") || null, scope: i ? null : "row"}, cell)));
  return el("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption},
    el("table", {class: css}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, columns.map((c) => el("th", {scope: "col", class: [c.num && "num", c.css].filter(Boolean).join(" ") || null}, c.name)))),
      el("tbody", {}, rows.map(row)), foot && el("tfoot", {}, row(foot))));
}
function tiles(list) {
  return el("dl", {class: "tiles"}, list.filter(Boolean).map(([name, value, more]) =>
    el("div", {class: "panel"}, el("dt", {}, name), el("dd", {class: "value"}, value), more && el("dd", {class: "more"}, more))));
}

// ---- line charts ----

function ticks(low, high, log, wanted) {
  const all = [];
  if (log) {
    for (let decade = -9; decade < 10; ++decade) for (const m of [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8]) all.push(m * 10 ** decade);
  } else {
    const raw = (high - low || 1) / wanted, base = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].find((m) => m * base >= raw * 0.999) * base;
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); ++i) all.push(i * step);
  }
  const inside = all.filter((t) => t >= low * (1 - 1e-9) && t <= high * (1 + 1e-9));
  return log && inside.length > 9 ? inside.filter((t) => "1235".includes(t.toExponential()[0]) && !t.toExponential().includes(".")) : inside;
}

// Labels that would lie on each other are moved apart; gives their y.
function spread(ys, gap, low, high) {
  const order = ys.map((y, i) => [y, i]).sort((a, b) => a[0] - b[0]);
  let last = low - gap;
  for (const o of order) last = o[0] = Math.max(o[0], last + gap);
  last = high + gap;
  for (const o of order.reverse()) last = o[0] = Math.min(o[0], last - gap);
  const result = [];
  for (const [y, i] of order) result[i] = y;
  return result;
}

// series: [{name, color, points: [[x, y]], dots, dash, faint, label}]. Redrawn when its width changes; pointing at it
// writes every labelled series' value below.
function line_chart({title, series, height = 230, log = false, x_name, x_text = human, y_text = fixed, y_max, y_min}) {
  series = series.map((s) => ({...s, points: s.points.filter((p) => is_number(p[0]) && is_number(p[1]) && (!log || p[1] > 0))})).filter((s) => s.points.length);
  if (!series.length) return null;
  const box = el("div", {}), readout = el("p", {class: "readout", "aria-live": "off"});
  const xs = series.flatMap((s) => s.points.map((p) => p[0])), ys = series.flatMap((s) => s.points.map((p) => p[1]));
  const min_of = (a) => a.reduce((m, v) => Math.min(m, v), Infinity), max_of = (a) => a.reduce((m, v) => Math.max(m, v), -Infinity);
  const x0 = Math.min(0, min_of(xs)), x1 = max_of(xs) || 1;
  let y0 = y_min ?? min_of(ys), y1 = y_max ?? max_of(ys);
  if (y1 <= y0) { y1 = y0 + (Math.abs(y0) || 1) * 0.5; if (!log) y0 -= (Math.abs(y0) || 1) * 0.5; }
  if (log) { y0 *= 0.97; y1 *= 1.03; }
  const f = log ? Math.log : (v) => v;

  function draw() {
    const width = Math.max(260, box.clientWidth || 700), named = series.filter((s) => s.label);
    const right = named.length ? Math.min(150, 18 + 7.2 * Math.max(...named.map((s) => s.name.length))) : 12;
    const left = 46, top = 10, bottom = 38, x = (v) => left + (v - x0) / (x1 - x0) * (width - left - right);
    const y = (v) => Math.min(height, Math.max(-40, top + (f(y1) - f(v)) / (f(y1) - f(y0)) * (height - top - bottom)));
    const clip = "clip" + (line_chart.count = (line_chart.count || 0) + 1);
    const picture = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title},
      svg("defs", {}, svg("clipPath", {id: clip}, svg("rect", {x: left - 4, y: top - 6, width: width - left - right + 8, height: height - top - bottom + 8}))),
      ticks(y0, y1, log, 5).map((t) => [svg("line", {class: "grid", x1: left, x2: width - right, y1: y(t), y2: y(t)}),
        svg("text", {x: left - 8, y: y(t) + 4, "text-anchor": "end"}, y_text(t, 1).replace(/\.0(?!\d)/, ""))]),
      ticks(x0, x1, false, width > 560 ? 7 : 4).map((t) => svg("text", {x: x(t), y: height - bottom + 18, "text-anchor": "middle"}, x_text(t).replace(".0", ""))),
      svg("text", {x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle"}, x_name));
    const plot = svg("g", {"clip-path": `url(#${clip})`});
    for (const s of series) {
      const path = s.points.map((p, i) => (i ? "L" : "M") + x(p[0]).toFixed(1) + " " + y(p[1]).toFixed(1)).join("");
      plot.append(svg("path", {d: path, fill: "none", style: {stroke: `rgb(${s.color} / ${s.faint ? 0.28 : 1})`, "stroke-width": s.faint ? 1 : 2},
        "stroke-dasharray": s.dash ? "5 4" : null, "stroke-linejoin": "round"}));
      if (s.dots || s.points.length === 1) for (const p of s.points) plot.append(svg("circle", {cx: x(p[0]), cy: y(p[1]), r: 3.2, style: {fill: `rgb(${s.color})`}}));
    }
    picture.append(plot);
    const ends = spread(named.map((s) => y(s.points[s.points.length - 1][1])), 15, top, height - bottom);
    named.forEach((s, i) => picture.append(svg("text", {class: "strong", x: width - right + 8, y: ends[i] + 4, style: {fill: `rgb(${s.color})`}}, s.name)));
    const cross = svg("line", {class: "cross", y1: top, y2: height - bottom, visibility: "hidden"});
    picture.append(cross);
    picture.addEventListener("pointermove", (event) => {
      const at = x0 + ((event.clientX - picture.getBoundingClientRect().left) / picture.getBoundingClientRect().width * width - left) / (width - left - right) * (x1 - x0);
      if (at < x0 || at > x1) return;
      cross.setAttribute("x1", x(at)); cross.setAttribute("x2", x(at)); cross.setAttribute("visibility", "visible");
      readout.textContent = `${x_text(at)} ${x_name}: ` + series.filter((s) => !s.faint).map((s) =>
        `${s.name} ${y_text(s.points.reduce((best, p) => Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best)[1])}`).join(" · ");
    });
    picture.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); readout.textContent = ""; });
    box.replaceChildren(picture);
  }
  let width = 0;
  new ResizeObserver(() => requestAnimationFrame(() => {
    if (box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      draw();
    }
  })).observe(box);
  return el("div", {}, box, readout);
}

// The mean of the points around each one, so that a noisy curve can be read.
function smooth(points) {
  const reach = Math.max(1, Math.round(points.length / 50));
  return points.map((p, i) => {
    const some = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [p[0], some.reduce((sum, q) => sum + q[1], 0) / some.length];
  });
}

// Two dots on the scale that all rows share: `ours` filled, `theirs` hollow.
function dumbbell(ours, theirs, low, high, color, label) {
  const x = (v) => 8 + (v - low) / (high - low || 1) * 224;
  return svg("svg", {viewBox: "0 0 240 24", width: 240, height: 24, role: "img", "aria-label": label},
    svg("line", {class: "grid", x1: 8, x2: 232, y1: 12, y2: 12}),
    is_number(theirs) && svg("line", {x1: x(ours), x2: x(theirs), y1: 12, y2: 12, style: {stroke: `rgb(${color})`, "stroke-width": 3, opacity: 0.4}}),
    is_number(theirs) && svg("circle", {cx: x(theirs), cy: 12, r: 5, style: {fill: "var(--panel)", stroke: "var(--muted)", "stroke-width": 2}}),
    svg("circle", {cx: x(ours), cy: 12, r: 6, style: {fill: `rgb(${color})`}}));
}

// One bar a component, as high as its share of the layer's picks; the line is an equal share.
function component_bars(picks, color_of, name_of) {
  const n = picks.length, whole = picks.reduce((a, b) => a + b, 0) || 1, shares = picks.map((p) => p / whole);
  const top = Math.max(...shares, 2 / n), width = 320, height = 64, step = width / n, y = (s) => height - s / top * (height - 4);
  return svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height, preserveAspectRatio: "none", role: "img",
    "aria-label": "Share of the picks by component: " + shares.map((s, c) => `${name_of(c)} ${percent(s)}`).join(", ")},
    shares.map((s, c) => svg("rect", {x: c * step + step * 0.1, width: step * 0.8, y: y(s), height: height - y(s), rx: Math.min(1.5, step / 4), style: {fill: `rgb(${color_of(c)})`}},
      svg("title", {}, `${name_of(c)}: ${percent(s)} of the picks, ${picks[c].toLocaleString("en")}`))),
    svg("line", {class: "cross", x1: 0, x2: width, y1: y(1 / n), y2: y(1 / n)}),
    svg("line", {class: "grid", x1: 0, x2: width, y1: height, y2: height}));
}
