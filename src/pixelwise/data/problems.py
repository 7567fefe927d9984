"""Join problems of one kind into one paragraph, with a count and the files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.labels import SHOWN_FILES, UnknownMaskValuesError


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, or with a file and its partner."""

    error: DataError
    paths: tuple[Path, ...]
    """The files that the message may name."""

    @property
    def file(self) -> str:
        """The file that the message names first."""
        said = str(self.error)
        named = [(said.index(str(path)), str(path)) for path in self.paths if str(path) in said]
        return min(named)[1] if named else str(self.paths[0])

    @property
    def kind(self) -> object:
        """Two problems are of one kind if their messages differ only in files and numbers."""
        if isinstance(self.error, UnknownMaskValuesError):
            return self.error.table.values
        text = str(self.error)
        for path in sorted(map(str, self.paths), key=len, reverse=True):
            text = text.replace(path, "@")
        return re.sub(r"\d[\d.,]*", "#", text)


def grouped(problems: Sequence[Problem]) -> list[str]:
    """Return a paragraph for each kind of problem, in the order of their first files."""
    kinds: dict[object, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return [_paragraph(each) for each in kinds.values()]


def _paragraph(problems: list[Problem]) -> str:
    error, others = problems[0].error, problems[1:]
    if isinstance(error, UnknownMaskValuesError):
        for other in others:
            assert isinstance(other.error, UnknownMaskValuesError)
            error = error.joined(other.error)
        return str(error)
    if not others:
        return str(error)
    more = f" and {len(others) - SHOWN_FILES} more" if len(others) > SHOWN_FILES else ""
    named = ", ".join(other.file for other in others[:SHOWN_FILES])
    return f"{error} The same is wrong with {len(others)} more: {named}{more}."
