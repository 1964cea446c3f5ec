"""How wide and deep must a router be? From the results of `./tessera compare configs/route` to table, figure, choice.

    ./tessera compare configs/route --out reports/route --runs runs/route
    python tools/route_report.py --time     # on a quiet machine: also measures the routers' times (bench route)
    python tools/route_report.py            # writes reports/route from what is there

Twice: in a model whose layers all have components, and in one whose first layer is dense, so that level 2 needs no
transformer of its own. In each, of each kind the cheapest router whose loss stays within 0.5 % of the best of both kinds
(upper end of the 95 % interval, paired bootstrap over documents and seeds) is chosen, and the two are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from compare_figures import COLORS, GRID, INK, svg_page, svg_text, ticks  # noqa: E402
from compare_report import head, pm, row, shown, shown_pair  # noqa: E402
from compare_statistics import DOMAINS, Results, bpb_change, mean_bpb, mean_sd  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = {"sweep": "sweep.svg", "dense_first": "dense_first.svg"}
KINDS = ("progressive", "monolithic")
OTHERS = "others"  # neither: shown beside them, never chosen
MOST_LOSS = 0.5  # per cent above the best
BYTES_A_TOKEN = {"code": 2.86, "mathematics": 2.57, "science": 3.19, "prose": 3.02}  # held-out text, as `./tessera data stats` says


def bench_route(source: Path, other: dict, *arguments: str) -> dict:
    """Times of the routers of a progressive config or run against a monolithic one's, in turns."""
    command = ["./tessera", "bench", "route", str(source.resolve()), "--monolithic-width", str(other["width"]),
               "--monolithic-layers", str(other["num_layers"]), "--json", *arguments]  # fmt: skip
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()[-1])


def against(plan: dict) -> dict[str, str]:
    """The monolithic router that each progressive one is held against."""
    return {name: variant["against"] for name, variant in plan["variants"].items() if "against" in variant}


def size_of(configs: Path, name: str) -> dict:
    router = json.loads((configs / f"{name}.json").read_text())["model"]["component_router"]
    return {"width": 0, "num_layers": 0} if router.get("kind") == "trunk" else router


def names_of(plan: dict) -> dict[str, list[str]]:
    names = {k: [n for n in plan["variants"] if n.startswith(k)] for k in KINDS}
    return names | {OTHERS: [n for n in plan["variants"] if not n.startswith(KINDS)]}


def require_pairs(plan: dict) -> None:
    names, pairs = names_of(plan), against(plan)
    if alone := {n for kind in KINDS for n in names[kind]} - set(pairs) - set(pairs.values()):
        sys.exit(f"error: plan.json holds {', '.join(sorted(alone))} against no other router, so it has no time")


def measure(configs: Path, names: dict[str, list[str]], pairs: dict[str, str], threads: int) -> dict:
    """ms of each variant: progressive ones and the monolithic ones that they are held against, in turns."""
    timing: dict = {"ms": {}}
    for ours, theirs in [*pairs.items(), *((next(iter(pairs)), other) for other in names[OTHERS])]:
        report = bench_route(configs / f"{ours}.json", size_of(configs, theirs), "--components", "32", "--repeats", "31", "--threads", str(threads))
        for name, kind in ((ours, "progressive"), (theirs, "monolithic")):
            if name in timing["ms"]:
                continue
            timing["ms"][name] = {w: report[f"{kind}_ms_{w}"] for w in ("prefill512", "prefill4096", "decode")}
        timing |= {k: report[k] for k in ("threads", "cpu", "commit")}
        print(f"{ours} {timing['ms'][ours]['prefill512']:.2f} ms, {theirs} {timing['ms'][theirs]['prefill512']:.2f} ms")
    return timing


def bench_trained(models: dict[str, Path], other: dict, data: Path, *arguments: str) -> dict:
    """Ratios of trained routers on documents, by number of components."""
    found = {n: bench_route(model, other, "--components", n, "--data", str(data.resolve()), "--repeats", "61", *arguments) for n, model in models.items()}
    return {what: {n: t[f"ratio_{what}"] for n, t in found.items()} for what in ("prefill512", "prefill4096", "decode")}


def quantised(models: dict[str, Path], bits: str, folder: Path) -> dict[str, Path]:
    made = {n: folder / f"{n}-q{bits}" for n in models}
    for n, out in made.items():
        subprocess.run(["./tessera", "quantize", str(models[n].resolve()), str(out), "--bits", bits], check=True, capture_output=True, cwd=ROOT)
    return made


def measure_chosen(given: argparse.Namespace, chosen: dict[str, str]) -> dict:
    """The chosen two in turns: routers of random weights (two domains always active) at four sizes, and, where their runs are there, the trained ones on
    held-out documents (one domain or two, as level 1 decides) against random weights in the same trunk (whose time depends on no weight); these in f32 and,
    both models whole, in 8 and 4 bits."""
    ours, other, threads = chosen["progressive"], size_of(given.configs, chosen["monolithic"]), ("--threads", str(given.threads))
    found = bench_route(given.configs / f"{ours}.json", other, "--repeats", "101", *threads)
    runs = {n: sorted(given.runs.glob(f"{ours}-[0-9]" if n == "32" else f"{ours}-of-{n}-[0-9]")) for n in found["by_components"]}
    if given.data.exists() and all(runs.values()):
        models = {n: r[0] for n, r in runs.items()}
        found["trained"] = bench_trained(models, other, given.data, *threads)
        for bits in ("8", "4"):
            with tempfile.TemporaryDirectory() as folder:
                found[f"trained_{bits}_bits"] = bench_trained(quantised(models, bits, Path(folder)), other, given.data, *threads)
    return found


def losses(names: list[str], results: Results) -> dict[str, dict]:
    """Of each variant with results: mean bits per byte, and its change against the best of the seeds that all have, over
    the seeds that it shares with that one (contenders are given more seeds than the rest)."""
    there = {n: results.by_variant[n] for n in names if n in results}
    common = set.intersection(*(set(seeds) for seeds in there.values())) if there else set()
    if not common:
        return {}
    best = min(there, key=lambda n: sum(mean_bpb(there[n][s]) for s in common))
    found = {}
    for n, seeds in there.items():
        shared = sorted(set(seeds) & set(there[best]))
        change = bpb_change([(seeds[s], there[best][s]) for s in shared], "heldout", DOMAINS)
        found[n] = {"bpb": mean_sd([mean_bpb(seeds[s]) for s in sorted(common)]), "seeds": len(shared), "best": best, "change": change}
    return found


def regret(ours: str, theirs: str, results: Results) -> str:
    """What the choices of a progressive router cost against the monolithic one that it is held against: nats a token, mean of the domains."""
    pairs = results.pair(ours, theirs)
    if not pairs:
        return "missing"
    nats = [math.log(2) * bytes_a_token * (a["bpb"][d] - b["bpb"][d]) for a, b in pairs for d, bytes_a_token in BYTES_A_TOKEN.items()]
    return f"{sum(nats) / len(nats):+.4f} ({shown(bpb_change(pairs, 'heldout', DOMAINS))})"


def suite_regret(out: Path) -> list[str]:
    """What level 1's decisions cost, from `eval --suite routing` of the seeds of mhc-75-100: nats a token, mean and 95 % interval over seeds (Student's t)."""
    suites = [json.loads(f.read_text()) for f in sorted(out.glob("suite-mhc-75-100-*.json"))]
    if len(suites) != 3:
        return []
    text = ["", "## What level 1's decisions cost", "",
            "`./tessera eval runs/compare/mhc-75-100-SEED --suite routing`, seeds 1 to 3: loss above that of the same text with another rule for the active domains, in nats a",
            "token (negative: the decisions are better), mean and 95 % interval over seeds. `best single`: the one domain that is best for the text, in hindsight; `uniform`: all.", ""]
    rules = ["oracle", "best_single", "uniform", "random"]
    text += head(["text", *(r.replace("_", " ") for r in rules)])
    for kind in suites[0]["regret"]:
        found = [kind]
        for rule in rules:
            values = [s["regret"][kind].get(rule) for s in suites]
            found.append("–" if None in values else f"{mean_sd(values)[0]:+.4f} ± {4.303 / 3**0.5 * mean_sd(values)[1]:.4f}")
        text.append(row(found))
    text += ["", "Level 1 right on " + ", ".join(f"{100 * s['accuracy_documents']:.1f}" for s in suites) + " % of held-out documents, calibration error "
             + ", ".join(f"{s['ece']:.3f}" for s in suites) + ", dead components " + ", ".join(str(s["dead_components"]) for s in suites) + "."]
    return text


def choose(names: dict[str, list[str]], loss: dict[str, dict], ms: dict[str, dict]) -> dict[str, str]:
    """Of each kind the cheapest (prefill of 512 tokens) that is good enough, of those with the most seeds; no entry: none is, or its time is unknown."""
    most_seeds = max((found["seeds"] for found in loss.values()), default=0)  # an interval over fewer seeds is narrower for no good reason
    good = {k: [n for n in names[k] if n in loss and n in ms and loss[n]["seeds"] == most_seeds and loss[n]["change"][2] <= MOST_LOSS] for k in KINDS}
    return {k: min(good[k], key=lambda n: ms[n]["prefill512"]) for k in KINDS if good[k]}


def figure(names: dict[str, list[str]], loss: dict[str, dict], ms: dict[str, dict], chosen: dict[str, str]) -> str:
    """Loss against time, a dot a router."""
    left, top, width, height = 70, 40, 460, 260
    points = {n: (ms[n]["prefill512"], loss[n]["change"][0]) for kind in names.values() for n in kind if n in loss and n in ms}
    out = [svg_text(left, 18, "bits per byte above the best router's, %, against ms for 512 tokens", weight=600)]
    if not points:
        return svg_page(left + width + 150, height + 90, out + [svg_text(left, top + 20, "no results yet")], "routers")
    x_high, y_high = 1.1 * max(x for x, _ in points.values()), max(MOST_LOSS, max(y for _, y in points.values())) * 1.1
    px = lambda x: left + width * x / x_high  # noqa: E731
    py = lambda y: top + height - height * y / y_high  # noqa: E731
    for t in ticks(0, y_high):
        out += [f'<path d="M{left} {py(t):.1f}h{width}" stroke="{GRID}"/>', svg_text(left - 6, py(t) + 4, f"{t:.3g}", "end")]
    for t in ticks(0, x_high):
        out.append(svg_text(px(t), top + height + 18, f"{t:.3g}", "middle"))
    for index, kind in enumerate(k for k in names if names[k]):
        color = COLORS[index]
        out.append(svg_text(left + width + 16, top + 20 + 20 * index, kind, color=color, weight=600))
        for name in names[kind]:
            if name not in points:
                continue
            x, y = px(points[name][0]), py(points[name][1])
            ring = f' stroke="{INK}" stroke-width="2"' if name in chosen.values() else ""
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}"{ring}><title>{escape(name)}</title></circle>',
                    svg_text(x + 8, y - 6, name.removeprefix(kind + "-"), color=color)]
    return svg_page(left + width + 150, height + 90, out, "loss against time of the routers")


def confirmed(group: dict, results: Results) -> list[str]:
    """Of the runs at more components: each progressive one's change against the monolithic one."""
    changes = [f"{ours} {shown_pair(results, ours, theirs)}" for ours, theirs in against(group).items() if results.pair(ours, theirs)]
    return [] if not changes else ["", "Confirming runs at more components, bits per byte against the monolithic one of as many (intervals over documents): " + "; ".join(changes) + "."]


def section(plan: dict, names: dict[str, list[str]], results: Results, loss: dict, timing: dict, chosen: dict[str, str], picture: str) -> list[str]:
    ms = timing.get("ms", {})
    measured = f"{timing['cpu']}, {timing['threads']} thread(s), commit {timing['commit']}, medians, each progressive router in turns with another one (whose first time is shown)" if ms else "not measured yet"
    text = [f"Times of the routers alone, in the engine: {measured}.", ""]
    text += head(["router", "", "seeds", "bits per byte", "change", "512 tokens, ms", "4,096 tokens, ms", "a token in decoding, ms"])
    for name in (n for kind in names.values() for n in kind):
        times = [f"{ms[name][w]:.{d}f}" if name in ms else "–" for w, d in (("prefill512", 2), ("prefill4096", 1), ("decode", 4))]
        about = plan["variants"][name]["about"]
        found = loss.get(name)
        figures = [str(found["seeds"]), pm(found["bpb"]), shown(found["change"])] if found else ["missing", "", ""]
        text.append(row([f"**{name}**" if name in chosen.values() else name, about, *figures, *times]))
    text += ["", "Regret of level 2's choices against the monolithic router's, nats a token: "
             + "; ".join(f"{ours} against {theirs} {regret(ours, theirs, results)}" for ours, theirs in against(plan).items()) + "."]  # fmt: skip
    text += ["", f"![loss against time]({picture})", "", f"Bold: of each kind the cheapest within {MOST_LOSS} % of the best (upper end of its interval)."]
    pair = timing.get("chosen", {})
    if pair.get("names") == chosen:  # measured against each other, in turns
        text.append(f"Progressive to monolithic, these two in turns: {pair['ratio_prefill512']:.2f} for 512 tokens, {pair['ratio_prefill4096']:.2f} for 4,096, "
                    f"{pair['ratio_decode']:.2f} in decoding (the published claim: 0.6). Time alone at more components, half of them general: " + "; ".join(
                        f"{what} " + ", ".join(f"{n}: {ratio:.2f}" for n, ratio in pair[key].items())
                        for what, key in (("512 tokens", "by_components"), ("4,096 tokens", "by_components_prefill4096"), ("decoding", "by_components_decode")) if key in pair) + ".")  # fmt: skip
        for weights, about in (("trained", "The same with the runs' own weights on held-out documents (the line above: random weights, two domains always active)"),
                               ("trained_8_bits", "Both models in 8 bits (`./tessera quantize`: level 2's heads too, where they read 128 numbers or more)"),
                               ("trained_4_bits", "Both models in 4 bits")):  # fmt: skip
            if trained := pair.get(weights):
                text.append(f"{about}: " + "; ".join(
                    f"{what} " + ", ".join(f"{n}: {ratio:.2f}" for n, ratio in trained[key].items())
                    for what, key in (("512 tokens", "prefill512"), ("4,096 tokens", "prefill4096"), ("decoding", "decode"))) + ".")  # fmt: skip
    for other in names[OTHERS]:  # what the comparison of the two kinds leaves out
        if other in ms and chosen.get("progressive") in ms:
            ratios = [ms[chosen["progressive"]][w] / ms[other][w] for w in ("prefill512", "prefill4096", "decode")]
            text.append(f"{chosen['progressive']} to {other} ({plan['variants'][other]['about']}), by the table: {ratios[0]:.2f} for 512 tokens, {ratios[1]:.2f} for 4,096, {ratios[2]:.2f} in decoding.")
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports/route")
    parser.add_argument("--configs", type=Path, default=ROOT / "configs/route")
    parser.add_argument("--time", action="store_true", help="measure the routers' times first")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/route", help="where `./tessera compare` trained; --time takes the chosen one's weights from it")
    parser.add_argument("--data", type=Path, default=ROOT / "data/full/built/heldout.jsonl.zst", help="documents for those")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    groups = json.loads((given.configs / "plan.json").read_text())
    given.out.mkdir(parents=True, exist_ok=True)
    timing_file = given.out / "routers_timing.json"
    timings = {g: t for g, t in (json.loads(timing_file.read_text()) if timing_file.exists() else {}).items() if g in SWEEPS}
    for group in SWEEPS:
        require_pairs(groups[group])
    results = Results(given.out / "results")
    text = ["# How wide and deep must a router be?", "",
            "Made by `python tools/route_report.py` from `results/` (`./tessera compare configs/route --out reports/route --runs runs/route`): 1M tokens each, the same in",
            "the same order for a seed, everything but the routers equal within a table. Bits per byte: mean of the four domains, held-out sources, over the seeds that all have. The change is",
            "against the best of the table, 95 % paired bootstrap over documents and the seeds shown, of which contenders have more.", ""]
    summary: dict = {}
    for group, picture in SWEEPS.items():
        plan = groups[group]
        names = names_of(plan)
        everyone = [n for kind in names.values() for n in kind]
        loss = losses(everyone, results)
        timing = measure(given.configs, names, against(plan), given.threads) if given.time else timings.get(group, {})
        chosen = choose(names, loss, timing.get("ms", {}))
        if given.time and len(chosen) == 2:
            timing["chosen"] = {"names": chosen, **measure_chosen(given, chosen)}
        timings[group] = timing
        if given.time:
            timing_file.write_text(json.dumps(timings, indent=1) + "\n")
        text += ["", f"## {plan['about'][0].upper()}{plan['about'][1:]}", ""]
        text += section(plan, names, results, loss, timing, chosen, picture)
        (given.out / picture).write_text(figure(names, loss, timing.get("ms", {}), chosen))
        summary[group] = {"variants": loss, "chosen": chosen, "timing": timing}
        print(f"{group}: {len(loss)} of {len(everyone)} routers have results; chosen: {chosen or 'none yet'}")
    text += confirmed(groups.get("confirm", {"variants": {}}), results) + suite_regret(given.out)
    (given.out / "README.md").write_text("\n".join(text) + "\n")
    (given.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
