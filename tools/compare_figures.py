"""The figures of compare_report.py: SVG by hand, readable on light and dark pages."""

from __future__ import annotations

from html import escape

COLORS = ("#2563cd", "#c96308", "#0d8070", "#b2286e", "#6d3fc9", "#7a6a00", "#b4322c", "#54621c")
INK, GRID = "#6b7079", "#8888883a"
Point = tuple[float, float]


def stroke(index: int) -> str:
    """Of the index-th line: a colour, and dashes when the colours begin again."""
    return f'stroke="{COLORS[index % len(COLORS)]}"' + (' stroke-dasharray="5 3"' if index >= len(COLORS) else "")


def svg_text(x: float, y: float, text: str, anchor: str = "start", color: str = INK, weight: int = 400) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-weight="{weight}">{escape(text)}</text>'


def svg_page(width: int, height: int, parts: list[str], title: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="system-ui, DejaVu Sans, sans-serif" font-size="12" role="img"><title>{escape(title)}</title>\n' + "\n".join(parts) + "\n</svg>\n")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    raw = (high - low) / count
    magnitude = 10.0 ** int(f"{raw:e}".split("e")[1])
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first = int(low / step) * step
    return [t for t in (first + i * step for i in range(20)) if low - 1e-9 <= t <= high + 1e-9]


def _panel(left: float, top: float, width: float, height: float, title: str, lines: dict[str, list[list[Point]]]) -> list[str]:
    """Line chart; of each name the curves of its seeds: their mean as a line, the range as a band."""
    points = [p for curves in lines.values() for curve in curves for p in curve[1:] or curve]
    if not points:
        return [svg_text(left, top + 14, title, weight=600), svg_text(left, top + 34, "no results yet")]
    x_high = max(p[0] for p in points)
    y_low, y_high = min(p[1] for p in points), max(p[1] for p in points)
    pad = 0.05 * (y_high - y_low) or 0.01
    y_low, y_high = y_low - pad, y_high + pad
    px = lambda x: left + width * x / x_high  # noqa: E731
    py = lambda y: top + height - height * (min(y, y_high) - y_low) / (y_high - y_low)  # noqa: E731
    out = [svg_text(left, top - 8, title, weight=600)]
    for t in ticks(y_low, y_high):
        out += [f'<path d="M{left:.1f} {py(t):.1f}h{width:.1f}" stroke="{GRID}"/>', svg_text(left - 5, py(t) + 4, f"{t:.4g}", "end")]
    for t in ticks(0, x_high):
        out.append(svg_text(px(t), top + height + 16, f"{t / 1e6:.3g}M", "middle"))
    for index, curves in enumerate(lines.values()):
        color = COLORS[index % len(COLORS)]
        steps = list(zip(*curves))
        mean = [(s[0][0], sum(p[1] for p in s) / len(s)) for s in steps]
        if len(curves) > 1:
            upper = [f"{px(s[0][0]):.1f} {py(max(p[1] for p in s)):.1f}" for s in steps]
            lower = [f"{px(s[0][0]):.1f} {py(min(p[1] for p in s)):.1f}" for s in reversed(steps)]
            out.append(f'<path d="M{"L".join(upper + lower)}Z" fill="{color}" opacity="0.15"/>')
        path = "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in mean)
        out.append(f'<path d="M{path}" fill="none" {stroke(index)} stroke-width="1.8"/>')
    return out


def curves_svg(curves: dict[str, list[list[dict]]], domains: tuple[str, ...]) -> str:
    """`curves`: by variant, of each seed [{"tokens", "bpb": {domain: x}, "mean": x}]."""

    def lines(value) -> dict[str, list[list[Point]]]:
        return {name: [[(p["tokens"], value(p)) for p in seed] for seed in seeds] for name, seeds in curves.items()}

    width, height = 270, 190
    out: list[str] = []
    panels = [("mean of the domains", lambda p: p["mean"])] + [(d, lambda p, d=d: p["bpb"].get(d, 0)) for d in domains]
    for index, (title, value) in enumerate(panels):
        out += _panel(48 + (index % 3) * (width + 55), 30 + (index // 3) * (height + 60), width, height, title, lines(value))
    left, top = 48 + 2 * (width + 55), 30 + height + 60
    for index, name in enumerate(curves):
        y = top + 20 + 20 * index
        out += [f'<path d="M{left} {y - 4}h22" {stroke(index)} stroke-width="2.5"/>',
                svg_text(left + 30, y, f"{name} ({len(curves[name])} seed{'s' * (len(curves[name]) > 1)})")]
    below = top + 20 * len(curves) + 20
    for index, text in enumerate(("up: bits per byte, along: tokens trained on;", "line: mean of the seeds, band: their range")):
        out.append(svg_text(left, below + 18 * index, text))
    return svg_page(48 + 3 * (width + 55), max(2 * (height + 60), below + 20) + 20, out, "held-out bits per byte while training, by tokens")


def dots_svg(rows: list[tuple[str, str, tuple[float, float, float]]]) -> str:
    """Change in per cent with its interval, a row a variant; left of zero is better."""
    left, width, step = 230, 480, 24
    height = 50 + step * max(1, len(rows))
    out = [svg_text(left, 18, "change of mean bits per byte against the reference, % (left of 0: better)", weight=600)]
    if not rows:
        out.append(svg_text(left, 44, "no results yet"))
    extent = max([0.1] + [abs(v) for _, _, change in rows for v in change]) * 1.08
    px = lambda v: left + width / 2 + width / 2 * v / extent  # noqa: E731
    for t in ticks(-extent, extent, 6):
        out += [f'<path d="M{px(t):.1f} 28V{height - 18}" stroke="{INK if abs(t) < 1e-9 else GRID}"/>', svg_text(px(t), height - 4, f"{t:+.3g}", "middle")]
    for index, (name, against, (value, low, high)) in enumerate(rows):
        y = 44 + step * index
        color = COLORS[2] if high < 0 else COLORS[6] if low > 0 else INK
        out += [svg_text(left - 10, y + 4, name, "end"), f'<path d="M{px(low):.1f} {y}H{px(high):.1f}" stroke="{color}" stroke-width="2"/>',
                f'<circle cx="{px(value):.1f}" cy="{y}" r="4" fill="{color}"><title>{escape(against)}</title></circle>']
    return svg_page(left + width + 40, height, out, "ablations")
