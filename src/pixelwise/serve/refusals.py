"""What a request is told when it is refused: what is wrong, and what to do."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from pixelwise.errors import ConfigError, DataError, MissingExtraError, NotEnoughMemoryError, PixelwiseError

KINDS = {
    DataError: "unreadable_image",
    ConfigError: "wrong_value",
    MissingExtraError: "not_installed",
    NotEnoughMemoryError: "too_large",
}
"""Errors of the library -> their code."""


class Refusal(HTTPException):
    """A request that is not answered as it wished."""

    def __init__(self, status: int, code: str, message: str, fix: str, *, again: int | None = None) -> None:
        """Refuse a request.

        Args:
            status: of HTTP.
            code: a word for programs.
            message: what is wrong, with the value.
            fix: what to do.
            again: seconds after which it is worth another try.
        """
        headers = {} if again is None else {"Retry-After": str(again)}
        headers |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        super().__init__(status, message, headers)
        self.code, self.message, self.fix = code, message, fix


def busy(seconds: int) -> Refusal:
    """Refuse a request, since too many wait."""
    return Refusal(503, "busy", "Too many requests wait.", f"Try again in {seconds} s.", again=seconds)


def too_large(what: str, limit: str, fix: str) -> Refusal:
    """Refuse what is above a limit."""
    return Refusal(413, "too_large", f"{what}, and the limit is {limit}.", fix)


def refusal_of(problem: PixelwiseError) -> Refusal:
    """Return the refusal that says what an error of the library says."""
    code = next((code for kind, code in KINDS.items() if isinstance(problem, kind)), "refused")
    status = 503 if isinstance(problem, NotEnoughMemoryError | MissingExtraError) else 422
    text = str(problem)
    # The last sentence of a message says what to do.
    message, _, fix = text.rpartition(". ")
    return Refusal(status, code, f"{message}." if message else text, fix if message else "See /docs.")


def content(problem: Refusal, path: str, clean: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of a refusal: as the Open Inference Protocol has it below /v2, else with code and fix.

    Args:
        clean: folders of this machine -> what they are called in answers.
    """
    message, fix = hidden(problem.message, clean), hidden(problem.fix, clean)
    if path.startswith("/v2"):
        return {"error": f"{message} {fix}".strip()}
    return {"error": {"code": problem.code, "message": message, "fix": fix}}


def hidden(text: str, names: Mapping[str, str]) -> str:
    """Return a text without the machine's folders.

    The longest that are known are replaced first. Of any other path from the root, such as one that a file names, only
    the last part is left.
    """
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return re.sub(r"(?<![\w:/.~])/[^\s'\",;:)]+", _last_part, text)


def _last_part(match: re.Match[str]) -> str:
    path = Path(match[0])
    # /jobs/ID is an address of ours, and no folder.
    return path.name if len(path.parts) > 2 and os.path.isdir(f"/{path.parts[1]}") else match[0]
