"""The codes of findings. They are stable: scripts and other tools rely on them. docs/check.md lists them."""

from typing import Literal

from pixelwise.codes import Code, codes

Severity = Literal["error", "warning"]

CODES: dict[str, Code] = {code: about for code, about in codes().items() if code.startswith(("PW1", "PW2"))}
"""Code -> what it means. PW1xx are errors, which stop training; PW2xx are warnings."""


def severity_of(code: str) -> Severity:
    """Return whether a code is an error or a warning."""
    return "error" if code.startswith("PW1") else "warning"
