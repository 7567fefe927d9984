"""JSON of people: read as a whole, or item by item where a file is larger than what it becomes."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pixelwise.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
HEAD = 1 << 18
"""Bytes of a file's beginning that show its format."""


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: no such file, or wrong JSON; the message has the line.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(path, error) from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path} is no JSON that can be read: {str(error)[:200] or 'too deep'}.") from None


def read_text(path: Path) -> str:
    """Read a text in UTF-8, UTF-16 or UTF-32.

    Raises:
        DataError: no such file, or other bytes.
    """
    try:
        raw = path.read_bytes()
        return raw.decode(json.detect_encoding(raw))
    except OSError as error:
        raise DataError(f"Reading {path} failed: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: byte {error.start} is not UTF-8. Export it again.") from None


def head_of(path: Path) -> str:
    """Return the beginning of a text file; empty, where there is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(HEAD)
        return raw.decode(json.detect_encoding(raw), errors="replace").lstrip("\ufeff")
    except OSError:
        return ""


def json_members(path: Path, streamed: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield each key of an object with its value; for lists in ``streamed``, the key with each item.

    So only the text and one item are in memory at a time.

    Raises:
        DataError: no such file, wrong JSON (the message has the line), or no object.
    """
    text = read_text(path)
    decode = json.JSONDecoder().raw_decode

    def skip(at: int) -> int:
        match = _SPACE.match(text, at)
        return match.end() if match else at

    def expect(at: int, allowed: str) -> str:
        if text[at : at + 1] in tuple(allowed):
            return text[at]
        raise json.JSONDecodeError(f"Expecting one of {' '.join(allowed)}", text, at)

    try:
        at = skip(0)
        expect(at, "{")
        at = skip(at + 1)
        while text[at : at + 1] != "}":
            expect(at, '"')
            key, at = decode(text, at)
            at = skip(at)
            expect(at, ":")
            at = skip(at + 1)
            if key in streamed and text[at : at + 1] == "[":
                at = skip(at + 1)
                while text[at : at + 1] != "]":
                    item, at = decode(text, at)
                    yield key, item
                    at = skip(at)
                    at = skip(at + 1) if expect(at, ",]") == "," else at
                at += 1
            else:
                value, at = decode(text, at)
                yield key, value
            at = skip(at)
            at = skip(at + 1) if expect(at, ",}") == "," else at
    except json.JSONDecodeError as error:
        raise _damaged(path, error) from None
    except RecursionError:
        raise DataError(f"{path} is no JSON that can be read: it is nested too deeply.") from None


def _damaged(path: Path, error: json.JSONDecodeError) -> DataError:
    cut = " The file is cut off." if error.pos >= len(error.doc.rstrip()) - 1 else ""
    return DataError(
        f"{path} is damaged JSON at line {error.lineno}, column {error.colno}: {error.msg}.{cut} Export it again."
    )
