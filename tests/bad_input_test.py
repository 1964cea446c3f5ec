"""Bad arguments, configs and data against the real programs: exit code 2, one line "error: ..." that names the thing, a hint
where there is something to do, and nothing half-written left behind."""

import json
import random
import sys

import pytest

from programs import ROOT, TESSERA, TRAIN, refused, run
from tiny_run import build, document, half_written, write_documents


# ---- the command line and the config ------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [TESSERA, TRAIN, str(ROOT / "tessera")])
def test_unknown_command(program, tmp_path):
    refused(run(program, "trian", cwd=tmp_path), "trian", hint=False)


@pytest.mark.parametrize(
    "program, arguments, part",
    [
        (TESSERA, ["data", "build"], "INPUT"),
        (TESSERA, ["data", "stats", "data", "--jsn"], "--jsn"),
        (TESSERA, ["data", "build", "documents.jsonl"], "--out"),
        (TRAIN, ["train"], "CONFIG"),
        (TRAIN, ["train", "tiny.json", "--train.steps"], "--train.steps"),
        (TRAIN, ["train", "tiny.json", "again"], "again"),
        (TRAIN, ["eval", "runs/tiny"], "--data"),
        (TESSERA, ["generate", "runs/tiny", "-n", "many"], "many"),
        (TESSERA, ["generate", "runs/tiny", "--temperature", "-1"], "-1"),
        (TESSERA, ["generate", "runs/tiny", "--top-p", "nan"], "top_p"),
        (TESSERA, ["generate", "runs/tiny", "--seed", "-1"], "-1"),
        (TESSERA, ["generate", "runs/tiny", "--seed", "99999999999999999999"], "99999999999999999999"),
        (TESSERA, ["generate", "runs/tiny", "--memory", "-5"], "512MiB"),
        (TESSERA, ["generate", "runs/tiny", "--stop", ""], "--stop"),
        (TESSERA, ["generate", "runs/tiny", "--logprobs", "3"], "--logprobs"),
        (TESSERA, ["generate", "runs/tiny", "--domains", "letters", "--deny", "letters"], "letters"),
        (TESSERA, ["score", "runs/tiny", "--threads", "100000000"], "100000000"),
        (TESSERA, ["eval", "runs/tiny", "--data", "documents.jsonl", "--max-bytes", "-7"], "-7"),
        (TESSERA, ["bench", "foo"], "foo"),
        (TRAIN, ["train", "tiny.json", "--train.num_threads=100000000"], "train.num_threads"),
        (TRAIN, ["compare", "--seeds", "-1"], "-1"),
        (TRAIN, ["compare", "--seeds", "99999999999999999999"], "99999999999999999999"),
        (TRAIN, ["inspect", "runs/tiny", "--atlas", "--bytes", "0"], "not in range 1 to"),
        (TRAIN, ["eval", "runs/tiny", "--suite", "routing", "--max-bytes", "9"], "--max-bytes"),
        (TRAIN, ["eval", "runs/tiny", "--suite", "cross", "--mixed", "a"], "--mixed"),
    ],
)
def test_wrong_arguments(trained, program, arguments, part):
    refused(run(program, *arguments, cwd=trained), part, hint=False)


@pytest.mark.parametrize(
    "script, arguments, part",
    [
        ("train.py", ["--turns", "0"], "--turns"),
        ("train.py", ["--steps", "-1"], "-1"),
        ("train.py", ["--shapes", "192,300"], "'300'; there are 192, 512"),
        ("train.py", ["--trns", "2"], "--trns"),
        ("engine.py", ["--threads", "two"], "'two'"),
        ("engine.py", ["--parts", "quality,all"], "'all'"),
        ("engine.py", ["--text", "nowhere.md"], "nowhere.md"),
    ],
)
def test_wrong_arguments_of_the_benchmarks(tmp_path, script, arguments, part):
    refused(run(sys.executable, ROOT / "bench" / script, *arguments, cwd=tmp_path), part)


@pytest.mark.parametrize("seeds", ["[1.5]", "[-1]", '["1"]', "[[1]]", "3", "null", "{}"])
def test_a_plans_seeds_are_whole_numbers(tmp_path, seeds):
    (tmp_path / "plan.json").write_text(f'{{"core": {{"seeds": {seeds}, "variants": {{"one": {{}}}}}}}}')
    refused(run(TRAIN, "compare", tmp_path, "--list", cwd=tmp_path), "plan.json", "seeds", seeds)


@pytest.mark.parametrize(
    "override, key, nearest",
    [
        ("--train.step=5", "'train.step'", "'steps'"),
        ("--trian.steps=5", "'trian'", "'train'"),
        ("--model.trunk.widht=32", "'model.trunk.widht'", "'width'"),
        ("--train.optimizer.learning_rate=1", "'train.optimizer.learning_rate'", ""),
        ("--train.device=cup", "cup", "'cpu'"),
    ],
)
def test_unknown_config_key_names_the_nearest(trained, override, key, nearest):
    result = run(TRAIN, "train", "tiny.json", "--name=other", override, cwd=trained)
    refused(result, key)
    assert nearest in result.stderr
    refused(run(TESSERA, "estimate", "tiny.json", override, cwd=trained), key)
    assert not (trained / "runs/other").exists()


@pytest.mark.parametrize(
    "override, parts",
    [
        ("--model.trunk.num_kv_heads=3", ["num_heads' = 4", "num_kv_heads' = 3"]),
        ("--model.trunk.width=34", ["model.trunk.width' = 34"]),
        ("--train.micro_batch_tokens=96", ["train.micro_batch_tokens' = 96", "context_length' = 64"]),
        ("--train.batch_tokens=192", ["train.batch_tokens' = 192", "train.micro_batch_tokens' = 128"]),
        ("--model.hierarchy.num_active=9", ["num_active"]),
        ("--train.steps=1e30", ["train.steps"]),
        ("--train.steps=-3", ["train.steps"]),
        ("--train.steps=many", ["train.steps", "many"]),
        ("--train.optimizer.embedding_lr_scale=-3", ["embedding_lr_scale"]),
        ("--model.trunk.vocab_size=100", ["vocab_size", "4096"]),
        ("--data.mix={\"poems\": 1}", ["poems"]),
        ("--data.path=elsewhere", ["elsewhere"]),
        ("--model.hierarchy.domains.2.name=poems", ["travel"]),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(trained, override, parts):
    refused(run(TRAIN, "train", "tiny.json", "--name=other", override, cwd=trained), *parts, hint=False)
    assert not (trained / "runs/other").exists()


def test_widths_that_cannot_be(tmp_path):
    compare = ROOT / "configs/compare"
    arguments = ["estimate", compare / "mhc-75-100.json", "--widths", compare / "flat-32.json", "--json"]
    found = json.loads(run(TESSERA, *arguments, cwd=tmp_path).stdout.splitlines()[-1])
    assert (found["base_width"], found["unique_width"]) == (42, 48) and 0.74 < found["total_share"] <= 0.75
    refused(run(TESSERA, *arguments, "--total-share", 0.1, cwd=tmp_path), "10.0 %")
    refused(run(TESSERA, "estimate", compare / "dense-active.json", *arguments[2:], cwd=tmp_path), "dense")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": 3}', '{"model": {"trunk": "wide"}}', "[" * 100_000])
def test_broken_config_file(trained, tmp_path, text):
    (tmp_path / "broken.json").write_text(text)
    refused(run(TRAIN, "train", tmp_path / "broken.json", cwd=trained), hint=False)
    refused(run(TESSERA, "estimate", tmp_path / "missing.json", cwd=trained), "missing.json")


# ---- documents and shards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_domain_with_too_few_documents(tmp_path, count):
    lines = write_documents(tmp_path / "a.jsonl").read_text()
    text = document(random.Random(5)) if count else "Too short to keep."
    (tmp_path / "a.jsonl").write_text(lines + json.dumps({"text": text, "domain": "poems"}) + "\n")
    refused(build(tmp_path, "a.jsonl"), '"poems"')
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_file_without_documents(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    refused(build(tmp_path, "a.jsonl"), "no documents")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "caf\xe9 and more", "domain": "letters"}',
        b"This is no JSON.",
        b'["text"]',
        b'{"domain": "letters"}',
        b'{"text": 3}',
        b'{"text": "cut sho',
        b'{"text": "a", "split": "test"}',
    ],
)
def test_broken_line_is_named_or_skipped(tmp_path, line):
    lines = write_documents(tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines[:6]) + line + b"\n" + b"".join(lines[6:]))
    refused(build(tmp_path, "a.jsonl"), "a.jsonl:7")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    result = build(tmp_path, "a.jsonl", "--skip-bad")
    assert result.returncode == 0, result.stderr
    assert "a.jsonl:7" in result.stderr
    assert (tmp_path / "data/index.json").exists() and not half_written(tmp_path)


def test_missing_inputs(trained):
    refused(build(trained, "missing.jsonl", out="other"), "missing.jsonl")
    refused(run(TESSERA, "data", "build", "documents.jsonl", "--out", "other", "--tokenizer", "none.json", cwd=trained), "none.json")
    refused(run(TRAIN, "train", "missing.json", cwd=trained), "missing.json")
    refused(run(TRAIN, "eval", "runs/tiny", "--data", "missing.jsonl", cwd=trained), "missing.jsonl")
    refused(run(TESSERA, "data", "stats", "missing", cwd=trained), "missing")
    refused(build(trained, "documents.jsonl", out="runs"), "runs")  # a folder that is no data set is not replaced
    assert (trained / "runs/tiny").exists() and not (trained / "other").exists()


def test_zst_cut_short(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04\x00")
    refused(build(tmp_path, "a.jsonl.zst"), "a.jsonl.zst", hint=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl.zst"]


@pytest.mark.parametrize("damage", ["cut short", "cut to its header", "empty", "one bit", "missing"])
def test_broken_shard(copy, damage):
    (shard,) = (copy / "data").glob("*.bin")
    whole = shard.read_bytes()
    middle = len(whole) // 2
    changed = {
        "cut short": whole[:-10],
        "cut to its header": whole[:64],
        "empty": b"",
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    shard.write_bytes(changed[damage]) if damage in changed else shard.unlink()
    refused(run(TRAIN, "train", "tiny.json", "--name=other", cwd=copy), shard.name)
    refused(run(TESSERA, "data", "stats", "data", cwd=copy), shard.name)
    assert not (copy / "runs/other").exists()
