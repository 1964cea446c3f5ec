"""Broken models, checkpoints and disks against the real programs: one clear error or warning, and nothing lost."""

import json
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from programs import TESSERA, TOKENIZER, TRAIN, refused, run
from tiny_run import build, document, half_written, write_documents


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
