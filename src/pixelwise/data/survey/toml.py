"""A proposal as TOML that people read and edit."""

import os
import textwrap
from pathlib import Path

from pixelwise.config import toml_assignment
from pixelwise.config_keys import Config
from pixelwise.data.survey.proposal import Proposal

WIDTH = 110
ABOVE = {
    "values": "class -> its values in the masks",
    "other_values": "what values are that nothing above lists",
    "validation_images": "kept for validation; training never reads them",
}


def to_toml(proposal: Proposal, config: Path) -> str:
    """Return the text of a configuration; paths count from the folder of its file.

    Args:
        config: where it will be written.
    """
    lines = [
        "# Written by `pixelwise init`, which looked at the files. Read what it guessed, and change what is wrong.",
        "#",
        "# What it saw:",
        *_comments(proposal.saw),
        "# What it guessed:",
        *_comments(proposal.guessed),
        *(["# Left out:", *_comments(proposal.later)] if proposal.later else []),
        "",
    ]
    for name in ("data", "model", "train"):
        lines += [f"[{name}]", *_table(name, getattr(proposal, name), config.absolute().parent), ""]
    return "\n".join(lines)


def _comments(sentences: list[str]) -> list[str]:
    wrapper = textwrap.TextWrapper(
        width=WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
    )
    return [line for each in sentences for line in wrapper.wrap(each)]


def _table(name: str, table: dict[str, object], folder: Path) -> list[str]:
    fields = getattr(Config.model_fields[name].annotation, "model_fields", {})
    lines = []
    for key, value in table.items():
        if isinstance(value, dict):
            continue
        line = toml_assignment(key, _written(value, folder))
        if len(line) > WIDTH and isinstance(value, list):
            line = _long_list(key, value, folder)
        about = ABOVE.get(key) or fields[key].description
        lines += [f"{line:32} # {about}"] if len(line) + len(about) <= WIDTH else [f"# {about}", line]
    # Tables of their own come last, since TOML would take the keys behind them for theirs.
    for key, inner in table.items():
        if isinstance(inner, dict):
            lines += ["", f"[{name}.{key}]".ljust(32) + f" # {ABOVE.get(key) or fields[key].description}"]
            lines += [toml_assignment(each, _alone(value)) for each, value in inner.items()]
    return lines


def _alone(value: object) -> object:
    """Return the one value of a list that has no other."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _long_list(key: str, values: list, folder: Path) -> str:
    written = [toml_assignment("x", _written(value, folder)).removeprefix("x = ") for value in values]
    return "\n".join([f"{key} = [", *(f"    {each}," for each in written), "]"])


def _written(value: object, folder: Path) -> object:
    if isinstance(value, Path):
        place = os.path.relpath(value.absolute(), folder)
        return Path(place).as_posix() if not place.startswith(f"..{os.sep}..") else str(value.absolute())
    return [_written(each, folder) for each in value] if isinstance(value, list) else value
