"""`compare`: what is finished is skipped, what is broken off goes on, and the results are the same."""

import json
import signal
import subprocess
import time

import pytest

from programs import TESSERA, TOKENIZER, TRAIN
from routing_test import CONFIG, last_json, run, write_documents

VARIANTS = {"wide": {}, "narrow": {"model": {"hierarchy": {"unique_width": 8}}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    write_documents(folder / "two.jsonl", ["code", "prose"], 1)
    lines = [json.loads(line) for line in (folder / "two.jsonl").read_text().splitlines()]
    mixed = [{"text": a["text"] + "\n" + b["text"], "domain": "cross", "source": "mixed", "split": "cross"} for a, b in zip(lines[10:12], lines[82:84])]
    with (folder / "two.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in mixed)
    run(TESSERA, "data", "build", "two.jsonl", "--out", "data", "--tokenizer", TOKENIZER, cwd=folder)
    plan = folder / "plan"
    plan.mkdir()
    (plan / "base.json").write_text(json.dumps({**CONFIG, "train": {**CONFIG["train"], "steps": 100, "checkpoint_every": 10}}))
    for name, changes in VARIANTS.items():
        (plan / f"{name}.json").write_text(json.dumps({"base": "base.json", **changes}))
    (plan / "plan.json").write_text(json.dumps({"core": {"seeds": [1], "choices": False, "variants": {name: {} for name in VARIANTS}}}))
    return folder


def compare(folder, where, *more):
    return last_json(run(TRAIN, "compare", "plan", "--out", where, "--runs", f"{where}-runs", "--json", *more, cwd=folder))


def result(folder, where, name):
    result = json.loads((folder / where / "results" / f"{name}-1.json").read_text())
    return {key: value for key, value in result.items() if key not in ("command", "curve")}


def test_finished_runs_are_skipped_and_broken_ones_go_on(folder):
    assert compare(folder, "whole") == {"made": 2, "skipped": 0, "failed": []}
    file = folder / "whole/results/wide-1.json"
    written = file.stat().st_mtime_ns
    assert compare(folder, "whole") == {"made": 0, "skipped": 2, "failed": []}
    assert file.stat().st_mtime_ns == written

    command = [TRAIN, "compare", "plan", "--out", "broken", "--runs", "broken-runs", "--only", "wide"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = folder / "broken-runs/wide-1/metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130  # its step is finished and saved
    last = max(json.loads(line)["step"] for line in metrics.read_text().splitlines())
    assert 0 < last < 100
    assert not list((folder / "broken/results").iterdir())

    assert compare(folder, "broken") == {"made": 2, "skipped": 0, "failed": []}
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if "loss" in json.loads(line)]
    assert steps == sorted(set(steps)) and steps[-1] == 100  # it went on, and nothing was trained twice
    for name in VARIANTS:
        assert result(folder, "broken", name) == result(folder, "whole", name)


def test_figures_are_what_the_documents_give(folder):
    compare(folder, "whole")
    figures = result(folder, "whole", "wide")
    for part, bpb in (("heldout", figures["bpb"]), ("cross", {"cross": figures["cross_bpb"]}), ("spliced", {"spliced": figures["spliced_bpb"]})):
        details = figures["details"][part]
        by_domain = {name: [0.0, 0] for name in details["domains"]}
        for domain, bits, size in zip(details["domain"], details["bits"], details["bytes"]):
            sums = by_domain[details["domains"][domain]]
            sums[0] += bits
            sums[1] += size
        assert set(by_domain) == set(bpb), part
        for name, (bits, size) in by_domain.items():
            assert bpb[name] == pytest.approx(bits / size, rel=1e-4), (part, name)


def test_a_variant_may_have_data_of_its_own(folder):
    write_documents(folder / "again.jsonl", ["code", "prose"], 2)
    with (folder / "again.jsonl").open("a") as file:
        file.writelines(line + "\n" for line in (folder / "two.jsonl").read_text().splitlines() if '"cross"' in line)
    run(TESSERA, "data", "build", "again.jsonl", "--out", "again", "--tokenizer", TOKENIZER, cwd=folder)
    (folder / "two").mkdir()
    for name, path in (("one", "data"), ("other", "again")):
        config = json.loads((folder / "plan/base.json").read_text())
        config = {**config, "name": name, "data": {**config["data"], "path": path}, "train": {**config["train"], "steps": 2}}
        (folder / f"two/{name}.json").write_text(json.dumps(config))
    (folder / "two/plan.json").write_text(json.dumps({"core": {"seeds": [1], "choices": False, "variants": {"one": {}, "other": {}}}}))
    for made in (2, 0):
        done = last_json(run(TRAIN, "compare", "two", "--out", "both", "--runs", "both-runs", "--json", cwd=folder))
        assert done == {"made": made, "skipped": 2 - made, "failed": []}
    one, other = (result(folder, "both", name) for name in ("one", "other"))
    assert one["data_hash"] != other["data_hash"] and one["batch_hash"] != other["batch_hash"]


def test_a_result_of_another_config_is_never_overwritten(folder):
    compare(folder, "whole")
    changed = run(TRAIN, "compare", "plan", "--out", "whole", "--runs", "whole-runs", "--only", "narrow", "--train.steps=110", cwd=folder, ok=False)
    assert changed.returncode == 2 and "comes from another config" in changed.stderr
    assert result(folder, "whole", "narrow")["steps"] == 100
