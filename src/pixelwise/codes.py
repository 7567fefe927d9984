"""Codes of errors and findings, with what each means. The table is ``codes.toml``."""

import difflib
import re
import textwrap
import tomllib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

GROUPS = {
    "PW1": "Findings of a check: errors",
    "PW2": "Findings of a check: warnings",
    "PW3": "Configurations, options and arguments",
    "PW4": "Images, masks, scenes, polygons and annotations",
    "PW5": "Weights and models",
    "PW6": "Runs, training, evaluation and searches",
    "PW7": "Exports",
    "PW8": "Outputs and the disk",
    "PW9": "The machine",
}
"""First letters of a code -> what such codes are about."""

WIDTH = 100
"""Characters of a line in a terminal."""


@dataclass(frozen=True)
class Code:
    """A kind of error or finding."""

    what: str
    """What is wrong, for the head of a row."""
    why: str
    """The likely reason, and what follows from it."""
    fix: str
    """What to do."""
    example: str
    """A file or a command that goes wrong and one that does not."""

    def to_dict(self) -> dict[str, str]:
        """Return what ``--json`` prints."""
        return asdict(self)


@cache
def codes() -> dict[str, Code]:
    """Return the table: code, such as "PW104" -> what it means."""
    table = tomllib.loads(files("pixelwise").joinpath("codes.toml").read_text(encoding="utf-8"))
    return {code: Code(**{key: text.strip() for key, text in row.items()}) for code, row in table.items()}


def near_codes(asked: str) -> list[str]:
    """Return up to three known codes that may be meant by one that is not known: the same digits, or near ones."""
    digits = re.sub(r"\D", "", asked)
    same = [code for code in codes() if code[2:] == digits]
    near = difflib.get_close_matches(f"PW{digits}", codes(), n=len(codes()), cutoff=0.6)
    return same or sorted(near, key=lambda code: code[2:3] != digits[:1])[:3]


def codes_about(text: str) -> list[str]:
    """Return the codes whose meaning, reason or fix holds all words of a text."""
    words = text.lower().split()
    told = {code: f"{each.what} {each.why} {each.fix}".lower() for code, each in codes().items()}
    return [code for code, all_of_it in told.items() if all(word in all_of_it for word in words)]


def code_text(code: str) -> str:
    """Return all that is known of a code, for a terminal."""
    about = codes()[code]
    example = "\n".join(f"  {line}".rstrip() for line in about.example.splitlines())
    said = (f"{code}: {about.what}", f"Why: {about.why}", f"Fix: {about.fix}")
    paragraphs = [textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) for text in said]
    return "\n\n".join([*paragraphs, f"Example:\n{example}"])


def list_text(shown: Collection[str]) -> str:
    """Return some codes with what is wrong, by group, for a terminal."""
    groups = []
    for start, title in GROUPS.items():
        rows = [f"  {code}  {codes()[code].what}" for code in shown if code.startswith(start)]
        groups += ["\n".join([title, *rows])] if rows else []
    return "\n\n".join(groups)


def errors_page() -> str:
    """Return the page docs/errors.md: a section for each code."""
    parts = [
        "# Errors",
        "Each kind of error has a code, which the message ends with: `pixelwise explain PW104` prints what this page\n"
        "says of it. Codes keep their meaning in later versions. In Python a `PixelwiseError` has it as `code`.",
        "`pixelwise explain --markdown` makes this page from `src/pixelwise/codes.toml`.",
        "\n".join(f"- [{title}](#{_anchor(title)}): `{start}...`" for start, title in GROUPS.items()),
    ]
    for start, title in GROUPS.items():
        parts.append(f"## {title}")
        for code, each in codes().items():
            if code.startswith(start):
                parts += [f"### {code}", f"**{each.what[0].upper()}{each.what[1:]}.**", each.why, f"*Fix:* {each.fix}"]
                parts.append(f"```text\n{each.example}\n```")
    return "\n\n".join(parts) + "\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
