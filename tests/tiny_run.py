"""A tiny run of two domains, from documents to a finished model (the fixtures `trained` and `copy` of conftest.py)."""

import json
import pathlib
import random
import subprocess

from programs import TESSERA, TOKENIZER, run

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
