"""From the results of `./tessera compare` to the table, the figures and the summary.

    python tools/compare_report.py                       # reads reports/compare/results, writes reports/compare
    python tools/compare_report.py --results DIR --out DIR
    python tools/compare_report.py --plan configs/compare-20m/plan.json    # writes reports/compare-20m

Writes README.md (tables, criteria), summary.json, criteria.json, curves.svg and ablations.svg. What has no result is
shown as missing. What the intervals are: compare_statistics.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from compare_figures import curves_svg, dots_svg  # noqa: E402
from compare_statistics import (  # noqa: E402
    DOMAINS, TASKS, Interval, Results, accuracy_change, by_source, change_by_t, change_of, mean_bpb, mean_sd, summary_of,
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED_GAIN = 12.0  # per cent: the published claim for cross-domain accuracy against the standard MoE


# ---- what is to be reached -----------------------------------------------------------------------------------------


def criteria(results: Results, planned: set[str]) -> list[dict]:
    """Those of planned variants, each with the figure, its interval and pass, fail or missing."""
    ours = "mhc-75-100"
    listed = [(f"no worse than flat-32 in {d}: upper end at most +0.5 %", ours, "flat-32", d, lambda i: i[2] <= 0.5) for d in DOMAINS]
    listed += [
        ("no worse than flat-32 on spliced text: upper end at most +0.5 %", ours, "flat-32", "spliced", lambda i: i[2] <= 0.5),
        ("better than flat-32 across domains, bits per byte: upper end below 0", ours, "flat-32", "cross", lambda i: i[2] < 0),
        ("better than flat-32 across domains, accuracy: lower end above 0", ours, "flat-32", "accuracy", lambda i: i[1] > 0),
        ("better than flat-24 in the mean: upper end below 0", ours, "flat-24", "mean", lambda i: i[2] < 0),
        ("sharing (with the hierarchy) better than hierarchy without sharing: upper end below 0", ours, "hierarchy-no-sharing", "mean", lambda i: i[2] < 0),
        ("sharing (alone) better than hierarchy without sharing: upper end below 0", "sharing-no-hierarchy", "hierarchy-no-sharing", "mean", lambda i: i[2] < 0),
        ("within 1 % of flat-32-plan: upper end at most +1 %", ours, "flat-32-plan", "mean", lambda i: i[2] <= 1.0),
        ("better than flat-30-dense-first, as large and with such a first layer, in the mean: upper end below 0", ours, "flat-30-dense-first", "mean", lambda i: i[2] < 0),
        ("better than flat-30-dense-first across domains, bits per byte: upper end below 0", ours, "flat-30-dense-first", "cross", lambda i: i[2] < 0),
        ("better than flat-30-dense-first across domains, accuracy: lower end above 0", ours, "flat-30-dense-first", "accuracy", lambda i: i[1] > 0),
        ("within 1 % of flat-64, as fine and a third larger: upper end at most +1 %", ours, "flat-64", "mean", lambda i: i[2] <= 1.0),
    ]
    # Held to what mhc-75-100 is held to, with 61 % of flat-32's weights instead of 75 %. A flat MoE loses by a livelier bias, so it keeps its own.
    for trunk in ("mhc-trunk", "mhc-trunk-balanced", "mhc-trunk-no-sharing-balanced"):
        listed += [(f"{trunk}: no worse than flat-32 in {d}: upper end at most +0.5 %", trunk, "flat-32", d, lambda i: i[2] <= 0.5) for d in DOMAINS]
        listed += [
            (f"{trunk}: better than flat-32 across domains, bits per byte: upper end below 0", trunk, "flat-32", "cross", lambda i: i[2] < 0),
            (f"{trunk}: better than flat-24 in the mean: upper end below 0", trunk, "flat-24", "mean", lambda i: i[2] < 0),
            (f"{trunk}: better than flat-24-dense-first, as large and with such a first layer, in the mean: upper end below 0", trunk, "flat-24-dense-first", "mean", lambda i: i[2] < 0),
            (f"{trunk}: better than without sharing: upper end below 0", trunk, trunk.replace("trunk", "trunk-no-sharing", 1), "mean", lambda i: i[2] < 0),
        ][: 3 if "no-sharing" in trunk else 4]
    rows = []
    for name, a, b, what, passes in (line for line in listed if {line[1], line[2]} <= planned):
        pairs = results.pair(a, b)
        if what == "spliced":  # of results of before there was such text, only those whose runs were still there have it
            pairs = [pair for pair in pairs if all("spliced" in r["details"] for r in pair)]
        row = {"criterion": name, "ours": a, "theirs": b, "seeds": len(pairs), "status": "missing"}
        if pairs:
            change = change_of(pairs, what)
            by_t = change_by_t(pairs, what)
            if what not in ("accuracy", "spliced"):
                row["source_interval_percent"] = list(change_of(pairs, what, "source")[1:])
            row |= {"change_percent": change[0], "interval_percent": list(change[1:]), "status": "pass" if passes(change) else "fail",
                    "t_interval_percent": by_t and list(by_t[1:]), "t_status": by_t and ("pass" if passes(by_t) else "fail")}
        rows.append(row)
    return rows


# ---- the page ------------------------------------------------------------------------------------------------------


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def head(cells: list[str]) -> list[str]:
    return [row(cells), row(["---"] + ["---:"] * (len(cells) - 1))]


def millions(count: float) -> str:
    return f"{count / 1e6:.2f}M"


def shown(change: Interval) -> str:
    return f"{change[0]:+.2f} % [{change[1]:+.2f}, {change[2]:+.2f}]"


def span(change: Interval | None) -> str:
    return f"[{change[1]:+.2f}, {change[2]:+.2f}]" if change else "–"


def shown_pair(results: Results, ours: str, theirs: str, seed: int | None = None) -> str:
    pairs = [pair for pair in results.pair(ours, theirs) if seed in (None, pair[0]["seed"])]
    return shown(change_of(pairs, "mean")) if pairs else "missing"


def pm(value: list[float], digits: int = 4, scale: float = 1) -> str:
    return f"{scale * value[0]:.{digits}f}" + (f" ± {scale * value[1]:.{digits}f}" if value[1] else "")


def dead(tabled: list[dict]) -> str:
    """Components under 0.1 % of their own domain's tokens, least and most over the seeds, and of how many; nothing for a dense model."""
    statistics = [r["route_statistics"] for r in tabled if r.get("route_statistics", {}).get("components")]
    if not statistics:
        return "–"
    counts = sorted({s["dead_components"] for s in statistics})
    return f"{'–'.join(str(c) for c in (counts[0], counts[-1])[: len(counts)])} of {sum(len(layer) for layer in statistics[0]['components'])}"


def variant_table(names: list[str], results: Results, plan: dict, speeds: dict, group: str = "") -> list[str]:
    lines = head(["variant", "seeds", "tokens", "total", "active", "dead", "tokens/s", *DOMAINS, "mean", "cross", "spliced", "choices %", "by gain %"])
    for name in names:
        if name not in results:
            lines.append(row([name] + ["missing"] + [""] * 14))
            continue
        tabled = results.tabled(name, plan, group)
        s = summary_of(tabled)
        mean = mean_sd([mean_bpb(r) for r in tabled])
        speed = speeds.get(name, {}).get("tokens_per_s")
        lines.append(row([name, str(s["seeds"]), millions(s["tokens"]), millions(s["total_parameters"]), millions(s["active_parameters"]), dead(tabled),
                          f"{speed:,.0f}" if speed else "–", *[pm(s["bpb"][d]) for d in DOMAINS], pm(mean), pm(s["cross_bpb"]), pm(s["spliced_bpb"]) if s["spliced_bpb"] else "–",
                          pm(s["cross_accuracy"], 2, 100), pm(s["cross_accuracy_by_gain"], 2, 100)]))
    return lines


def per_seed_table(names: list[str], results: Results) -> list[str]:
    lines = head(["variant, seed", *DOMAINS, "mean", "cross", *[f"{t} %" for t in TASKS], "batches", "device", "commit"])
    for name in names:
        for r in results[name] if name in results else []:
            lines.append(row([f"{name}, {r['seed']}", *[f"{r['bpb'][d]:.4f}" for d in DOMAINS], f"{mean_bpb(r):.4f}", f"{r['cross_bpb']:.4f}",
                              *[f"{100 * r['cross_accuracy'][t]:.1f}" for t in TASKS], r["batch_hash"][:8], r["config"]["train"]["device"], r["commit"]]))
    return lines


def pair_table(core: list[str], results: Results) -> list[str]:
    """Changes of mhc-75-100 against every core variant, and of its kin against their rivals."""
    rivals = {"mhc-75-100": [n for n in core if n != "mhc-75-100"]}
    rivals |= {n: ["flat-32", "flat-24", "hierarchy-no-sharing"] for n in ("less-sharing", "shared-by-two")}
    rivals |= {f"mhc-trunk{kind}": ["flat-32", "flat-24", "flat-24-dense-first", f"mhc-trunk-no-sharing{kind}"] for kind in ("", "-balanced")}
    rivals["mhc-trunk-balanced"].append("mhc-trunk")
    rivals["mhc-trunk-no-sharing-balanced"] = ["flat-32", "flat-24", "flat-24-dense-first"]
    rivals |= {"mhc-progressive": ["mhc-trunk", "flat-32", "flat-24"]}
    lines = head(["variant", "against", "seeds", "mean bits/byte", "by seed", "by source", "by t", "cross bits/byte", "by source", "by t", "choices"])
    for ours, others in rivals.items():
        for theirs in others:
            if pairs := results.pair(ours, theirs):
                by_seed = ", ".join(f"{100 * (mean_bpb(a) / mean_bpb(b) - 1):+.2f}" for a, b in pairs)
                spans = {w: [shown(change_of(pairs, w)), span(change_of(pairs, w, "source")), span(change_by_t(pairs, w))] for w in ("mean", "cross")}
                spans["mean"].insert(1, by_seed)
                lines.append(row([ours, theirs, str(len(pairs)), *spans["mean"], *spans["cross"], shown(change_of(pairs, "accuracy"))]))
    return lines if len(lines) > 2 else []


def ablation_rows(group: dict, results: Results) -> list[dict]:
    rows = []
    for name, about in group["variants"].items():
        if "against" not in about:
            continue
        pairs = results.pair(name, about["against"])
        rows.append({"variant": name, "against": about["against"], "about": about.get("about", ""), "seeds": len(pairs),
                     **({w: change_of(pairs, w) for w in ("mean", "cross", "accuracy")} if pairs else {})})
    return rows


def ablation_table(rows: list[dict]) -> list[str]:
    lines = head(["variant", "against", "what", "seeds", "mean bits/byte", "cross bits/byte", "choices"])
    for r in rows:
        figures = [shown(r[w]) if w in r else "missing" for w in ("mean", "cross", "accuracy")]
        lines.append(row([r["variant"], r["against"], r["about"], str(r["seeds"]), *figures]))
    return lines


def size_table(results: Results) -> list[str]:
    lines = head(["variant", "width", "its total / flat-32's", "mean bits/byte", "cross bits/byte", "choices"])
    for variant in ("mhc-75-100", "mhc-trunk"):
        for width, suffix in (("128", "-d128"), ("192", "-2m"), ("256", "-d256")):
            pairs = results.pair(variant + suffix, "flat-32" + suffix)
            if not pairs:
                lines.append(row([variant, width, "missing", "", "", ""]))
                continue
            a, b = pairs[0]
            lines.append(row([variant, width, f"{millions(a['total_parameters'])} / {millions(b['total_parameters'])}",
                              *[shown(change_of(pairs, w)) for w in ("mean", "cross", "accuracy")]]))
    return lines


def source_table(results: Results) -> list[str]:
    """Change of each held-out source's bits: whether a mean is of many sources or of one."""
    listed = [("mhc-75-100", "flat-32"), ("mhc-trunk", "flat-32"), ("mhc-trunk-balanced", "flat-32"), ("mhc-trunk-balanced", "flat-24"), ("mhc-trunk-no-sharing-balanced", "flat-32")]
    changes = {f"{ours} / {theirs}": by_source(pairs) for ours, theirs in listed if (pairs := results.pair(ours, theirs))}
    if not changes:
        return []
    lines = ["", "## By source", "", "Change of the bits of each held-out source, %, mean over the seeds.", ""] + head(["domain, source", *changes])
    return lines + [row([", ".join(key), *[f"{change[key]:+.2f}" for change in changes.values()]]) for key in next(iter(changes.values()))]


def criteria_table(rows: list[dict]) -> list[str]:
    text = head(["criterion", "status", "change", "seeds", "by source", "by t over seeds"])
    for r in rows:
        change = shown((r["change_percent"], *r["interval_percent"])) if "change_percent" in r else ""
        by_t = f"{r['t_status']} {span((0.0, *r['t_interval_percent']))}" if r.get("t_status") else "–"
        text.append(row([r["criterion"], r["status"], change, str(r["seeds"]), span((0.0, *r["source_interval_percent"])) if "source_interval_percent" in r else "–", by_t]))
    return text


def page(plan: dict, results: Results, rows: list[dict], ablations: list[dict], timing: dict) -> str:
    core, others = list(plan["core"]["variants"]), [n for g in ("ablations", "sizes") if g in plan for n in plan[g]["variants"]]
    speeds = timing.get("variants", {})
    counts = next((r["items"] for v in results.by_variant.values() for r in v.values()), {})
    others_text = [n for n in ("no-splices", "mixed-documents", "flat-32-mixed-documents") if n in results]
    everyone = f"All variants but {', '.join(f'`{n}`' for n in others_text)}, which draw other text" if others_text else "All variants"
    if distilled := [n for n in ("mhc-progressive", "distilled-level1") if n in results]:
        everyone += f" ({', '.join(f'`{n}`' for n in distilled)}: after a level 1 that was distilled on the same set beforehand)"
    text = ["# mHC against its baselines", "", *([plan["about"] + ".", ""] if "about" in plan else []),
            f"Made by `python tools/compare_report.py` from `results/`, which `./tessera compare` writes. {everyone}: the same tokens in the",
            "same order for a seed (the hash of the batches is in each result), the same optimizer recipe. Bits per byte on samples of every held-out source;",
            "`cross`: vignettes and notebooks that mix domains; `spliced`: 2 to 4 pieces of held-out documents of any domain; `choices`: cross-domain four-way multiple choice, mean of the three tasks, length-normalised",
            f"(log-probability a byte), chance 25.00 %, and `by gain`, log p(answer | context) - log p(answer); items: {', '.join(f'{t} {n}' for t, n in counts.items()) or 'none yet'}. Mean ± standard deviation over the seeds that all have; more seeds of some are in the pairs below.",
            "`dead`: components that take under 0.1 % of their own domain's tokens, least and most over the seeds.",
            "How to read it: the bootstrap draws documents as if independent, and seeds of which there are few, so its intervals are too narrow. `by source` draws the sources (3 to 10 a domain) instead of the documents;",
            "`by t` is Student's t over the seeds' changes, as wide as so few allow. Designs were chosen on these same held-out texts. Some runs were made on a GPU, some on CPUs, over weeks of changes to the program:",
            "rounding alone moves the mean by 0.1 %.",
            "Where `choices` are at chance, read nothing into differences of them.",
            f"tokens/s: {timing['machine'] + ', commit ' + timing['commit'] if timing else 'not measured (./tessera compare --time)'}.", ""]
    text += variant_table(core, results, plan, speeds)
    text += ["", *[f"- `{name}`: {about['about']}." for name, about in plan["core"]["variants"].items() if "about" in about]]
    text += ["", "![learning curves](curves.svg)", "", "Learning curves are of a few held-out sources (until 2026-11-28 the first of each domain alone), the tables of all.", ""] + pair_table(core, results) + ["", "## To reach", "",
            "Change of mhc-75-100 (or what is named) against the other; `status` is by the 95 % paired bootstrap over documents and seeds, the last columns as above.",
            ""]
    text += criteria_table(rows)
    if "coarse" in results:
        text += ["", "mhc-75-100 is the third of that name, chosen on seeds 1 and 2: the first had a heavier level 1 (`heavy-level1`), the second 32 components instead of 64 (`coarse`; against flat-32",
                 f"{shown_pair(results, 'coarse', 'flat-32')} in the mean). Seed 3 came after the choice: {shown_pair(results, 'mhc-75-100', 'flat-32', 3)} in the mean. `flat-64` is a flat MoE as fine."]
    pairs = results.pair("mhc-75-100", "flat-32")
    gain = shown(accuracy_change(pairs)) if pairs else "missing"
    by_gain = shown(accuracy_change(pairs, "choices_by_gain")) if pairs else "missing"
    text += ["", f"Cross-domain accuracy of mhc-75-100 relative to flat-32: {gain} (by gain: {by_gain}); the published claim is +{PUBLISHED_GAIN:.0f} %."]
    text += source_table(results)
    if "balanced" in plan:
        text += ["", "## With a livelier selection bias", "", plan["balanced"]["about"][:1].upper() + plan["balanced"]["about"][1:] + ".", ""]
        text += variant_table(list(plan["balanced"]["variants"]), results, plan, speeds)
    if "more seeds" in plan:
        names = [n for g in ("more seeds", "balanced") if g in plan for n in plan[g]["variants"]]
        every = results.seeds_of_all([n for n in names if n in results])
        text += ["", "## What the headline pairs are made of", "", f"Over the seeds that all of these have: {', '.join(map(str, every))}.", ""]
        text += variant_table(names, results, plan | {"all": {"seeds": every}}, speeds, "all")
    if "ablations" in plan:
        text += ["", "## Ablations", "", "2M tokens unless it says otherwise; of one seed the interval is over documents alone.", ""]
        text += ablation_table(ablations) + ["", "![ablations](ablations.svg)", ""] + variant_table(others, results, plan, speeds)
    if "sizes" in plan:
        text += ["", "## Does the gap grow with size?", "", "Against flat-32 at 2M tokens, one seed.", ""] + size_table(results)
    rewritten = sorted({"0a26ffe", "669534e"} & {r["commit"] for v in results.by_variant.values() for r in v.values()})
    note = f" {', '.join(rewritten)}: rewritten before publication; the configs are in the results." if rewritten else ""
    text += ["", "## Every run", "", "`commit` is where its training began; a + behind it: with changes that were not committed." + note, ""] + per_seed_table(core + list(plan.get("balanced", {"variants": []})["variants"]) + others, results)
    return "\n".join(text) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="folder of result files (default: OUT/results)")
    parser.add_argument("--out", type=Path, help="default: reports/ and the name of the plan's folder")
    parser.add_argument("--plan", type=Path, default=ROOT / "configs/compare/plan.json")
    given = parser.parse_args(arguments)
    given.out = given.out or ROOT / "reports" / given.plan.resolve().parent.name
    plan = json.loads(given.plan.read_text())
    results = Results(given.results or given.out / "results")
    timing_file = given.out / "timing.json"
    timing = json.loads(timing_file.read_text()) if timing_file.exists() else {}
    order = [n for g in ("core", "balanced", "ablations", "sizes") if g in plan for n in plan[g]["variants"]]
    summary = {"variants": {n: summary_of(results.tabled(n, plan)) for n in order if n in results}}
    rows = criteria(results, set(order))
    ablations = ablation_rows(plan["ablations"], results) if "ablations" in plan else []
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (given.out / "criteria.json").write_text(json.dumps(rows, indent=1) + "\n")
    (given.out / "README.md").write_text(page(plan, results, rows, ablations, timing))
    curves = {n: [r["curve"] for r in results.tabled(n, plan, "core")] for g in ("core", "balanced") if g in plan for n in plan[g]["variants"] if n in results}
    (given.out / "curves.svg").write_text(curves_svg(curves, DOMAINS))
    if ablations:
        (given.out / "ablations.svg").write_text(dots_svg([(r["variant"], r["against"], r["mean"]) for r in ablations if "mean" in r]))
    print(f"{sum(map(len, results.by_variant.values()))} results; " + ", ".join(f"{s} {sum(r['status'] == s for r in rows)}" for s in ("pass", "fail", "missing")))
    for r in rows:
        print(f"  {r['status']:<8}{r['criterion']}" + (f"  ({r['change_percent']:+.2f} %)" if "change_percent" in r else ""))
    print(f"written to {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
