"""The model that ships: it is what the README says it is, and places the README's prompts where they belong."""

import json
import subprocess

import pytest
from safetensors import safe_open

from engine_parity_test import assert_engine_equals_trainer
from programs import ROOT, TESSERA, run

MODEL = ROOT / "models/tessera-mini"
PROMPTS = {
    "code": "def read_lines(path):\n    with open(path) as handle:\n        return [line.strip() for line in handle]\n\n\ndef count",
    "prose": '"I do not know what you mean," said the old woman, and she turned her face to the fire. The boy looked at her and said nothing. At last',
}


def test_is_small_bf16_and_of_the_stated_shape():
    assert sum(f.stat().st_size for f in MODEL.iterdir()) <= 32e6
    config = json.loads((MODEL / "config.json").read_text())
    domains = config["model"]["hierarchy"]["domains"]
    assert [(d["name"], d["num_components"]) for d in domains if d.get("always")] == [("general", 56)]
    assert [d["num_components"] for d in domains if not d.get("always")] == [4] * 4
    with safe_open(MODEL / "model.safetensors", "pt") as tensors:
        assert tensors.get_slice("layers.1.components.3.down").get_dtype() == "BF16"
    assert json.loads((MODEL / "metrics.jsonl").read_text().splitlines()[-1])["step"] > 0


@pytest.mark.parametrize("domain", PROMPTS)
def test_generates_in_the_domain_of_the_prompt(domain):
    result = run(TESSERA, "generate", MODEL, "-p", PROMPTS[domain], "-n", 40, "--seed", 1, "--temperature", 0.7, "--json", cwd=ROOT)
    assert result.returncode == 0, result.stderr
    generated = json.loads(result.stdout.splitlines()[-1])
    assert len(generated["text"]) > 40
    pi = dict(zip(("code", "mathematics", "science", "prose"), generated["routing"][0]["pi"][-4:]))  # the last chunk's
    assert max(pi, key=pi.get) == domain
    again = run(TESSERA, "generate", MODEL, "-p", PROMPTS[domain], "-n", 40, "--seed", 1, "--temperature", 0.7, "--threads", 1, "--json", cwd=ROOT)
    assert json.loads(again.stdout.splitlines()[-1])["tokens"] == generated["tokens"]


def test_engine_equals_trainer_on_real_text(tmp_path):
    text = "\n".join(json.dumps((ROOT / name).read_text()[:1500]) for name in ("README.md", "src/core/route.h"))
    result = subprocess.run([TESSERA, "tokenize", MODEL / "tokenizer.json"], input=text, capture_output=True, text=True, check=True)
    texts = [[0] + json.loads(line)[:500] for line in result.stdout.splitlines()]
    assert_engine_equals_trainer(tmp_path, MODEL, texts, list(PROMPTS.values()))


def test_inspect_lists_its_components():
    result = run(TESSERA, "inspect", MODEL, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    for name in ("general", "code", "mathematics", "science", "prose"):
        assert name in result.stdout
