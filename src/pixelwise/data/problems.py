"""Problems of one kind become one paragraph, with a count and all files."""

import re
from collections.abc import Sequence

from pixelwise.errors import DataError
from pixelwise.labels import SHOWN_FILES, UnknownMaskValuesError

PATH = re.compile(r"(?:[A-Za-z]:)?[^\s,;()]*/[^,;()]*?\.\w+(?=[\s.,;()]|$)|[^\s,;()/]+\.[A-Za-z]{2,5}(?=[\s.,;()]|$)")
"""A file in a message: what has a slash, or ends as a file does."""


def grouped(problems: Sequence[DataError]) -> list[str]:
    """Return a paragraph for each kind of problem, in the order of their first files.

    Two problems are of one kind where their messages differ in files and numbers alone.
    """
    kinds: dict[object, list[DataError]] = {}
    for problem in problems:
        kinds.setdefault(_kind(problem), []).append(problem)
    return [_paragraph(each) for each in kinds.values()]


def _kind(problem: DataError) -> object:
    if isinstance(problem, UnknownMaskValuesError):
        return id(problem.table.classes), problem.table.values
    return re.sub(r"[0-9a-fA-F]*\d[0-9a-fA-F.,]*", "#", PATH.sub("@", str(problem)))


def _paragraph(problems: list[DataError]) -> str:
    first, *others = problems
    if isinstance(first, UnknownMaskValuesError):
        for other in others:
            assert isinstance(other, UnknownMaskValuesError)
            first = first.joined(other)
        return str(first)
    named = list(dict.fromkeys(_file(problem) for problem in others))
    if not others:
        return str(first)
    more = f" and {len(named) - SHOWN_FILES} more" if len(named) > SHOWN_FILES else ""
    return f"{first} The same is wrong with {len(others)} more: {', '.join(named[:SHOWN_FILES])}{more}."


def _file(problem: DataError) -> str:
    found = PATH.search(str(problem))
    return found.group() if found else str(problem)
