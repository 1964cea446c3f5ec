"""Read and check data/manifest.json: one entry a source (a package's file set)."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from archives import REGISTRIES
from errors import UserError

DOMAINS = ("code", "mathematics", "science", "prose")
SPLITS = ("train", "heldout", "cross")
SETS = ("small", "full", "mixed")


@dataclass(frozen=True)
class Source:
    """One file set of one package. `project` is the upstream project: never both trained on and held out."""

    source: str
    project: str
    registry: str
    package: str
    format: str
    domain: str
    split: str
    sets: list[str]
    licence: str
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    max_mb: dict[str, float] = field(default_factory=dict)  # cap a set, in MB of text; {"small": 2}; none = all
    note: str = ""


@dataclass(frozen=True)
class Manifest:
    """All sources, and the hash of the file they came from."""

    sources: list[Source]
    sha256: str

    def for_set(self, set_name: str) -> list[Source]:
        """The sources of one of SETS, in the file's order."""
        return [s for s in self.sources if set_name in s.sets]


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """The known word closest to a mistyped one."""
    return (difflib.get_close_matches(word, known, n=1, cutoff=0.0) or [known[0]])[0]


def load_manifest(path: Path) -> Manifest:
    """Read the manifest; every fault is a UserError that names the source and key."""
    try:
        raw = path.read_bytes()
        entries = json.loads(raw)["sources"]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise UserError(f"manifest {path}: {fault}", 'expected {"sources": [{"source": ..., ...}, ...]}') from None
    sources = [_parse_source(entry, index) for index, entry in enumerate(entries)]
    check_sources(sources)
    return Manifest(sources, hashlib.sha256(raw).hexdigest())


def _parse_source(entry: dict, index: int) -> Source:
    name = entry.get("source", f"number {index}")
    known = [f.name for f in fields(Source)]
    for key in entry:
        if key not in known:
            raise UserError(f"manifest, source {name!r}: unknown key {key!r}", f"did you mean {nearest(key, known)!r}?")
    if isinstance(entry.get("max_mb"), (int, float)):
        entry = {**entry, "max_mb": {s: float(entry["max_mb"]) for s in SETS}}
    try:
        return Source(**entry)
    except TypeError as fault:
        raise UserError(f"manifest, source {name!r}: {fault}".replace("Source.__init__() ", ""), "see tools/corpus/README.md") from None


def check_sources(sources: list[Source]) -> None:
    """Values are known, names are unique, no project is trained on and held out, three held-out sources a domain."""
    from formats import FORMATS

    allowed = {"registry": REGISTRIES, "split": SPLITS, "domain": (*DOMAINS, "cross", "mixed"), "format": tuple(FORMATS)}
    seen: set[str] = set()
    for s in sources:
        for key, values in allowed.items():
            value = getattr(s, key)
            if value not in values:
                hint = f"did you mean {nearest(str(value), values)!r}? known: {', '.join(values)}"
                raise UserError(f"manifest, source {s.source!r}: {key} {value!r} is unknown", hint)
        for name in (*s.sets, *s.max_mb):
            if name not in SETS:
                raise UserError(f"manifest, source {s.source!r}: set {name!r} is unknown", f"did you mean {nearest(name, SETS)!r}?")
        if (s.domain == "cross") != (s.split == "cross"):
            raise UserError(f"manifest, source {s.source!r}: domain {s.domain!r} with split {s.split!r}", "cross goes with cross")
        if s.domain == "mixed" and s.split != "train":
            raise UserError(f"manifest, source {s.source!r}: domain 'mixed' with split {s.split!r}", "to evaluate on, use domain and split cross")
        if s.registry != "generator" and not s.include:
            raise UserError(f"manifest, source {s.source!r}: include is empty", "give at least one glob, e.g. ['usr/share/doc/**/*.html']")
        if not s.licence:
            raise UserError(f"manifest, source {s.source!r}: licence is empty", "take it from the package's copyright file")
        if s.source in seen:
            raise UserError(f"manifest: source {s.source!r} is named twice", "source names are unique")
        seen.add(s.source)
    trained, mixed = {s.project for s in sources if s.split == "train"}, {s.project for s in sources if s.domain == "mixed"}
    for s in sources:
        if (s.split == "heldout" and s.project in trained) or (s.split == "cross" and s.project in mixed):
            raise UserError(f"manifest, source {s.source!r}: project {s.project!r} is both trained on and held out", "choose another")
    for domain in DOMAINS:
        for set_name in ("small", "full"):
            held = [s for s in sources if s.split == "heldout" and s.domain == domain and set_name in s.sets]
            if len(held) < 3:
                raise UserError(f"manifest: {domain} has {len(held)} held-out sources in {set_name!r}, at least 3 are needed")
