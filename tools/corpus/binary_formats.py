"""Readers of the few packed formats: SWORD modules, R lazy-load databases, dictd and WordNet dictionaries."""

from __future__ import annotations

import gzip
import html
import lzma
import re
import struct
import zlib

# ---------------------------------------------------------------- SWORD (Bible software) modules


def sword_entries(files: dict[str, bytes]) -> list[str]:
    """Texts of a zText/zCom module, in verse order: *.?zs block index, *.?zv verse index, *.?zz zlib blocks."""
    entries: list[str] = []
    conf = b"".join(data for path, data in files.items() if path.endswith(".conf"))
    wide = re.search(rb"(?m)^ModDrv=z(?:Com|Text)4", conf) is not None  # sizes of 4 bytes; some modules say so wrongly
    indexes = [data for path, data in files.items() if path.endswith("zv")]
    record = "<III" if wide and all(len(data) % 12 == 0 for data in indexes) else "<IIH"
    width = struct.calcsize(record)
    for path in sorted(files, key=lambda p: (0 if "/ot." in p else 1, p)):
        if not path.endswith("zz"):
            continue
        stem = path[:-1]
        blocks, data, cache = files[stem + "s"], files[path], {}
        previous = ""
        for block, offset, size in struct.iter_unpack(record, files[stem + "v"][: len(files[stem + "v"]) // width * width]):
            if size == 0 or (block + 1) * 12 > len(blocks):
                continue
            if block not in cache:
                cache.clear()
                start, length, _ = struct.unpack_from("<III", blocks, block * 12)
                cache[block] = zlib.decompress(data[start : start + length])
            entry = plain_verse(cache[block][offset : offset + size].decode("utf-8", "ignore"))
            if entry and entry != previous:
                entries.append(entry)
                previous = entry
    return entries


def plain_verse(marked: str) -> str:
    """OSIS, ThML or GBF marked text without notes and tags."""
    marked = re.sub(r"(?s)<note\b.*?</note>|<RF.*?Rf>", "", marked)
    marked = re.sub(r"(?i)<(?:br|p|/p|lb|/title|milestone)\b[^>]*>|<CM>", "\n", marked)
    marked = html.unescape(re.sub(r"<[^>]*>", "", marked))
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in marked.splitlines())
    return "\n".join(line for line in lines if line)


# ---------------------------------------------------------------- R lazy-load database


def rdata_strings(rdb: bytes, at_least: int = 200) -> list[list[str]]:
    """The character vectors of an .rdb file with at least `at_least` elements (XDR serialisation, blocks in sequence)."""
    vectors: list[list[str]] = []
    position = 0
    while position + 5 < len(rdb):
        block, position = _rdb_block(rdb, position)
        vectors += [v for v in _string_vectors(block) if len(v) >= at_least]
    return vectors


def _rdb_block(rdb: bytes, position: int) -> tuple[bytes, int]:
    kind = rdb[position + 4 : position + 5]
    if kind == b"Z":  # raw xz stream: length unknown, so the decoder says where it ends
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
        data, rest = decoder.decompress(rdb[position + 5 :]), len(decoder.unused_data)
    else:
        inflater = zlib.decompressobj()
        data = inflater.decompress(rdb[position + 4 :])
        rest = len(inflater.unused_data)
    return data, len(rdb) - rest


def _string_vectors(block: bytes) -> list[list[str]]:
    vectors, position = [], 0
    while True:
        position = block.find(b"\x00\x00\x00\x10", position)
        if position < 0 or position + 16 > len(block):
            return vectors
        count, = struct.unpack_from(">i", block, position + 4)
        at, strings = position + 8, []
        while len(strings) < count and at + 8 <= len(block):
            flags, length = struct.unpack_from(">Ii", block, at)
            if flags & 0xFF != 9 or length < -1:
                break
            length = max(length, 0)
            strings.append(block[at + 8 : at + 8 + length].decode("utf-8", "replace"))
            at += 8 + length
        if strings and len(strings) == count:
            vectors.append(strings)
            position = at
        else:
            position += 4


# ---------------------------------------------------------------- dictionaries

_BASE64 = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def _dict_number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _BASE64[digit]
    return value


def dictd_entries(files: dict[str, bytes]) -> list[str]:
    """Definitions of a dictd database (.index and .dict.dz), in the file's order, each once."""
    index = next(data for path, data in files.items() if path.endswith(".index")).decode("utf-8", "replace")
    packed = next(data for path, data in files.items() if path.endswith(".dict.dz"))
    text = gzip.decompress(packed)
    spans = set()
    for line in index.splitlines():
        word, _, place = line.partition("\t")
        if not word.startswith("00-database") and "\t" in place:
            spans.add(tuple(_dict_number(n) for n in place.split("\t")[:2]))
    return [text[start : start + size].decode("utf-8", "replace").strip() for start, size in sorted(spans)]


_POS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}


def wordnet_entries(text: str) -> list[str]:
    """One line a synonym set of a WordNet data file: "word, word (noun): definition; "example"."."""
    entries = []
    for line in text.splitlines():
        if line.startswith("  ") or " | " not in line:
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        count = int(fields[3], 16)
        words = [re.sub(r"\(\w+\)$", "", fields[4 + 2 * i]).replace("_", " ") for i in range(count)]
        entries.append(f"{', '.join(words)} ({_POS[fields[2]]}): {gloss.strip()}")
    return entries
