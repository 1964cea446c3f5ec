"""Prose out of games' data files: Wesnoth campaigns (WML), Cataclysm (JSON), fortune files."""

from __future__ import annotations

import json
import re

_WML_TEXT = re.compile(r'\b(message|story|description|text|note|death|\w*_text)\s*=\s*((?:_\s*"(?:[^"]|"")*"\s*\+?\s*)+)')
_WML_SPEAKER = re.compile(r"\bspeaker\s*=\s*\"?([\w' -]+)")


def wesnoth_to_text(text: str) -> str:
    """Dialogue and narration of one scenario file, a paragraph each; speakers by name."""
    paragraphs = []
    speaker = ""
    for line in re.split(r"(?=\n\s*\[)", re.sub(r"(?m)^\s*#.*$", "", text)):
        named = _WML_SPEAKER.search(line)
        speaker = named[1].strip() if named else ""
        for found in _WML_TEXT.finditer(line):
            said = "".join(re.findall(r'"((?:[^"]|"")*)"', found[2])).replace('""', '"')
            said = re.sub(r"<[^>]*>|\^", "", said)
            said = re.sub(r"[ \t]+", " ", said).strip()
            if len(said) < (15 if found[1] in ("message", "story") else 60):
                continue
            known = speaker and speaker not in ("narrator", "unit", "second_unit") and "$" not in speaker and found[1] == "message"
            paragraphs.append(f"{speaker}: {said}" if known else said)
    return "\n\n".join(paragraphs)


_CDDA_KEYS = frozenset("text dynamic_line description snippets messages sound_message".split())


def cataclysm_to_texts(text: str) -> list[str]:
    """Every sentence-like string under the keys that players read."""
    found: list[str] = []

    def walk(node: object, wanted: bool) -> None:
        if isinstance(node, str):
            if wanted and len(node) >= 60 and node.count(" ") >= 8:
                found.append(re.sub(r"<[^>]*>", "", node).strip())
        elif isinstance(node, list):
            for item in node:
                walk(item, wanted)
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, wanted and key in ("str", "yes", "no", "and") or key in _CDDA_KEYS)

    walk(json.loads(text), False)
    return [t for t in found if t]


def fortunes_to_texts(text: str) -> list[str]:
    """The sayings of a fortune file; backspace overstrikes removed."""
    return [re.sub(r".\x08", "", part).strip("\n") for part in re.split(r"(?m)^%\s*$\n?", text) if part.strip()]
