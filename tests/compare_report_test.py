"""tools/compare_report.py on results that are made up here: what it computes, and that nothing missing is invented."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import compare_report  # noqa: E402
import compare_statistics as statistics  # noqa: E402

DOMAINS = statistics.DOMAINS


def write_result(folder, variant, seed, factor, accuracy=0.5, batch_hash="b", domains=DOMAINS, has_spliced=True, splice_share=0.1):
    """Bits = factor x what the document costs; the same documents for every variant."""
    rng = np.random.default_rng(7)
    cost = {d: 2000 * (1 + rng.random(30)) for d in ("spliced", "cross", *DOMAINS)}
    noise = np.random.default_rng(seed).normal(0, 0.001)
    size = 1000
    details = {
        "heldout": {"domains": list(domains), "domain": sum([[i] * 30 for i in range(4)], []), "sources": ["s"], "source": [0] * 120,
                    "bytes": [size] * 120, "bits": [x * (factor + noise) for d in domains for x in cost[d]]},
        "cross": {"domains": ["cross"], "domain": [0] * 30, "sources": ["s"], "source": [0] * 30, "bytes": [size] * 30, "bits": [x * (factor + noise) for x in cost["cross"]]},
        "spliced": {"domains": ["spliced"], "domain": [0] * 30, "sources": ["spliced"], "source": [0] * 30, "bytes": [size] * 30, "bits": [x * (factor + noise) for x in cost["spliced"]]},
        "choices": {t: "".join("1" if r < accuracy else "0" for r in np.random.default_rng(3).random(400)) for t in statistics.TASKS},
    }
    details["choices_by_gain"] = details["choices"]
    mean = {d: float(cost[d].sum() * (factor + noise) / (30 * size)) for d in cost}
    accuracies = {**{t: accuracy for t in statistics.TASKS}, "mean": accuracy}
    result = {"variant": variant, "seed": seed, "steps": 10, "tokens": 40960, "total_parameters": 7, "active_parameters": 3, "data_hash": "d",
              "batch_hash": f"{batch_hash}{seed}", "suite_hash": "s", "commit": "c", "config": {"data": {"splice_share": splice_share}, "train": {"device": "cpu"}}, "bpb": {d: mean[d] for d in DOMAINS}, "cross_bpb": mean["cross"], "spliced_bpb": mean["spliced"],
              "cross_accuracy": accuracies, "cross_accuracy_by_gain": accuracies, "items": {t: 400 for t in statistics.TASKS},
              "curve": [{"tokens": t, "bpb": {d: 3 - t / 1e5 for d in DOMAINS}, "mean": 3 - t / 1e5} for t in (10000, 20000, 40960)], "details": details}
    if not has_spliced:  # made before there was such text
        del result["spliced_bpb"], details["spliced"]
    (folder / f"{variant}-{seed}.json").write_text(json.dumps(result))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "results").mkdir()
    for seed in (1, 2, 3):
        write_result(tmp_path / "results", "flat-32", seed, 1.0, has_spliced=seed > 1)
        write_result(tmp_path / "results", "mhc-75-100", seed, 0.98, accuracy=0.6, domains=tuple(reversed(DOMAINS)))
        write_result(tmp_path / "results", "flat-32-plan", seed, 0.96)
    return tmp_path


def run(out):
    assert compare_report.main(["--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text()), {(r["theirs"], i): r for i, r in enumerate(json.loads((out / "criteria.json").read_text()))}


def test_summary_has_the_agreed_fields(out):
    summary, _ = run(out)
    assert set(summary) == {"variants"} and set(summary["variants"]) == {"mhc-75-100", "flat-32", "flat-32-plan"}
    for variant in summary["variants"].values():
        assert list(variant) == ["seeds", "tokens", "total_parameters", "active_parameters", "bpb", "cross_bpb", "spliced_bpb", "cross_accuracy", "cross_accuracy_by_gain"]
        assert list(variant["bpb"]) == list(DOMAINS) and all(len(pair) == 2 for pair in variant["bpb"].values())
    assert summary["variants"]["flat-32"]["seeds"] == 3
    assert summary["variants"]["mhc-75-100"]["cross_accuracy"] == [pytest.approx(0.6), 0]


def test_more_seeds_of_one_count_in_pairs_alone(out):
    for seed in (4, 5):
        write_result(out / "results", "flat-32", seed, 1.0)
        write_result(out / "results", "mhc-75-100", seed, 0.9)
    summary, criteria = run(out)
    assert summary["variants"]["mhc-75-100"]["seeds"] == 3 and summary["variants"]["mhc-75-100"]["bpb"]["code"][0] < summary["variants"]["flat-32"]["bpb"]["code"][0] * 0.99
    pairs = [r for (theirs, _), r in criteria.items() if theirs == "flat-32" and r["ours"] == "mhc-75-100"]
    assert pairs[0]["seeds"] == 5 and pairs[0]["change_percent"] == pytest.approx(-5.2, abs=0.1)


def test_changes_are_paired_and_criteria_follow(out):
    _, criteria = run(out)
    against_flat = [r for (theirs, _), r in criteria.items() if theirs == "flat-32" and r["ours"] == "mhc-75-100"]
    assert all(r["status"] == "pass" for r in against_flat) and [r["seeds"] for r in against_flat] == [3, 3, 3, 3, 2, 3, 3]
    for r in against_flat[:6]:  # 2 % fewer bits on the very same documents: the documents' spread (x2) must cancel
        assert r["change_percent"] == pytest.approx(-2, abs=0.01)
        assert r["interval_percent"][1] - r["interval_percent"][0] < 0.02
    assert against_flat[6]["change_percent"] == pytest.approx(20, abs=8)
    plan = next(r for (theirs, _), r in criteria.items() if theirs == "flat-32-plan")
    assert plan["status"] == "fail" and plan["change_percent"] == pytest.approx(2.083, abs=0.01)
    assert {r["status"] for (theirs, _), r in criteria.items() if theirs in ("flat-24", "hierarchy-no-sharing")} == {"missing"}


def test_an_interval_covers_the_spread_of_documents():
    rng = np.random.default_rng(5)
    pairs = []
    bits = rng.normal(2000, 100, (2, 120))
    for side in bits:
        pairs.append({"details": {"heldout": {"domains": list(DOMAINS), "domain": [0] * 30 + [1] * 30 + [2] * 30 + [3] * 30, "bytes": [1000] * 120, "bits": list(side)}}})
    value, low, high = statistics.bpb_change([tuple(pairs)], "heldout", ("code",))
    expected = 100 * np.std(bits[0, :30] - bits[1, :30], ddof=1) / np.sqrt(30) / 2000  # standard error of the paired difference, %
    assert low < value < high and (high - low) / 2 == pytest.approx(1.96 * expected, rel=0.15)


def pair_of(ours: list[float], theirs: list[float], sources: list[str]) -> tuple[dict, dict]:
    side = lambda bits: {"bpb": {d: sum(bits) / 4 for d in DOMAINS}, "details": {"heldout": {  # noqa: E731
        "domains": list(DOMAINS), "domain": sum([[d] * len(bits) for d in range(4)], []), "sources": sorted(set(sources)), "source": [sorted(set(sources)).index(s) for s in sources] * 4, "bytes": [1000] * 4 * len(bits), "bits": bits * 4}}}
    return side(ours), side(theirs)


def test_an_interval_covers_the_spread_of_seeds():
    pairs = [pair_of([99.0] * 8, [100.0] * 8, ["s"] * 8), pair_of([101.0] * 8, [100.0] * 8, ["s"] * 8)]
    value, low, high = statistics.change_of(pairs, "mean")  # of two seeds one may be drawn twice
    assert value == pytest.approx(0) and low == pytest.approx(-1) and high == pytest.approx(1)
    value, low, high = statistics.change_by_t(pairs, "mean")  # standard error 1 % (deviation sqrt 2, two seeds)
    assert value == pytest.approx(0) and (low, high) == (pytest.approx(-12.706), pytest.approx(12.706))
    assert statistics.change_by_t(pairs[:1], "mean") is None


def test_what_one_source_does_is_not_taken_for_many_documents():
    sources = ["a"] * 4 + ["b"] * 4
    pairs = [pair_of([98.0] * 4 + [100.0] * 4, [100.0] * 8, sources)] * 3
    _, _, high = statistics.change_of(pairs, "code")
    _, _, high_by_source = statistics.change_of(pairs, "code", "source")
    assert high < -0.1 and high_by_source == pytest.approx(0)  # source b drawn twice
    assert statistics.by_source(pairs)["code", "a"] == pytest.approx(-2)


def test_tables_of_more_seeds_hold_those_that_all_have(out):
    plan = {"core": {"seeds": [1, 2, 3], "variants": {"mhc-75-100": {}, "flat-32": {}}}, "more seeds": {"seeds": [4], "variants": {"mhc-75-100": {}, "flat-32": {}}}}
    write_result(out / "results", "flat-32", 4, 1.0)
    (out / "plan.json").write_text(json.dumps(plan))
    assert compare_report.main(["--out", str(out), "--plan", str(out / "plan.json")]) == 0
    page = (out / "README.md").read_text()
    assert "all of these have: 1, 2, 3." in page and "| flat-32 | 4 |" not in page


def test_missing_variants_are_named_missing(out):
    run(out)
    page = (out / "README.md").read_text()
    assert "| flat-24 | missing |" in page and "| dense-active | missing |" in page
    assert "<svg" in (out / "curves.svg").read_text() and "no results yet" in (out / "ablations.svg").read_text()


def test_results_of_other_batches_are_refused(out):
    write_result(out / "results", "flat-24", 1, 1.0, batch_hash="other")
    with pytest.raises(SystemExit, match="batch_hash"):
        run(out)


def test_a_variant_that_draws_other_text_has_other_batches(out):
    write_result(out / "results", "no-splices", 1, 1.0, batch_hash="other", splice_share=0.0)
    run(out)
    assert "| no-splices, 1 |" in (out / "README.md").read_text()


def test_a_plan_without_ablations_gives_a_page_without_them(out):
    plan = out / "plan.json"
    plan.write_text(json.dumps({"core": {"seeds": [1], "variants": {"mhc-75-100": {"about": "of our kind"}, "flat-32": {}}}, "about": "What is trained"}))
    assert compare_report.main(["--out", str(out), "--plan", str(plan)]) == 0
    page = (out / "README.md").read_text()
    assert "missing" not in page and "Ablations" not in page and "flat-24" not in page
    assert "What is trained.\n" in page and "- `mhc-75-100`: of our kind.\n" in page and "- `flat-32`" not in page
    assert {r["theirs"] for r in json.loads((out / "criteria.json").read_text())} == {"flat-32"} and not (out / "ablations.svg").exists()


def test_without_any_result_everything_is_missing(tmp_path):
    (tmp_path / "results").mkdir()
    summary, criteria = run(tmp_path)
    assert summary == {"variants": {}} and {r["status"] for r in criteria.values()} == {"missing"}


def test_route_report_chooses_the_cheapest_that_is_good_enough(tmp_path):
    import route_report

    (tmp_path / "results").mkdir()
    factors = {"progressive-16": 1.02, "progressive-32": 1.002, "progressive-64": 1.0, "monolithic-16": 1.03, "monolithic-192": 1.001}
    for seed in (1, 2):
        for name, factor in factors.items():
            write_result(tmp_path / "results", name, seed, factor)
    ms = {n: {"prefill512": i + 1.0, "prefill4096": 8.0 * (i + 1), "decode": 0.1} for i, n in enumerate(factors)}
    chosen = {"progressive": "progressive-32", "monolithic": "monolithic-192"}
    pair = {"names": chosen, "ratio_prefill512": 0.4, "ratio_prefill4096": 0.3, "ratio_decode": 0.2, "by_components": {"32": 0.4, "256": 0.45},
            "trained": {"prefill512": {"32": 0.35}, "prefill4096": {"32": 0.25}, "decode": {"32": 0.15}}}  # fmt: skip
    timing = {"ms": ms, "cpu": "c", "threads": 1, "commit": "x", "chosen": pair}
    dense_first = {"ms": {"heads-on-trunk": {"prefill512": 0.5, "prefill4096": 1.0, "decode": 0.1}}, "cpu": "c", "threads": 1, "commit": "x"}
    (tmp_path / "routers_timing.json").write_text(json.dumps({"sweep": timing, "dense_first": dense_first}))
    write_result(tmp_path / "results", "heads-on-trunk", 1, 1.0)
    write_result(tmp_path / "results", "progressive-128", 1, 1.0)  # one seed only: which is best is seen on it alone
    assert route_report.main(["--out", str(tmp_path)]) == 0
    summaries = json.loads((tmp_path / "summary.json").read_text())
    assert summaries["dense_first"]["chosen"] == {}  # neither progressive nor monolithic
    summary = summaries["sweep"]
    assert summary["chosen"] == chosen and [summary["variants"][f"progressive-{w}"]["seeds"] for w in (32, 128)] == [2, 1]
    assert summary["variants"]["progressive-16"]["change"][0] == pytest.approx(2, abs=0.05)
    text = (tmp_path / "README.md").read_text()
    assert "**progressive-32**" in text and "0.40 for 512 tokens" in text and "missing" in text
    assert "held-out documents (the line above: random weights, two domains always active): 512 tokens 32: 0.35" in text
    assert (tmp_path / "sweep.svg").read_text().count("<circle") == 5
