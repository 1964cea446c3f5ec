"""HTML to readable text: the main part of the page, paragraphs separated by a blank line, code and maths kept."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

_NOISE = ", ".join(
    "script style noscript nav header footer form button svg iframe template head "
    "[role=navigation] [role=search] .sphinxsidebar .related .navheader .navfooter .footer .header .nav-panel .node-links "
    "a.headerlink .headerlink .linenos .sidebar .toctree-wrapper .contents .toc .navigation .breadcrumb .breadcrumbs "
    ".prev-next-area .bd-sidebar .bd-toc .copybtn .viewcode-link .sourcelink .chlinkprevnexttop .chlinkprevnextbot "
    ".chlinktop .pcenter .edit-page table.index-entries-cp table.menu ul.menu .buttons .waystouse .docnav .copiable-link .copiable-anchor .ContChap .ContSect .mini-toc ul.toc ul.mini-toc .shortcontents .element-shortcontents .element-contents .sphx-glr-download .sphx-glr-footer .admonition.seealso".split()
)
_MAIN = ("div[role=main]", "main", "article", "div.bodywrapper div.body", "div.body", "div.document", "div#content", "body")
_BLOCK = frozenset(
    "p div section article main ul ol li dl dt dd table tr blockquote pre h1 h2 h3 h4 h5 h6 hr figure figcaption caption "
    "tbody thead tfoot center address details summary body html fieldset".split()
)
_PARAGRAPH = frozenset("p div section ul ol dl table blockquote pre h1 h2 h3 h4 h5 h6 figure".split())
_INLINE = "span a em strong b i u tt code kbd samp var cite small big abbr acronym font label dfn q s strike ins del mark time".split()
_BULLET = re.compile(r"(?m)^-\n+(?=\S)")
_SPACE = re.compile(r"[ \t\r\n\f]+")


def html_to_text(html: str, skip: tuple[str, ...] = ()) -> str:
    """The page's own text, or '' where there is none. `skip`: further CSS selectors to drop."""
    tree = LexborHTMLParser(html)
    for selector in (_NOISE, *skip):
        for node in tree.css(selector):
            node.decompose()
    for node in tree.css("img[alt]"):
        alt = node.attributes.get("alt") or ""
        if "math" in (node.attributes.get("class") or "") and alt:
            node.replace_with(f"${alt}$")
    for node in tree.css("math"):
        tex = node.css_first("annotation[encoding='application/x-tex']")
        if tex is not None:
            node.replace_with(f"${tex.text()}$")
    for node in tree.css("sup, sub"):
        mark = "^" if node.tag == "sup" else "_"
        inner = node.text().strip()
        node.replace_with(mark + (inner if len(inner) <= 1 else "{" + inner + "}") if inner else "")
    main = next((found for found in (tree.css_first(s) for s in _MAIN) if found is not None), None)
    if main is None:
        return ""
    main.unwrap_tags(_INLINE)
    writer = _Writer()
    _walk(main, writer)
    return writer.text()


class _Writer:
    """Collects text; collapses white space outside <pre>; at most one blank line between blocks."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._gap = "\n\n"

    def inline(self, text: str) -> None:
        self._line.append(text)

    def end(self, gap: str = "\n") -> None:
        """Close the current line; the next block starts after `gap` or after a stronger one asked for before."""
        line = _SPACE.sub(" ", "".join(self._line)).strip()
        self._line.clear()
        if line:
            self._push(line)
            self._gap = gap
        elif len(gap) > len(self._gap):
            self._gap = gap

    def verbatim(self, text: str) -> None:
        self.end("\n\n")
        text = text.replace("\r\n", "\n").strip("\n").rstrip()
        if text.strip():
            self._push(text)
            self._gap = "\n\n"

    def _push(self, text: str) -> None:
        if self._blocks:
            self._blocks.append(self._gap)
        self._blocks.append(text)
        self._gap = "\n"

    def text(self) -> str:
        self.end()
        return _BULLET.sub("- ", "".join(self._blocks)).replace(" ¶", "").replace("¶", "")


def _walk(node: LexborNode, out: _Writer) -> None:
    child = node.child
    while child is not None:
        tag = child.tag
        if tag == "-text":
            out.inline(child.text_content or "")
        elif tag == "br":
            out.end("\n")
        elif tag == "pre":
            out.verbatim(child.text())
        elif tag in ("td", "th"):
            out.inline(" ")
            _walk_cell(child, out)
            out.inline("  ")
        elif tag == "img":
            pass
        elif tag in _BLOCK:
            gap = "\n\n" if tag in _PARAGRAPH else "\n"
            out.end(gap)
            if tag == "li":
                out.inline("- ")
            _walk(child, out)
            out.end(gap)
        elif tag is not None and not tag.startswith("-"):
            _walk(child, out)
        child = child.next


def _walk_cell(cell: LexborNode, out: _Writer) -> None:
    """A table cell: kept on the row's line unless it holds code."""
    if cell.css_first("pre") is not None or len(cell.text()) > 400:
        out.end("\n")
        _walk(cell, out)
        out.end("\n")
    else:
        out.inline(cell.text(separator=" "))
