"""Train a byte-level BPE tokenizer from a fetched set, balanced over the domains.

    python tools/corpus/train_tokenizer.py data/small/raw --vocab 4096 --out data/tokenizers/tessera-4096.json
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path

import zstandard
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parent))

from errors import UserError  # noqa: E402
from manifest import DOMAINS  # noqa: E402

BOS = "<|bos|>"
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
MAX_PIECE = 20_000  # characters of one document: no single book weighs too much


def read_training_texts(folder: Path, domain_mb: float) -> dict[str, list[str]]:
    """Training documents by domain, in an order drawn by hash, until `domain_mb` MB a domain."""
    rows: dict[str, list[tuple[bytes, str]]] = {domain: [] for domain in DOMAINS}
    for path in sorted(folder.glob("*.jsonl.zst")):
        with open(path, "rb") as raw:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8"):
                row = json.loads(line)
                if row["split"] == "train":
                    text = row["text"][:MAX_PIECE]
                    rows[row["domain"]].append((hashlib.blake2b(text.encode(), digest_size=8).digest(), text))
    chosen: dict[str, list[str]] = {}
    for domain, items in rows.items():
        size, chosen[domain] = 0.0, []
        for _, text in sorted(items):
            if size >= domain_mb * 1e6:
                break
            chosen[domain].append(text)
            size += len(text.encode())
    if not all(chosen.values()):
        empty = [d for d, texts in chosen.items() if not texts]
        raise UserError(f"{folder} has no training documents of {', '.join(empty)}", "run `./tessera data fetch small` first")
    return chosen


def train(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE without normaliser; <|bos|> is id 0, the 256 bytes are always there."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(BOS, special=True, normalized=False)], max_token_length=24,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size or tokenizer.token_to_id(BOS) != 0:
        raise UserError(f"the corpus gave {tokenizer.get_vocab_size()} tokens, not {vocab_size}", "train on more text")
    return tokenizer


def main(arguments: list[str] | None = None) -> int:
    """The command; prints bytes a token by domain on the training sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="a folder that fetch.py wrote")
    parser.add_argument("--vocab", type=int, required=True, help="vocabulary size, special token included")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--domain-mb", type=float, default=12.0, help="at most this much text of each domain")
    given = parser.parse_args(arguments)
    try:
        texts = read_training_texts(given.raw, given.domain_mb)
        tokenizer = train([text for domain in DOMAINS for text in texts[domain]], given.vocab)
    except UserError as fault:
        print(fault, file=sys.stderr)
        return 2
    for domain in DOMAINS:
        sample = texts[domain][:60]
        tokens = sum(len(e.ids) for e in tokenizer.encode_batch(sample))
        print(f"{domain:12} {sum(len(t.encode()) for t in texts[domain]) / 1e6:6.1f} MB read, {sum(len(t.encode()) for t in sample) / tokens:.2f} bytes a token")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    partial = given.out.with_suffix(".partial")
    tokenizer.save(str(partial))
    partial.rename(given.out)
    print(f"written: {given.out} ({tokenizer.get_vocab_size()} tokens)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
