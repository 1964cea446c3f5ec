"""What a document is: clean text of a useful size, split or grouped at natural boundaries."""

from __future__ import annotations

import re

MAX_CHARS = 40_000  # longer ones are split
MIN_CHARS = 200  # shorter ones are dropped
GROUP_CHARS = 8_000  # small entries (dictionary, verses, info nodes) are grouped to about this
_BREAKS = (re.compile(r"\n\n(?=\S)"), re.compile(r"\n\n"), re.compile(r"\n"), re.compile(r" "))


def clean(text: str) -> str:
    """Unix line ends, no control characters, no trailing blanks, at most two blank lines together."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "").replace("\f", "\n")
    text = re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f]", "", text).replace("\u00a0", " ").replace("\u00ad", "")
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n")


def split_long(text: str, limit: int = MAX_CHARS) -> list[str]:
    """Pieces of at most `limit` characters, of similar length, cut where a paragraph or top-level definition ends."""
    if len(text) <= limit:
        return [text]
    target = len(text) / -(-len(text) // limit)
    pieces: list[str] = []
    start = 0
    while len(text) - start > limit:
        low, high = start + int(target * 0.5), start + int(min(target * 1.25, limit))
        middle, cut = start + target, high
        for pattern in _BREAKS:
            places = [m.end() for m in pattern.finditer(text, low, high)]
            if places:
                cut = min(places, key=lambda p: abs(p - middle))
                break
        pieces.append(text[start:cut].strip("\n"))
        start = cut
    pieces.append(text[start:].strip("\n"))
    return [p for p in pieces if p]


def group(parts: list[str], joiner: str = "\n\n", size: int = GROUP_CHARS) -> list[str]:
    """Join consecutive small parts into documents of about `size` characters."""
    documents: list[str] = []
    batch: list[str] = []
    length = 0
    for part in parts:
        if batch and length + len(part) > size:
            documents.append(joiner.join(batch))
            batch, length = [], 0
        batch.append(part)
        length += len(part) + len(joiner)
    if batch:
        documents.append(joiner.join(batch))
    return documents


def why_unusable(text: str) -> str | None:
    """A short reason to drop a document, or None."""
    if len(text) < MIN_CHARS:
        return "too short"
    sample = text[:20_000]
    lines = sample.split("\n")
    if max(map(len, lines)) > 5_000 and sample.count(" ") < len(sample) / 30:
        return "minified or data"
    letters = sum(c.isalpha() for c in sample)
    if letters < 0.35 * len(sample.replace(" ", "").replace("\n", "")):
        return "mostly numbers or symbols"
    if sum(ord(c) > 0x24F and c.isalpha() for c in sample[:4_000]) > 0.2 * min(letters, 4_000):
        return "not in English"
    if "\ufffd" in sample and sample.count("\ufffd") > 3:
        return "undecodable"
    return None


def merge_short(pieces: list[tuple[str, str]], below: int = 1_500, size: int = 4_000) -> list[tuple[str, str]]:
    """Join short neighbours of one folder (tiny manual pages), so that a document has something to say."""
    merged: list[tuple[str, str]] = []
    for path, text in pieces:
        if merged:
            last_path, last = merged[-1]
            near = last_path.rpartition("/")[0] == path.rpartition("/")[0]
            if near and min(len(last), len(text)) < below and len(last) + len(text) < size:
                merged[-1] = (last_path, f"{last}\n\n{text}")
                continue
        merged.append((path, text))
    return merged
