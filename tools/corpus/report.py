"""The tables that end a fetch: what came from where, what was dropped and why."""

from __future__ import annotations

from collections import Counter

from manifest import DOMAINS
from unpack import Result


def print_tables(results: list[Result]) -> None:
    """One line a source, one a dropped reason, and megabytes by domain and split."""
    width = max(len(r.source) for r in results)
    print(f"\n{'source':{width}}  {'domain':11} {'split':8} {'docs':>7} {'MB':>7}  licence")
    for r in results:
        print(f"{r.source:{width}}  {r.domain:11} {r.split:8} {r.documents:7} {r.text_bytes / 1e6:7.2f}  {r.licence}")
    dropped: Counter[str] = Counter()
    most: dict[str, Counter[str]] = {}
    for r in results:
        for reason, count in r.dropped.items():
            dropped[reason] += count
            most.setdefault(reason, Counter())[r.source] += count
    print(f"\n{'dropped because':26} {'count':>8}  mostly from")
    for reason, count in dropped.most_common():
        print(f"{reason:26} {count:8}  {', '.join(f'{s} {n}' for s, n in most[reason].most_common(3))}")
    total: Counter[tuple[str, str]] = Counter()
    for r in results:
        total[r.domain, r.split] += r.text_bytes
    print(f"\n{'MB of text':12} {'train':>8} {'heldout':>8} {'cross':>8}")
    for domain in (*DOMAINS, "cross", "mixed"):
        print(f"{domain:12} " + " ".join(f"{total[domain, split] / 1e6:8.2f}" for split in ("train", "heldout", "cross")))
    splits = [sum(v for (_, s), v in total.items() if s == split) / 1e6 for split in ("train", "heldout", "cross")]
    print(f"{'total':12} " + " ".join(f"{v:8.2f}" for v in splits) + f"   = {sum(splits):.1f} MB")
