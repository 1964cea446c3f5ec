"""Offline tests of the corpus stage: unpackers on tiny inputs, document rules, manifest rules. Run with pytest."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
import zstandard

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import archives  # noqa: E402
import binary_formats  # noqa: E402
import documents  # noqa: E402
import fetch  # noqa: E402
import formats  # noqa: E402
import game_texts  # noqa: E402
import manifest as manifests  # noqa: E402
import markup  # noqa: E402
import unpack  # noqa: E402
import worked  # noqa: E402
from errors import UserError  # noqa: E402
from html_text import html_to_text  # noqa: E402

MANIFEST = HERE.parents[1] / "data/manifest.json"


def entry(**changes: object) -> dict:
    """A valid manifest entry, with changes."""
    base = {"source": "a", "project": "a", "registry": "npm", "package": "a", "format": "text", "domain": "prose", "split": "train",
            "sets": ["small", "full"], "licence": "MIT", "include": ["package/*.txt"]}
    return {**base, **changes}


def held_out() -> list[dict]:
    """Three held-out sources for each domain."""
    return [entry(source=f"{d}{i}", project=f"{d}{i}", domain=d, split="heldout") for d in manifests.DOMAINS for i in range(3)]


def write_manifest(path: Path, entries: list[dict]) -> Path:
    path.write_text(json.dumps({"sources": entries}))
    return path


# ---- converters


def test_html_keeps_text_code_and_maths_and_drops_navigation():
    page = """<html><head><title>no</title></head><body><nav>menu</nav><div class="sphinxsidebar">side</div><div role="main">
      <h1>Title<a class="headerlink">¶</a></h1><p>One <b>bold</b> word,\n x<sup>2</sup>, <img class="math" alt="\\frac12">.</p>
      <ul><li><p>first</p></li><li>second</li></ul><pre>def f():\n    <span>return</span> 1</pre><table><tr><td>a</td><td>b</td></tr></table>
      </div><footer>foot</footer><script>x()</script></body></html>"""
    text = html_to_text(page)
    assert text == "Title\n\nOne bold word, x^2, $\\frac12$.\n\n- first\n\n- second\n\ndef f():\n    return 1\n\na b"


def test_html_without_body_text_is_empty():
    assert html_to_text("<html><body><nav>only</nav></body></html>") == ""


def test_rst():
    source = "Title\n=====\n\n.. toctree::\n   a\n   b\n\nSee :ref:`that part <x>` and ``code``::\n\n    x = 1\n\n.. note::\n   :class: c\n\n   Kept.\n\n.. _target:\n"
    text = documents.clean(markup.rst_to_text(source))
    assert "Title\n\n" in text and "See that part and `code`:" in text and "    x = 1" in text and "Kept." in text
    assert not any(mark in text for mark in ("=====", "toctree", ":ref:", ":class:", "_target"))


def test_rnw_keeps_prose_code_and_formulas():
    source = ("\\documentclass{article}\n\\title{On \\emph{Things}}\n\\begin{document}\n\\section{Start}\\label{s}\nSome \\pkg{sandwich} text% comment\n"
              "<<echo=FALSE>>=\nx <- c(1, 2)\n@\nwith $\\frac{a}{b}$ \\citep{Knuth}.\n\\begin{equation}\\label{e} y = x^2 \\end{equation}\n\\end{document}\nafter")
    text = markup.tex_to_text(source)
    assert "On Things" in text and "Start" in text and "Some sandwich text" in text and "x <- c(1, 2)" in text
    assert "$\\frac{a}{b}$ [Knuth]" in text and "\\begin{equation} y = x^2 \\end{equation}" in text
    assert not any(mark in text for mark in ("<<", "\\label", "comment", "after", "documentclass", "\\pkg"))


def test_tex_unknown_commands_leave_their_text():
    assert markup.tex_to_text("use \\kbd{gp} and \\code{f} or \\'etale {\\bf x}").split() == "use gp and f or etale x".split()


def test_markdown_and_notebook():
    text = markup.markdown_to_text("---\ntitle: x\n---\n# A\n```{r chunk, echo=TRUE}\n1+1\n```\n[![b](u)](v) see [here](http://x.y)\n")
    assert text == "# A\n```\n1+1\n```\n see here\n"
    book = {"cells": [{"cell_type": "markdown", "source": ["# T\n", "words"]}, {"cell_type": "code", "source": "%matplotlib inline\nx = 1"}, {"cell_type": "code", "source": ""}]}
    assert markup.notebook_to_text(json.dumps(book)) == "# T\nwords\n\nx = 1"


def test_info_nodes_without_headers_menus_and_indexes():
    long = "Words of the chapter that say something about the matter at hand, at length."
    info = f"preamble\x1f\nFile: a.info,  Node: Intro,  Up: Top\n\nIntro\n*****\n\n{long}\n\n* Menu:\n\n* Sub::   more\n\x1f\nFile: a.info,  Node: Concept Index\n\n{long}\n"
    assert markup.info_to_nodes(info) == [f"Intro\n\n\n{long}"]


def test_metamath_statements_without_proofs():
    source = "$( Introduction axiom of the calculus, principle ~ ax-2 of simplification. (Contributed by N, 1-Jan-93.) $)\nax-1 $p |- ( ph -> ( ps -> ph ) ) $= wph wps $.\n"
    (text,) = formats.FILE_FORMATS["metamath"](source)
    assert text == "ax-1. Introduction axiom of the calculus, principle ax-2 of simplification.\n    |- ( ph -> ( ps -> ph ) )"


def test_wesnoth_cataclysm_and_fortunes():
    wml = '[message]\n speaker=Kai\n message= _ "We march ""at dawn"" to the river."\n[/message]\n[story]\n story= _ "Long ago there was a king." \n'
    assert game_texts.wesnoth_to_text(wml) == 'Kai: We march "at dawn" to the river.\n\nLong ago there was a king.'
    long = "A long and useful sentence about the end of the world and what to eat then."
    assert game_texts.cataclysm_to_texts(json.dumps([{"id": long, "text": [long, "no"]}])) == [long]
    assert game_texts.fortunes_to_texts("one\n%\ntwo\n%\n") == ["one", "two"]


def test_sword_module():
    verses = [b"<verse>In the <note>x</note>beginning</verse>", b"there was"]
    block = b"".join(verses)
    packed = zlib.compress(block)
    files = {"m/ot.bzs": struct.pack("<III", 0, len(packed), len(block)), "m/ot.bzz": packed,
             "m/ot.bzv": struct.pack("<IIH", 0, 0, 0) + struct.pack("<IIH", 0, 0, len(verses[0])) + struct.pack("<IIH", 0, len(verses[0]), len(verses[1]))}
    assert binary_formats.sword_entries(files) == ["In the beginning", "there was"]


def test_rdata_strings():
    strings = b"".join(struct.pack(">Ii", 0x00040009, len(s)) + s for s in (b"EMMA", b"by"))
    block = b"X\n" + struct.pack(">Ii", 16, 2) + strings
    rdb = struct.pack(">I", len(block)) + zlib.compress(block)
    assert binary_formats.rdata_strings(rdb + rdb, at_least=2) == [["EMMA", "by"]] * 2


def test_dictd_and_wordnet():
    body = b"headword\n   the meaning\n"
    files = {"d.index": b"00-database-info\tA\tB\nheadword\tA\tX\n", "d.dict.dz": gzip.compress(body)}
    assert binary_formats.dictd_entries(files) == ["headword\n   the meaning"]
    line = "  1 licence\n00001740 03 n 02 entity 0 thing_b 1 000 | that which exists; \"an example\"  \n"
    assert binary_formats.wordnet_entries(line) == ['entity, thing b (noun): that which exists; "an example"']


def test_undecodable_is_refused():
    with pytest.raises(formats.Undecodable):
        formats.decode(b"abc\x00\x01")
    assert formats.decode("naïve".encode("latin-1")) == "naïve"


# ---- documents


def test_split_long_keeps_everything_and_cuts_at_paragraphs():
    text = "\n\n".join(f"paragraph {i} " + "word " * 50 for i in range(200)).strip()
    pieces = documents.split_long(text, 10_000)
    assert all(2_000 < len(p) <= 10_000 for p in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(p.startswith("paragraph") for p in pieces)


def test_split_long_without_any_break():
    assert [len(p) for p in documents.split_long("x" * 25, 10)] == [10, 10, 5]


def test_unusable_documents():
    assert documents.why_unusable("short") == "too short"
    assert documents.why_unusable("1234 5678 " * 100) == "mostly numbers or symbols"
    assert documents.why_unusable("Это не английский текст, " * 50) == "not in English"
    assert documents.why_unusable("A plain English sentence, nothing more. " * 20) is None


def test_worked_problems_are_the_same_every_time_and_right():
    assert worked.worked_document(7) == worked.worked_document(7) != worked.worked_document(8)
    for family in worked.FAMILIES:
        for seed in range(40):
            problem, steps = family(random.Random(seed))
            assert problem and steps and "None" not in problem + steps
    assert sum(len(text) for _, text in worked.worked_documents(20_000)) >= 20_000


# ---- manifest


def test_shipped_manifest_is_valid_and_names_held_out_sources():
    loaded = manifests.load_manifest(MANIFEST)
    for set_name in ("small", "full"):
        for domain in manifests.DOMAINS:
            held = [s for s in loaded.for_set(set_name) if s.split == "heldout" and s.domain == domain]
            assert len(held) >= 3
    small, full = ({s.source for s in loaded.for_set(n) if s.split == "heldout"} for n in ("small", "full"))
    assert small == full
    trained = {s.project for s in loaded.sources if s.split == "train"}
    assert not trained & {s.project for s in loaded.sources if s.split == "heldout"}


def test_unknown_key_names_the_nearest(tmp_path: Path):
    with pytest.raises(UserError) as fault:
        manifests.load_manifest(write_manifest(tmp_path / "m.json", [entry(licens="MIT")]))
    assert "licens" in fault.value.message and "'licence'" in fault.value.hint


@pytest.mark.parametrize("changes, said", [
    ({"format": "htlm"}, "htlm"), ({"domain": "mixed", "split": "heldout"}, "mixed"), ({"split": "test"}, "split"), ({"sets": ["smal"]}, "smal"), ({"include": []}, "include"), ({"licence": ""}, "licence"),
])
def test_wrong_values_are_refused(tmp_path: Path, changes: dict, said: str):
    with pytest.raises(UserError, match=said):
        manifests.load_manifest(write_manifest(tmp_path / "m.json", [entry(**changes), *held_out()]))


def test_missing_key_two_held_out_and_mixed_project(tmp_path: Path):
    incomplete = entry()
    del incomplete["licence"]
    for entries, said in (([incomplete], "licence"), (held_out()[1:], "at least 3"), ([entry(project="code1"), *held_out()], "both trained on and held out")):
        with pytest.raises(UserError, match=said):
            manifests.load_manifest(write_manifest(tmp_path / "m.json", entries))


# ---- archives and the whole command


def put_npm(cache: Path, package: str, files: dict[str, bytes]) -> None:
    folder = archives.package_dir(cache, "npm", package)
    folder.mkdir(parents=True)
    with tarfile.open(folder / f"{package}-1.0.tgz", "w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_globs():
    wanted = unpack.make_matcher(["usr/**/*.{py,pyi}"], ["**/test/**"])
    assert wanted("usr/lib/a.py") and wanted("usr/a.pyi") and not wanted("usr/test/a.py") and not wanted("usr/a.pyc")
    digits = unpack.make_matcher(["**/p0[0-7]?.html"], [])
    assert digits("a/p071.html") and not digits("a/p081.html")


def test_fetch_writes_documents_and_a_second_call_reuses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    entries = held_out() + [entry(source="book", project="book", package="book", max_mb={"small": 0.003})]
    for e in entries:
        text = f"This is the text of {e['package']}, a book of some length with words in it. " * 25
        if not archives.find_archive(tmp_path / "cache", "npm", e["package"]):
            put_npm(tmp_path / "cache", e["package"], {f"package/{i}.txt": (f"{i} " + text).encode() for i in range(3)} | {"package/b.txt": b"\x00\x01", "package/x.md": b"x"})
    m = write_manifest(tmp_path / "m.json", entries)
    call = ["small", "--manifest", str(m), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "raw"), "--workers", "1"]
    assert fetch.main(call) == 0
    rows = [json.loads(line) for line in zstandard.ZstdDecompressor().stream_reader(open(tmp_path / "raw/book.jsonl.zst", "rb")).read().splitlines()]
    assert len(rows) == 2 and rows[0].keys() >= {"text", "domain", "source", "licence", "split"}
    summary = json.loads((tmp_path / "raw/fetch.json").read_text())
    assert summary["sources"][0]["dropped"] == {"binary": 1}
    assert summary["sources"][-1]["dropped"] == {"over max_mb": 2} and len(summary["manifest_sha256"]) == 64
    capsys.readouterr()
    assert fetch.main(call) == 0 and "up to date" in capsys.readouterr().out


def test_package_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package nosuch\n")

    monkeypatch.setattr(archives.subprocess, "run", refuse)
    m = write_manifest(tmp_path / "m.json", [entry(package="nosuch", registry="debian"), *[{**e, "package": "nosuch", "registry": "debian"} for e in held_out()]])
    code = fetch.main(["small", "--manifest", str(m), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "raw"), "--workers", "1"])
    said = capsys.readouterr().err
    assert code == 2 and "'nosuch'" in said and "apt-get" in said and "apt-get update" in said
    assert not (tmp_path / "raw").exists() and not list(tmp_path.glob(".raw*")) and not [p for p in (tmp_path / "cache/debian").iterdir()]
