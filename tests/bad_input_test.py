"""Bad input against the real programs: exit code 2, one line "error: ..." that names the thing, a hint where
there is something to do, and nothing half-written left behind. TESSERA_BIN and TESSERA_TRAIN_BIN name other builds."""

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TESSERA = os.environ.get("TESSERA_BIN", str(ROOT / "build/release/tessera"))
TRAIN = os.environ.get("TESSERA_TRAIN_BIN", str(ROOT / "build/release/tessera-train"))
TOKENIZER = ROOT / "data/tokenizers/tessera-4096.json"
CONFIG = {
    "name": "tiny",
    "model": {
        "trunk": {"width": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "context_length": 64},
        "hierarchy": {
            "domains": [
                {"name": "general", "num_components": 2, "always": True},
                {"name": "letters", "num_components": 2},
                {"name": "travel", "num_components": 2},
            ],
            "num_active": 2, "num_banks": 2, "base_width": 16, "unique_width": 16,
        },
        "domain_router": {"kind": "encoder", "width": 16, "num_layers": 1, "num_heads": 2},
        "component_router": {"kind": "planner", "width": 16, "num_layers": 1, "num_heads": 2},
    },
    "data": {"path": "data"},
    "train": {
        "steps": 6, "batch_tokens": 128, "micro_batch_tokens": 128, "num_threads": 1, "eval_every": 0,
        "eval_bytes": 2000, "checkpoint_every": 2, "keep_checkpoints": 3, "log_every": 1,
    },
}  # fmt: skip


def run(program: str, *arguments, cwd, **options) -> subprocess.CompletedProcess:
    command = [program, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=300, **options)


def refused(result: subprocess.CompletedProcess, *parts: str, hint: bool = True) -> None:
    """The user's fault: said in one line that holds every part."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 2, f"exit code {result.returncode}\n{result.stderr}"
    assert len(errors) == 1, result.stderr
    for part in parts:
        assert part in errors[0], f"{errors[0]}\nlacks {part!r}"
    if hint:
        assert any(line.startswith("hint:") for line in result.stderr.splitlines()), result.stderr


def half_written(folder: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in folder.rglob("*") if p.name.endswith((".tmp", ".writing"))]


def document(rng: random.Random, words: int = 60) -> str:
    syllables = [c + v for c in "bdfglmnprstv" for v in "aeiou"]
    word = lambda: "".join(rng.choice(syllables) for _ in range(rng.randint(1, 3)))
    return " ".join(word() for _ in range(words)) + "."


def write_documents(path: pathlib.Path, domains=("letters", "travel"), count: int = 60, seed: int = 1) -> pathlib.Path:
    rng = random.Random(seed)
    lines = [
        json.dumps({"text": document(rng), "domain": domain, "source": f"{domain} {i % 12}", "licence": "CC0-1.0"})
        for domain in domains
        for i in range(count)
    ]
    path.write_text("".join(line + "\n" for line in lines))
    return path


def build(folder: pathlib.Path, *arguments, out: str = "data", **options) -> subprocess.CompletedProcess:
    return run(TESSERA, "data", "build", *arguments, "--out", out, "--tokenizer", TOKENIZER, cwd=folder, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    """A folder with documents.jsonl, the data set data/, tiny.json and the finished run runs/tiny."""
    folder = tmp_path_factory.mktemp("trained")
    write_documents(folder / "documents.jsonl")
    built = build(folder, "documents.jsonl")
    assert built.returncode == 0, built.stderr
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    result = run(TRAIN, "train", "tiny.json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert not half_written(folder)
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> pathlib.Path:
    """A copy of it that the test may break."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


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


# ---- models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["missing", "data", "tiny.json", "n" * 400])
def test_what_is_no_model(trained, path):
    refused(run(TESSERA, "generate", path, "-p", "a", cwd=trained), path[:50], hint=False)
    refused(run(TRAIN, "eval", path, "--data", "documents.jsonl", cwd=trained), path[:50], hint=False)
    refused(run(TESSERA, "inspect", path, cwd=trained), path[:50], hint=False)


def test_broken_model(copy):
    (copy / "runs/tiny/checkpoints/step-00000006/model").rename(copy / "model")
    weights, config = copy / "model/model.safetensors", copy / "model/config.json"
    whole, settings = weights.read_bytes(), config.read_text()

    def expect(*parts):
        refused(run(TESSERA, "generate", "model", "-p", "a", "-n", 2, cwd=copy), *parts, hint=False)

    weights.write_bytes(whole[:-1])
    expect("model.safetensors")
    weights.write_bytes(whole)
    config.write_text(settings.replace("10000.0", "5000.0"))
    expect("config.json")
    config.write_text(settings.replace('"width": 32', '"width": 2147483647'))
    expect("config.json", "width")
    config.write_text(settings)
    (copy / "model/tokenizer.json").unlink()
    expect("tokenizer.json")


def test_generate(trained):
    def generate(*arguments):
        return run(TESSERA, "generate", "runs/tiny", *arguments, cwd=trained)

    refused(generate("-p", document(random.Random(3), 200), "-n", 4), "the prompt has", "64")
    refused(generate("-p", "a", "--domains", "letters,poems"), "poems")
    refused(generate("-p", "a", "--domains", "general"), "general")  # it is always active, so it can't be asked for
    # No prompt: the text begins from nothing.
    result = generate("-p", "", "-n", 5, "--json")
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout.splitlines()[-1])["text"]) > 0


def test_a_full_disk_under_standard_output_is_no_success(trained):
    for arguments in (["generate", "runs/tiny", "-n", "5"], ["inspect", "runs/tiny"], ["completion", "bash"]):
        with open("/dev/full", "w") as full:
            result = subprocess.run([TESSERA, *arguments], cwd=trained, stdout=full, stderr=subprocess.PIPE, text=True)
        assert result.returncode == 2, arguments
        assert "standard output" in result.stderr


def test_too_little_memory_is_one_error(trained):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))}
    result = run(TESSERA, "generate", "runs/tiny", "-n", 5, "--threads", 1, cwd=trained, **limit)
    assert result.returncode == 0, result.stderr
    (trained / "large.jsonl").write_text(json.dumps({"text": "a b " * (10 << 20), "domain": "letters"}) + "\n")
    refused(run(TESSERA, "data", "build", "large.jsonl", "--out", "large", "--tokenizer", TOKENIZER, cwd=trained, **limit), "out of memory")


@pytest.mark.parametrize("command", [["generate", "runs/tiny", "-n", 5], ["quantize", "runs/tiny", "small", "--bits", 8]])
def test_threads_that_cannot_be_started_are_done_without(trained, command):
    shutil.rmtree(trained / "small", ignore_errors=True)
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (100 << 20, 100 << 20))}
    threads = ["--threads", 64] if command[0] == "generate" else []
    result = run(TESSERA, *command, *threads, cwd=trained, **limit)
    assert result.returncode == 0, result.stderr
    assert ("of 64 threads run" in result.stderr) == bool(threads)


def test_weights_that_are_not_numbers_are_not_quantised(copy):
    weights = sorted((copy / "runs/tiny").rglob("model.safetensors"))[-1]
    data = bytearray(weights.read_bytes())
    size = int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8 : 8 + size])["layers.0.components.1.down"]
    at = 8 + size + tensor["data_offsets"][0]
    data[at : at + 4] = b"\0\0\xc0\x7f"
    weights.write_bytes(data)
    refused(run(TESSERA, "quantize", "runs/tiny", "--bits", "4", cwd=copy), "layers.0.components.1.down", hint=False)
    assert not (copy / "runs/tiny-q4").exists()


def test_quantize_names_its_folder_itself(trained):
    shutil.rmtree(trained / "runs/tiny-q4", ignore_errors=True)
    result = run(TESSERA, "quantize", "runs/tiny/", "--bits", "4", cwd=trained)
    assert result.returncode == 0, result.stderr
    assert (trained / "runs/tiny-q4/model.safetensors").exists()


def test_tokens_that_training_never_saw(trained):
    """Bytes of other scripts and private characters: they are tokens like others, of no domain in particular."""
    text = "".join(chr(c) for c in range(0xE000, 0xE028))
    result = run(TESSERA, "generate", "runs/tiny", "-p", text[:8], "-n", 20, "--json", cwd=trained)
    assert result.returncode == 0, result.stderr
    assert all(abs(sum(chunk) - 1) < 1e-5 for chunk in np.reshape(json.loads(result.stdout.splitlines()[-1])["routing"][0]["pi"], (-1, 2)))
    (trained / "odd.jsonl").write_text(json.dumps({"text": text * 3, "domain": "letters"}) + "\n")
    result = run(TRAIN, "eval", "runs/tiny", "--suite", "routing", "--data", "odd.jsonl", "--json", cwd=trained)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["documents"] == 1


def test_inspect_of_a_model_that_may_only_be_read(copy):
    blocked = copy / "runs/tiny/component_use.svg.tmp"
    blocked.mkdir()  # root may write anywhere; nobody can open a folder for writing
    result = run(TESSERA, "inspect", "runs/tiny", "--json", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["parameters"] > 0
    assert "warning: no heat map" in result.stderr


def test_a_folder_that_cannot_be_made(trained, tmp_path):
    (tmp_path / "file").write_text("x")
    refused(run(TESSERA, "quantize", "runs/tiny", tmp_path / "file/out", "--bits", "8", cwd=trained), "file")
    documents = write_documents(tmp_path / "documents.jsonl")
    refused(run(TESSERA, "data", "build", documents, "--out", tmp_path / "file/out", "--tokenizer", TOKENIZER, cwd=trained), "file")


@pytest.mark.parametrize("text", ["", "This is no JSON.\n", '{"domain": "letters"}\n'])
def test_eval_of_what_is_no_text(trained, tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    refused(run(TRAIN, "eval", "runs/tiny", "--data", tmp_path / "a.jsonl", cwd=trained), hint=False)


# ---- runs ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_said_before_the_work(trained):
    atlas = run(TRAIN, "inspect", "runs/tiny", "--atlas", "--out", "/nowhere/atlas.html", cwd=trained)
    refused(atlas, "/nowhere/atlas.html", hint=False)
    assert "atlas" not in atlas.stderr.replace("/nowhere/atlas.html", "")  # no progress


def test_data_of_other_domains_says_what_to_give(trained):
    other = run(TRAIN, "train", "tiny.json", "--name=theirs", '--model.hierarchy.domains=[{"name": "poems", "num_components": 4}, {"name": "songs", "num_components": 4}]', cwd=trained)
    refused(other, "letters")
    (hint,) = [line for line in other.stderr.splitlines() if line.startswith("hint:")]
    flags = re.findall(r"--[a-z.]+='[^']*'", hint)
    assert len(flags) == 2, hint
    done = run(TRAIN, "train", "tiny.json", "--name=theirs", "--train.steps=1", *[f.replace("'", "") for f in flags], cwd=trained)
    assert done.returncode == 0, done.stderr


def test_generated_characters_are_whole(trained):
    result = run(TESSERA, "generate", "runs/tiny", "-p", "naïve — 日本 🙂", "-n", 1, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert "naïve — 日本 🙂" in result.stdout and "\ufffd" not in result.stdout.split("▸")[0]


def test_a_quantised_model_is_not_trained(trained):
    assert run(TESSERA, "quantize", "runs/tiny", "q8", "--bits", "8", cwd=trained).returncode == 0
    refused(run(TRAIN, "inspect", "q8", "--atlas", "--data", "data/heldout.jsonl.zst", cwd=trained), "U8")


def test_run_that_exists(trained):
    before = (trained / "runs/tiny/metrics.jsonl").read_bytes()
    refused(run(TRAIN, "train", "tiny.json", cwd=trained), "runs/tiny")
    refused(run(TRAIN, "train", "tiny.json", "--resume", "--train.optimizer.lr=0.5", cwd=trained), "lr")
    assert (trained / "runs/tiny/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("file", ["model/model.safetensors", "optimizer.safetensors", "state.json"])
def test_tampered_checkpoint_is_skipped(copy, file):
    checkpoint = copy / "runs/tiny/checkpoints/step-00000006"
    weights = (checkpoint / "model/model.safetensors").read_bytes()
    damaged = bytearray((checkpoint / file).read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (checkpoint / file).write_bytes(damaged)
    result = run(TRAIN, "train", "tiny.json", "--resume", cwd=copy)
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1 and "step-00000006" in warnings[0], result.stderr
    assert (checkpoint / "model/model.safetensors").read_bytes() == weights  # the same steps, bit for bit
    assert not half_written(copy)


def limit_file_size(size: int) -> dict:
    """Files can't grow beyond it: writing fails as on a full disk. (Python ignores SIGXFSZ, and the child inherits that.)"""
    return {
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        "restore_signals": False,
    }


def test_full_disk(copy):
    refused(build(copy, "documents.jsonl", out="other", **limit_file_size(10_000)), "other", hint=False)
    assert not list(copy.glob("other*")) and not half_written(copy)
    refused(run(TRAIN, "train", "tiny.json", "--name=other", cwd=copy, **limit_file_size(200_000)), "step-00000002", hint=False)
    assert not list((copy / "runs/other/checkpoints").iterdir()) and not half_written(copy)
    # With room again the same command works.
    result = run(TRAIN, "train", "tiny.json", "--name=other", cwd=copy)
    assert result.returncode == 0, result.stderr


def test_interrupt_saves_and_resume_finishes(copy):
    steps = 10
    arguments = ["train", "tiny.json", "--name=long", f"--train.steps={steps}", "--train.batch_tokens=4096",
                 "--train.checkpoint_every=0"]  # fmt: skip
    metrics = copy / "runs/long/metrics.jsonl"
    with subprocess.Popen([TRAIN, *arguments], cwd=copy, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 130, stderr
    assert "--resume" in stderr  # it says how to go on
    (checkpoint,) = (copy / "runs/long/checkpoints").iterdir()
    assert 2 <= int(checkpoint.name.removeprefix("step-")) < steps
    assert not half_written(copy)

    result = run(TRAIN, *arguments, "--resume", "--json", cwd=copy)
    assert result.returncode == 0, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["finished"] and last["steps"] == steps
    assert (copy / f"runs/long/checkpoints/step-{steps:08}/state.json").exists()
