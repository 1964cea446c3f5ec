"""The first part of bench/engine.py: is what is timed right?"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

TOKENS = 1000
MOST_KL = {"f32 against transformers": 1e-6, "8 bits against f32": 1e-3}  # nats a token


def logits_of(program: pathlib.Path, model: pathlib.Path, tokens: list[int]) -> np.ndarray:
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "logits.safetensors"
        subprocess.run([program, "score", model, "--logits", out], input=json.dumps(tokens) + "\n", text=True, check=True, capture_output=True)
        return load_file(out)["text.0"].astype(np.float64)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean KL in nats a token, and the share of tokens with the same first choice."""
    p, q = log_softmax(reference), log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(-1).mean()), float((p.argmax(-1) == q.argmax(-1)).mean())


def transformers_logits(gguf: pathlib.Path, tokens: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().numpy()


def measure(models, text: pathlib.Path) -> dict:
    full = models.ours(None)
    line = json.dumps(text.read_text())
    tokens = json.loads(subprocess.run([models.program, "tokenize", full / "tokenizer.json"], input=line, check=True, capture_output=True, text=True).stdout)[:TOKENS]
    f32 = logits_of(models.program, full, tokens)
    report = {}
    for name, reference, other in (
        ("f32 against transformers", transformers_logits(models.published(), tokens), f32),
        ("8 bits against f32", f32, logits_of(models.program, models.ours(8), tokens)),
        ("4 bits against f32", f32, logits_of(models.program, models.ours(4), tokens)),
    ):
        kl, same = divergence(reference, other)
        print(f"{name}: KL {kl:.2e} nats a token, {same:.1%} of {len(tokens)} first choices alike", flush=True)
        report[name] = {"kl": kl, "top1": same}
        if kl > MOST_KL.get(name, np.inf) or (name.startswith("f32") and same < 1):
            sys.exit(f"error: {name}: not the same model; nothing else is measured")
    for name, model in (("f32", full), ("8 bits", models.ours(8)), ("4 bits", models.ours(4)), ("peer's 4 bits", models.peer_as_ours())):
        found = models.run([models.program, "perplexity", model, text, "--json"], f"perplexity: {name}")
        report[f"perplexity {name}"] = json.loads(found.splitlines()[-1])["perplexity"]
        print(f"perplexity of {text.name}, {name}: {report[f'perplexity {name}']:.3f}", flush=True)
    report["perplexity_ratio_to_peer"] = report["perplexity 4 bits"] / report["perplexity peer's 4 bits"]
    return report
