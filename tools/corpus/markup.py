"""Light clean-up of text markups (reStructuredText, LaTeX, Markdown, notebooks, Info): readable text, not a renderer."""

from __future__ import annotations

import json
import re

# ---------------------------------------------------------------- reStructuredText

_RST_ROLE = re.compile(r":[\w:+.-]+:`~?!?([^`<]*?)\s*(?:<[^`>]*>)?`")
_RST_BARE_ROLE = re.compile(r":[\w:+.-]+:`<?([^`<>]*)>?`")
_RST_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`__?")
_RST_ADORN = re.compile(r"^([=\-~^\"'`#*+.:_])\1{2,}\s*$")
_RST_DIRECTIVE = re.compile(r"^(\s*)\.\. ([\w:-]+)::\s*(.*)$")
_RST_DROPPED = frozenset(
    "toctree image figure include index only contents highlight currentmodule module sectionauthor moduleauthor raw "
    "kernel-doc kernel-figure literalinclude automodule autoclass autofunction autosummary csv-table meta tabs".split()
)
_RST_TITLED = frozenset("code code-block sourcecode math parsed-literal highlight doctest ipython".split())


def rst_to_text(text: str) -> str:
    """Drop directives' wrapping, roles, targets and title rules; keep prose, code and maths."""
    out: list[str] = []
    dropping: int | None = None  # the indent of a directive whose body is dropped
    options = False  # within a kept directive's ":option: value" lines
    for line in text.expandtabs(8).splitlines():
        indent = len(line) - len(line.lstrip())
        if dropping is not None:
            if not line.strip() or indent > dropping:
                continue
            dropping = None
        if options and re.match(r"\s+:[\w-]+:", line):
            continue
        options = False
        found = _RST_DIRECTIVE.match(line)
        if found:
            name, argument = found[2].lower(), found[3]
            if name in _RST_DROPPED:
                dropping = indent
                continue
            options = True
            if name in _RST_TITLED and name != "math":
                argument = ""
            if argument:
                out.append(found[1] + argument)
            continue
        if re.match(r"\s*\.\. \|.*\| ", line) or re.match(r"\s*\.\. _[^:]*:", line):
            continue
        if re.match(r"\s*\.\.( |$)", line):  # a comment
            dropping = indent
            continue
        if _RST_ADORN.match(line):
            continue
        out.append(line)
    joined = "\n".join(out)
    joined = _RST_ROLE.sub(r"\1", joined)
    joined = _RST_BARE_ROLE.sub(r"\1", joined)
    joined = _RST_LINK.sub(r"\1", joined)
    joined = re.sub(r"``([^`\n]+)``", r"`\1`", joined)
    return re.sub(r"::$", ":", joined, flags=re.M)


# ---------------------------------------------------------------- LaTeX and Sweave

_MATH_ENV = r"equation|align|eqnarray|displaymath|math|gather|multline|flalign"
_TEX_KEPT = re.compile(
    r"^<<[^\n]*>>=[ \t]*\n(?P<chunk>.*?)^@[^\n]*$"
    r"|\\begin\{(?P<env>(?:[A-Z]?[vV]erbatim|lstlisting|code|s?code|script|scodebit|CodeInput|CodeOutput|Sinput|Soutput|Schunk)\*?)\}(?:\[[^\]]*\])?\n?(?P<verb>.*?)\\end\{(?P=env)\}"
    r"|\\bprog[a-z@]*(?P<prog>.*?)[\\@]eprog"
    r"|(?P<math>\\begin\{(?P<menv>(?:" + _MATH_ENV + r")\*?)\}.*?\\end\{(?P=menv)\}|\$\$.*?\$\$|\\\[.*?\\\]|(?<!\\)\$[^$]{1,400}?(?<!\\)\$)",
    re.M | re.S,
)
_TEX_COMMENT = re.compile(r"(?<!\\)%.*$", re.M)
_TEX_DROP = re.compile(
    r"\\(?:label|index|vspace\*?|hspace\*?|includegraphics|bibliography|bibliographystyle|input|include|usepackage|pagestyle|sidx|"
    r"thispagestyle|setcounter|addtolength|setlength|SweaveOpts|setkeys|definecolor|hypersetup|phantomsection|addcontentsline|"
    r"begin|end|newcommand|renewcommand|Sexpr|marginpar|scriptcaption|vskip|hskip|kern)\b\*?\s*(?:\[[^\]]*\])?(?:\{(?:[^{}]|\{[^{}]*\})*\})*(?:\[[^\]\n]{0,12}\])?"
)
_TEX_HEAD = re.compile(
    r"\\(?:part|chapter|section|subsection|subsubsection|subsec|subsubsec|paragraph|title|caption)\*?\s*(?:\[[^\]]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_TEX_CITE = re.compile(
    r"\\(?:cite|citep|citet|citeyear|citealp|citealt|citeauthor|citenp|ref|eqref|pageref|autoref|secref|kbdsidx)\*?\s*(?:\[[^\]]*\])*\{([^{}]*)\}"
)
_TEX_NAME = re.compile(r"\\(LaTeX|TeX|GRETL|Gretl|ldots|dots|copyright)\b(?:\{\})?")
_TEX_COMMAND = re.compile(r"\\[a-zA-Z@]+\*?\s*(?:\[[^\]\n]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}(?:\{([^{}]*)\})?(?:\{([^{}]*)\})?")
_TEX_ACCENT = re.compile(r"\\(?:[\"'`^~=.]\s*\{?\\?|[cvuHr]\{)([a-zA-Z])\}?")


def tex_to_text(text: str) -> str:
    """The document's body: headings, prose, formulas and code; layout commands, labels and comments gone."""
    text = text.replace("\r\n", "\n")
    body = text.find("\\begin{document}")
    if body >= 0 and "\\documentclass" in text[:5_000]:
        title = re.search(r"\\title\{((?:[^{}]|\{[^{}]*\})*)\}", text[:body])
        text = text[body:].removeprefix("\\begin{document}").partition("\n\\end{document}")[0]
        text = (f"\\section{{{title[1]}}}\n\n" if title else "") + text
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        shown = next(part for part in (found["chunk"], found["verb"], found["prog"], found["math"]) if part is not None)
        shown = re.sub(r"\\label\{[^{}]*\}", "", shown) if found["math"] else "\n\n" + shown.strip("\n") + "\n\n"
        kept.append(shown)
        return f"\x00{len(kept) - 1}\x00"

    text = _TEX_KEPT.sub(keep, text)
    text = re.sub(r"\\verb\*?([^a-zA-Z\s*])(.*?)\1", r"\2", text)
    text = _TEX_COMMENT.sub("", text)
    text = _TEX_DROP.sub("", text)
    text = _TEX_HEAD.sub(r"\n\n\1\n\n", text)
    text = _TEX_CITE.sub(r"[\1]", text)
    text = re.sub(r"\\(?:footnote|thanks)\{((?:[^{}]|\{[^{}]*\})*)\}", r" (\1)", text)
    text = re.sub(r"\\item\s*(?:\[([^\]]*)\])?\s*", lambda m: f"- {m[1]}: " if m[1] else "- ", text)
    text = _TEX_ACCENT.sub(r"\1", _TEX_NAME.sub(r"\1", text))
    for _ in range(3):
        text = _TEX_COMMAND.sub(lambda m: " ".join(part for part in m.groups() if part), text)
    text = re.sub(r"\\[a-zA-Z@]+\*?[ \t]?", "", text)
    text = re.sub(r"``|''", '"', text).replace("~", " ").replace("\\\\", "\n")
    text = re.sub(r"\\([%_&$#{}\- ,;:!/])", r"\1", text)
    text = re.sub(r"(?<![\\\w])\{([^{}\n]*)\}", r"\1", text)
    text = re.sub(r"\x00(\d+)\x00", lambda m: kept[int(m[1])], text)
    text = re.sub(r"(?m)^[ \t]*\\(?:begin|end)\{(?!" + _MATH_ENV + r")[^{}]*\}[ \t]*$", "", text)
    return re.sub(r"\n[ \t]*\n\s*\n", "\n\n", text)


# ---------------------------------------------------------------- Markdown, R Markdown, notebooks


def markdown_to_text(text: str) -> str:
    """Drop front matter, HTML comments, badges and chunk options; keep everything a reader sees."""
    text = text.replace("\r\n", "\n")
    text = re.sub(r"\A---\n.*?\n(?:---|\.\.\.)\n", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"^(\s*)```\s*\{\s*[,.]?(\w*)[^}\n]*\}", r"\1```", text, flags=re.M)
    text = re.sub(r"\[?!\[[^\]]*\]\([^)]*\)(?:\]\([^)]*\))?", "", text)
    text = re.sub(r"(?<!!)\[([^\]\n]+)\]\([^)\s]+(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"(?s)<(style|script)\b.*?</\1>", "", text)
    text = re.sub(r"<div class=\"([^\"]*)\".*?>|</div>", "", text)
    text = re.sub(r"data:image/[^)\"'\s]+", "", text)
    return text


def notebook_to_text(text: str) -> str:
    """Markdown and code cells in order; outputs dropped."""
    parts = []
    for cell in json.loads(text).get("cells", []):
        source = "".join(cell.get("source", []))
        if not source.strip():
            continue
        if cell.get("cell_type") == "markdown":
            parts.append(markdown_to_text(source).strip())
        elif cell.get("cell_type") == "code":
            parts.append(re.sub(r"^%.*\n?", "", source, flags=re.M).strip())
    return "\n\n".join(p for p in parts if p)


# ---------------------------------------------------------------- GNU Info

_INFO_INDEX = re.compile(r"(?i)\b(index|copying|licen[cs]e|top)\b")


def info_to_nodes(text: str) -> list[str]:
    """The nodes of an Info file without headers, menus and index nodes."""
    nodes = []
    for node in text.split("\x1f"):
        node = node.lstrip("\n\f")
        head, _, body = node.partition("\n")
        if not head.startswith("File:"):
            continue
        name = re.search(r"Node: ([^,\n]*)", head)
        if name and _INFO_INDEX.search(name[1]):
            continue
        body = re.sub(r"(?m)^\* Menu:\s*$", "", body)
        body = re.sub(r"(?m)^\* [^\n]*::[^\n]*\n(?:[ \t]{6,}[^\n]*\n)*", "", body)
        body = re.sub(r"(?m)^([*=\-.~])\1{2,}[ \t]*$", "", body)
        body = re.sub(r"\*[Nn]ote ([^:]+)::", r"\1", body)
        body = re.sub(r"\x00\x08\[[^\]]*\]?\x00\x08\]?", "", body)
        if len(body.strip()) > 60:
            nodes.append(body.strip("\n"))
    return nodes
