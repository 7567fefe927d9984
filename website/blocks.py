"""The fenced blocks of a page, as Sybil finds them, and the marks in comments that say how a test runs them."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sybil import Document, Example, Region
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

MARKS = ("settings", "fails", "prints")
"""Directives of their own: `<!-- fails: next -->`. Sybil's are `skip` and `invisible-code-block`."""
INFO = re.compile(r'(?P<language>[\w.+-]*)(?: title="(?P<title>[^"\n]+)")?[^\n]*\n')


@dataclass(frozen=True)
class Block:
    """What stands between two fences, or in a comment that a test runs and a reader does not see.

    Attributes:
        title: of a block that is a file (``toml title="mine.toml"``), its name.
        hidden: whether it is a comment.
    """

    language: str
    title: str | None
    source: str
    hidden: bool = False


@dataclass(frozen=True)
class Mark:
    """A directive in a comment, such as ``settings`` with what follows it."""

    name: str
    text: str


def parse(path: str, evaluate: Callable[[Example], None]) -> Document:
    """Return a page whose examples are `Block` and `Mark`, in their order.

    Args:
        evaluate: called with each of them that `skip` does not leave out, when the example is evaluated.
    """
    return Document.parse(path, SkipParser(), lambda document: _regions(document, evaluate))


def _regions(document: Document, evaluate: Callable[[Example], None]) -> Iterable[Region]:
    for found in RawFencedCodeBlockLexer(INFO)(document):
        language, title, source = (found.lexemes[name] for name in ("language", "title", "source"))
        yield Region(found.start, found.end, Block(language, title, source), evaluate)
    for found in DirectiveInHTMLCommentLexer("invisible-code-block", r"\w+")(document):
        block = Block(found.lexemes["arguments"], None, found.lexemes["source"], hidden=True)
        yield Region(found.start, end_of_comment(document, found.end), block, evaluate)
    for name in MARKS:
        for found in DirectiveInHTMLCommentLexer(name)(document):
            mark = Mark(name, found.lexemes["arguments"].strip())
            yield Region(found.start, end_of_comment(document, found.end), mark, evaluate)


def end_of_comment(document: Document, end: int) -> int:
    """Return where a comment ends, in which Sybil's region may end earlier."""
    return end if document.text[:end].endswith("-->") else document.text.index("-->", end) + len("-->")
