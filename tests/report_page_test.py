"""The report page: self-contained, and what a model or a corpus wrote stays text (src/apps/report_page.h)."""

import html.parser
import json
import os
import pathlib
import re
import subprocess

import pytest

from programs import ROOT

APPS = ROOT / "src/apps"
PARTS = ["report_page.html", "report_page.css", "report_charts.js", "report_samples.js", "report_page.js"]
ATLAS_PARTS = ["atlas_page.html", "report_page.css", "report_charts.js", "atlas_page.js"]
HOSTILE = "</script><script>document.title='broken'</script><!-- <img src=x onerror=alert(1)> {{report}} {{report_page.css}}"


@pytest.mark.parametrize("parts", [PARTS, ATLAS_PARTS])
def test_one_place_for_the_report_and_one_for_each_part(parts):
    places = re.findall(r"\{\{(.*?)\}\}", (APPS / parts[0]).read_text())
    assert sorted(places) == sorted(["report", *parts[1:]])


@pytest.mark.parametrize("parts", [PARTS, ATLAS_PARTS])
def test_nothing_is_loaded(parts):
    text = "".join((APPS / part).read_text() for part in parts)
    text = text.replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|<link|<img|<iframe|\bsrc=|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_text_never_becomes_markup():
    for part in PARTS[2:] + ATLAS_PARTS[3:]:
        script = (APPS / part).read_text()
        uses = [line for line in script.splitlines() if not line.lstrip().startswith("//")]
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", "\n".join(uses))


class Scripts(html.parser.HTMLParser):
    """The contents of the script elements, as a browser would cut them."""

    def __init__(self):
        super().__init__()
        self.scripts, self.open = [], False

    def handle_starttag(self, tag, attrs):
        self.open = tag == "script"
        if self.open:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag != "script"

    def handle_data(self, data):
        if self.open:
            self.scripts[-1] += data


def hostile_atlas() -> dict:
    """What build_atlas (data/atlas.h) gives, of two components in one layer, one of them dead."""
    used = {"name": HOSTILE, "layer": 0, "id": 0, "owner": 0, "bank": 0, "share": 0.4, "class_bits": 0.1, "domain_bits": 0.02, "classes": [0.2, 0.6], "picked_for": {"classes": [["digit", 1.5]], "domains": [[HOSTILE, 1.2]]},
            "domains": [0.3, 0.5], "dead": False, "contexts": [[HOSTILE, HOSTILE, HOSTILE]], "removal": {"digit": [0.5, 30]}, "removal_nats": 0.5}  # fmt: skip
    dead = {**used, "id": 1, "owner": 1, "share": 0, "dead": True, "contexts": [], "class_bits": 0, "domain_bits": 0, "classes": [0, 0], "domains": [0, 0]}
    del dead["removal"], dead["removal_nats"]
    return {"title": HOSTILE, "model": HOSTILE, "classes": ["word start", "digit"], "domains": [HOSTILE, "prose"], "layers": 1, "tokens": 1000,
            "class_tokens": [700, 300], "domain_tokens": [500, 500], "components": [used, dead], "dead": [HOSTILE],
            "owners": [{"name": "general", "always": True}, {"name": HOSTILE, "always": False}]}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> pathlib.Path:
    """Written by the C++ from a hostile report; the token list cuts a character, and one byte is no UTF-8."""
    work = tmp_path_factory.mktemp("report_page")
    (work / "apps").mkdir()
    parts = "".join(f'{{"{part}", R"part({(APPS / part).read_text()})part"}},\n' for part in sorted({*PARTS, *ATLAS_PARTS}))
    (work / "apps/report_page_parts.h").write_text(
        "#include <string_view>\n#include <utility>\nnamespace tessera {\n"
        f"inline constexpr std::pair<std::string_view, std::string_view> kReportPageParts[] = {{\n{parts}}};\n}}\n"
    )
    (work / "write.cpp").write_text(
        '#include "apps/report_page.h"\n#include "base/files.h"\nint main(int, char** argv) {\n'
        "  tessera::Json report = tessera::Json::parse(tessera::read_file(argv[1]));\n"
        '  report["samples"][0]["tokens"].push_back("\\xe7\\xbe");\n'
        '  report["samples"][0]["tokens"].push_back("\\xa4.");\n'
        '  report["samples"][0]["tokens"].push_back("\\xff");\n'
        "  tessera::write_report_page(argv[2], report);\n"
        "  tessera::write_atlas_page(argv[4], tessera::Json::parse(tessera::read_file(argv[3])));\n}\n"
    )
    sample = {"domain": HOSTILE, "prompt_tokens": 1, "tokens": ["", HOSTILE]}
    report = {"title": HOSTILE, "samples": [sample], "commands": [{"what": HOSTILE, "command": HOSTILE}],
              "data": {"sources": [{"source": HOSTILE, "domain": HOSTILE, "bytes": 1, "documents": 1}]}}  # fmt: skip
    (work / "report.json").write_text(json.dumps(report))
    (work / "atlas.json").write_text(json.dumps(hostile_atlas()))
    sources = [str(work / "write.cpp")] + [str(ROOT / "src" / f) for f in
               ("apps/report_page.cpp", "core/unicode.cpp", "base/files.cpp", "base/json.cpp")]  # fmt: skip
    subprocess.run([os.environ.get("CXX", "g++"), "-std=c++20", "-O0", f"-I{ROOT / 'src'}", f"-I{work}", *sources,
                    "-o", str(work / "write"), "-lzstd", "-lxxhash", "-lutf8proc"], check=True)  # fmt: skip
    files = ["report.json", "page.html", "atlas.json", "atlas.html"]
    subprocess.run([str(work / "write"), *(str(work / name) for name in files)], check=True)
    return work / "page.html"


def test_hostile_text_stays_in_the_json(page):
    parser = Scripts()
    parser.feed(page.read_text())
    assert len(parser.scripts) == 2
    report = json.loads(parser.scripts[0])
    assert report["title"] == HOSTILE and report["commands"][0]["command"] == HOSTILE
    assert report["samples"][0]["tokens"] == ["", HOSTILE, "", "群.", "\ufffd"]


@pytest.mark.parametrize("name", ["page.html", "atlas.html"])
def test_a_browser_shows_it_as_text(page, name):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--virtual-time-budget=2000", "--enable-logging=stderr"]  # fmt: skip
    done = subprocess.run(["chromium", *flags, f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", f"file://{page.parent / name}"],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert "<title>broken</title>" not in done.stdout and "<img" not in done.stdout
    assert re.search(r'<h1 id="title">&lt;/script&gt;', done.stdout)
