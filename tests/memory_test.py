"""--memory is a contract: the program's peak memory stays under it, the text is the same, what can't work is refused, and
nothing of a domain that is left out is read."""

import json
import pathlib
import re
import shutil
import struct

import numpy as np
import pytest

from programs import TESSERA, TOKENIZER, run

WIDTH, LAYERS, BANKS, BASE, UNIQUE, ROUTER, VOCAB = 256, 4, 4, 256, 512, 32, 4096
DOMAINS = [("general", 12, True), ("code", 6, False), ("mathematics", 6, False), ("prose", 6, False)]
COMPONENTS = sum(n for _, n, _ in DOMAINS)
COMPONENT_BYTES = 4 * (2 * UNIQUE * WIDTH + WIDTH * (BASE + UNIQUE))
CONFIG = {
    "format": "tessera-1",
    "model": {
        "trunk": {"vocab_size": VOCAB, "width": WIDTH, "num_layers": LAYERS, "num_heads": 4, "num_kv_heads": 2, "context_length": 256},
        "hierarchy": {
            "domains": [{"name": name, "num_components": n, "always": always} for name, n, always in DOMAINS],
            "num_active": 2,
            "num_banks": BANKS,
            "base_width": BASE,
            "unique_width": UNIQUE,
        },
        "domain_router": {"kind": "encoder", "width": ROUTER, "num_layers": 1, "num_heads": 2},
        "component_router": {"kind": "planner", "width": ROUTER, "num_layers": 1, "num_heads": 2},
    },
}  # fmt: skip


def tensor_shapes():
    """(name, shape, begins on a page), as src/core/tensor_names.cpp has them."""

    def router(prefix):
        yield prefix + "input", (ROUTER, WIDTH), False
        for name in ("query", "key", "value", "output"):
            yield f"{prefix}layers.0.attention.{name}", (ROUTER, ROUTER), False
        yield prefix + "layers.0.attention_norm", (ROUTER,), False
        yield prefix + "layers.0.feed_forward.gate_up", (4 * ROUTER, ROUTER), False
        yield prefix + "layers.0.feed_forward.down", (ROUTER, 2 * ROUTER), False
        yield prefix + "layers.0.feed_forward_norm", (ROUTER,), False
        yield prefix + "norm", (ROUTER,), False

    yield "embedding", (VOCAB, WIDTH), False
    yield from router("domain_router.")
    yield "domain_router.head", (3, ROUTER), False
    yield from router("component_router.")
    for name, count, _ in DOMAINS:
        yield f"component_router.heads.{name}", (LAYERS * count, ROUTER), False
    for layer in (f"layers.{i}." for i in range(LAYERS)):
        yield layer + "attention_norm", (WIDTH,), False
        for name, rows in (("query", WIDTH), ("key", WIDTH // 2), ("value", WIDTH // 2), ("output", WIDTH)):
            yield f"{layer}attention.{name}", (rows, WIDTH), False
        yield layer + "feed_forward_norm", (WIDTH,), False
        for g in range(BANKS):
            yield f"{layer}banks.{g}.gate", (BASE, WIDTH), True
            yield f"{layer}banks.{g}.up", (BASE, WIDTH), False
        for c in range(COMPONENTS):
            yield f"{layer}components.{c}.gate", (UNIQUE, WIDTH), True
            yield f"{layer}components.{c}.up", (UNIQUE, WIDTH), False
            yield f"{layer}components.{c}.down", (WIDTH, BASE + UNIQUE), False
        yield layer + "selection_bias", (COMPONENTS,), False
    yield "final_norm", (WIDTH,), False


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """Random weights, some 250 MB of components."""
    folder = tmp_path_factory.mktemp("memory") / "model"
    folder.mkdir()
    rng, pool = np.random.default_rng(1), np.random.default_rng(2).standard_normal(1 << 21).astype(np.float32)
    header, blobs, offset = {}, [], 0
    for name, shape, on_page in tensor_shapes():
        if on_page and offset % 4096:
            pad = -offset % 4096
            header[f"pad.{len(blobs)}"] = {"dtype": "U8", "shape": [pad], "data_offsets": [offset, offset + pad]}
            blobs.append(bytes(pad))
            offset += pad
        count = int(np.prod(shape))
        shift = int(rng.integers(1 << 19))
        values = pool[shift : shift + count] / np.float32(np.sqrt(shape[-1])) if len(shape) == 2 else np.ones(count, np.float32)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + 4 * count]}
        blobs.append(values.tobytes())
        offset += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 4096)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            file.write(blob)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    return folder


def generate(model, *options, tokens=24):
    command = ["generate", str(model), "-p", "One text of some length. " * 20, "-n", str(tokens), "--temperature", "0", "--threads", "2", "--json"]
    return run(TESSERA, *command, *options, cwd=model)


def smallest_budget(result) -> int:
    assert result.returncode == 2, result.stderr
    return int(re.search(r"--memory (\d+)MiB", result.stderr)[1])


def test_peak_memory_stays_under_the_budget_and_the_text_is_the_same(model):
    free = json.loads(generate(model).stdout.splitlines()[-1])
    smallest = smallest_budget(generate(model, "--memory", "1MiB"))
    for mebibytes in (smallest, smallest + 16, smallest + 80, 1024):
        result = generate(model, "--memory", f"{mebibytes}MiB")
        assert result.returncode == 0, result.stderr
        bounded = json.loads(result.stdout.splitlines()[-1])
        assert bounded["tokens"] == free["tokens"]
        assert bounded["routing"] == free["routing"]
        assert bounded["peak_rss_bytes"] <= mebibytes << 20, bounded["memory"]
        assert "always in memory" in result.stderr
        slots = bounded["memory"]["components_in_memory"]
        assert (slots == LAYERS * COMPONENTS) == (mebibytes == 1024)
        if mebibytes == smallest + 80:  # the budget is used, too
            assert slots * COMPONENT_BYTES > 60 << 20
            assert bounded["memory"]["bytes_read"] > slots * COMPONENT_BYTES


def test_the_probabilities_of_every_place_fit_too(model):
    asked = ["--logprobs", "1000", "--memory"]
    smallest = smallest_budget(generate(model, *asked, "1MiB"))
    assert smallest > smallest_budget(generate(model, "--memory", "1MiB"))
    result = generate(model, *asked, f"{smallest}MiB", tokens=100)
    assert result.returncode == 0, result.stderr
    bounded = json.loads(result.stdout.splitlines()[-1])
    assert all(len(place["top"]) == 1000 for place in bounded["logprobs"])
    assert bounded["peak_rss_bytes"] <= smallest << 20


def test_a_budget_that_cannot_work_is_refused_before_loading(model):
    smallest = smallest_budget(generate(model, "--memory", "20MiB"))
    result = generate(model, "--memory", f"{smallest - 4}MiB")
    assert smallest_budget(result) in range(smallest - 2, smallest + 3)  # the program's own memory varies a little
    assert "always in memory" in result.stderr
    assert generate(model, "--memory", "much").returncode != 0


def test_reading_a_file_stays_under_the_budget_too(model, tmp_path):
    text = (TOKENIZER.parents[2] / "docs/LOG.md").read_text()
    (tmp_path / "text.txt").write_text(text[:4000])
    documents = [{"text": text[i : i + 500], "domain": "code"} for i in range(0, 4000, 500)]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    for command in (["perplexity", model, "text.txt"], ["eval", model, "--data", "documents.jsonl"]):
        smallest = smallest_budget(run(TESSERA, *command, "--memory", "1MiB", cwd=tmp_path))
        figures = []
        for mebibytes in (smallest, smallest + 40):
            result = run(TESSERA, *command, "--memory", f"{mebibytes}MiB", "--threads", 2, "--json", cwd=tmp_path)
            assert result.returncode == 0, result.stderr
            figures.append(json.loads(result.stdout.splitlines()[-1]))
            assert figures[-1].pop("peak_rss_bytes") <= mebibytes << 20
        assert figures[0] == figures[1]


def test_nothing_of_a_domain_left_out_is_read(model):
    result = generate(model, "--memory", "1GiB", "--domains", "code,mathematics")
    assert result.returncode == 0, result.stderr
    memory = json.loads(result.stdout.splitlines()[-1])["memory"]
    assert memory["components"] == LAYERS * 24
    assert memory["bytes_read"] <= LAYERS * 24 * COMPONENT_BYTES
    assert max(c for token in json.loads(result.stdout.splitlines()[-1])["routing"][0]["components"] for c in np.ravel(token)) < 24
