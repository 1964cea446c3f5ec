"""What `./tessera compare`'s results say of one variant, and of one beside another.

Intervals: 95 %, paired bootstrap (percentile) over documents (or items) and seeds together; beside it the same over
sources instead of documents, and Student's t over the seeds' changes, which knows that three seeds are few.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np

DOMAINS = ("code", "mathematics", "science", "prose")
TASKS = ("docstring", "code", "formula")
RESAMPLES = 4000
Interval = tuple[float, float, float]  # estimate, lower, upper
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # by number of seeds: the 97.5 % point of t


class Results:
    """The result files by variant and seed, checked to be of the same data, batches and evaluation."""

    def __init__(self, folder: Path) -> None:
        self.by_variant: dict[str, dict[int, dict]] = defaultdict(dict)
        seen: dict[object, tuple[str, str]] = {}
        for path in sorted(folder.glob("*.json")):
            result = json.loads(path.read_text())
            drawn = (result["seed"], result["steps"], json.dumps({k: v for k, v in result["config"]["data"].items() if k != "path"}, sort_keys=True))
            for what, key in (("data_hash", result["config"]["data"].get("path")), ("suite_hash", "suite"), ("batch_hash", drawn), ("spliced_hash", "spliced")):
                if what not in result:
                    continue  # made before there was spliced text
                first = seen.setdefault((what, key), (result[what], path.name))
                if first[0] != result[what]:
                    raise SystemExit(f"error: {path.name} and {first[1]} differ in {what}: they are not comparable\n"
                                     f"hint:  remove the one that is stale and run ./tessera compare again")
            self.by_variant[result["variant"]][result["seed"]] = result

    def __contains__(self, variant: str) -> bool:
        return variant in self.by_variant

    def __getitem__(self, variant: str) -> list[dict]:
        return [result for _, result in sorted(self.by_variant[variant].items())]

    def tabled(self, variant: str, plan: dict, group: str = "") -> list[dict]:
        """Those of the group's seeds, for means over other seeds can't be compared. Of an ablation all."""
        group = group or next((g for g in ("core", "balanced") if variant in plan.get(g, {"variants": ()})["variants"]), "")
        return [result for result in self[variant] if not group or result["seed"] in plan[group]["seeds"]]

    def seeds_of_all(self, variants: list[str]) -> list[int]:
        return sorted(set.intersection(*(set(self.by_variant[v]) for v in variants))) if variants else []

    def pair(self, ours: str, theirs: str) -> list[tuple[dict, dict]]:
        """The results of both on the seeds that both have."""
        if ours not in self or theirs not in self:
            return []
        common = sorted(self.by_variant[ours].keys() & self.by_variant[theirs].keys())
        return [(self.by_variant[ours][s], self.by_variant[theirs][s]) for s in common]


# ---- paired bootstrap ----------------------------------------------------------------------------------------------


def draws(count: int, rng: np.random.Generator) -> np.ndarray:
    """[RESAMPLES, count] how often each of `count` things is drawn, with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def interval(estimate: float, samples: np.ndarray) -> Interval:
    lower, upper = np.percentile(samples, [2.5, 97.5])
    return float(estimate), float(lower), float(upper)


def bits_by_domain(results: list[dict], part: str, of: str = "document") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each domain: bits [seeds, documents] and bytes [documents]; or of its sources instead."""
    bits, size = {}, {}
    first = results[0]["details"][part]
    domain = np.array(first["domain"])
    for index, name in enumerate(first["domains"]):
        bits[name] = np.array([np.array(r["details"][part]["bits"])[domain == index] for r in results])
        size[name] = np.array(first["bytes"], dtype=float)[domain == index]
        if of == "source":
            sources = np.array(first["source"])[domain == index]
            is_of = (sources[:, None] == np.unique(sources)).astype(float)  # [documents, sources]
            bits[name], size[name] = bits[name] @ is_of, size[name] @ is_of
    return bits, size


def by_name(bits_domains: list[dict], part: str) -> None:
    """The domains' order differs with the model; brings all to the first one's."""
    order = bits_domains[0]["details"][part]["domains"]
    for result in bits_domains[1:]:
        details = result["details"][part]
        if details["domains"] != order:
            details["domain"] = [order.index(details["domains"][d]) for d in details["domain"]]
            details["domains"] = order


def bpb_change(pairs: list[tuple[dict, dict]], part: str, domains: tuple[str, ...], of: str = "document") -> Interval:
    """Change of bits per byte in per cent, ours against theirs: the mean over `domains` of the domains' bits per byte. What is drawn beside seeds: documents, or sources."""
    rng = np.random.default_rng(1)
    by_name([r for pair in pairs for r in pair], part)
    ours, size = bits_by_domain([a for a, _ in pairs], part, of)
    theirs, _ = bits_by_domain([b for _, b in pairs], part, of)
    seeds = draws(len(pairs), rng) / len(pairs)
    total = {"ours": 0.0, "theirs": 0.0}
    sampled = {"ours": np.zeros(RESAMPLES), "theirs": np.zeros(RESAMPLES)}
    for domain in domains:
        documents = draws(len(size[domain]), rng)
        for who, bits in (("ours", ours[domain]), ("theirs", theirs[domain])):
            total[who] += bits.sum() / size[domain].sum() / len(pairs)
            sampled[who] += ((documents @ bits.T) * seeds).sum(1) / (documents @ size[domain])
    return interval(100 * (total["ours"] / total["theirs"] - 1), 100 * (sampled["ours"] / sampled["theirs"] - 1))


@lru_cache
def items_drawn(num_pairs: int, counts: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """How often each seed is drawn, and each item of each task: drawing takes most of the time, and many pairs share it."""
    rng = np.random.default_rng(2)
    return draws(num_pairs, rng), [draws(count, rng).astype(np.uint8) for count in counts]


def accuracy_change(pairs: list[tuple[dict, dict]], judged: str = "choices") -> Interval:
    """Relative change in per cent of the mean accuracy over the tasks; `judged`: "choices" or "choices_by_gain"."""
    tasks = [task for task in TASKS if pairs[0][0]["details"][judged][task]]  # a data set may give no such items
    seeds, drawn = items_drawn(len(pairs), tuple(len(pairs[0][0]["details"][judged][task]) for task in tasks))
    seeds = seeds / len(pairs)
    total, sampled = np.zeros(2), np.zeros((2, RESAMPLES))
    for task, times in zip(tasks, drawn):
        right = [np.array([[c == "1" for c in r["details"][judged][task]] for r in side], dtype=float) for side in zip(*pairs)]
        items = times / len(right[0][0])
        for who in range(2):
            total[who] += right[who].mean()
            sampled[who] += ((items @ right[who].T) * seeds).sum(1)
    return interval(100 * (total[0] / total[1] - 1), 100 * (sampled[0] / sampled[1] - 1))


def change_by_t(pairs: list[tuple[dict, dict]], what: str) -> Interval | None:
    """The mean of the seeds' changes in per cent, and its interval by Student's t: documents as they are, seeds as drawn."""
    if len(pairs) not in STUDENT:
        return None
    changes = [100 * (figure(a, what) / figure(b, what) - 1) for a, b in pairs]
    half = STUDENT[len(pairs)] * np.std(changes, ddof=1) / np.sqrt(len(pairs))
    return float(np.mean(changes)), float(np.mean(changes) - half), float(np.mean(changes) + half)


def change_of(pairs: list[tuple[dict, dict]], what: str, of: str = "document") -> Interval:
    if what == "accuracy":
        return accuracy_change(pairs)
    if what in ("cross", "spliced"):
        return bpb_change(pairs, what, (what,), of)
    return bpb_change(pairs, "heldout", DOMAINS if what == "mean" else (what,), of)


def by_source(pairs: list[tuple[dict, dict]]) -> dict[tuple[str, str], float]:
    """{(domain, source): change of its bits in per cent, mean over the seeds}."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair in pairs:
        for who, result in enumerate(pair):
            details = result["details"]["heldout"]
            for domain, source, bits in zip(details["domain"], details["source"], details["bits"]):
                sums[details["domains"][domain], details["sources"][source]][who] += bits
    return {key: 100 * (ours / theirs - 1) for key, (ours, theirs) in sorted(sums.items())}


# ---- figures of one variant ----------------------------------------------------------------------------------------


def mean_sd(values: list[float]) -> list[float | None]:
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None]


def mean_bpb(result: dict) -> float:
    return float(np.mean([result["bpb"][d] for d in DOMAINS]))


def figure(result: dict, what: str) -> float:
    if what == "mean":
        return mean_bpb(result)
    if what == "accuracy":
        return result["cross_accuracy"]["mean"]
    return result[f"{what}_bpb"] if what in ("cross", "spliced") else result["bpb"][what]


def summary_of(results: list[dict]) -> dict:
    return {
        "seeds": len(results),
        "tokens": results[0]["tokens"],
        "total_parameters": results[0]["total_parameters"],
        "active_parameters": results[0]["active_parameters"],
        "bpb": {d: mean_sd([r["bpb"][d] for r in results]) for d in DOMAINS},
        "cross_bpb": mean_sd([r["cross_bpb"] for r in results]),
        "spliced_bpb": mean_sd([r["spliced_bpb"] for r in results if "spliced_bpb" in r]) if any("spliced_bpb" in r for r in results) else None,
        "cross_accuracy": mean_sd([r["cross_accuracy"]["mean"] for r in results]),
        "cross_accuracy_by_gain": mean_sd([r["cross_accuracy_by_gain"]["mean"] for r in results]),
    }
