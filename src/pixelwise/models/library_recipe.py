"""The recipe of an encoder of another library: all that builds it again, without files and without a network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """What a library is told. `LibraryEncoder` keeps it, and a model folder too."""

    encoder: str
    """Name as `create` takes it, such as ``timm:convnextv2_tiny``."""
    version: str
    """Of the library that read it."""
    about: Mapping[str, Any]
    """In the library's own terms, of what JSON has."""
    side: int
    """Of the square images that the weights were trained with, in pixels."""

    @property
    def library(self) -> str:
        """The part before the colon."""
        return self.encoder.partition(":")[0]

    @property
    def name(self) -> str:
        """The part after the colon."""
        return self.encoder.partition(":")[2]

    def to_text(self) -> str:
        """Return the recipe as JSON, for a model's card."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str, encoder: str) -> "Recipe":
        """Read what `to_text` wrote.

        Raises:
            ConfigError: it is damaged, or of another encoder.
        """
        try:
            recipe = cls(**json.loads(text))
            sound = isinstance(recipe.about, dict) and isinstance(recipe.side, int) and recipe.side > 0
        except (ValueError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise ConfigError(f"The library_config of encoder = {encoder!r} is damaged. Leave it out, or restore it.")
        if recipe.encoder != encoder:
            raise ConfigError(
                f"library_config is of {recipe.encoder!r}, but encoder is {encoder!r}. Leave library_config out; it is "
                "found by the name."
            )
        return recipe


def folder_of(name: str) -> Path:
    """Return the folder.

    Raises:
        ConfigError: it is not there.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"The encoder's folder {folder} is not there. Correct the path after the colon.")
    return folder


def reason_of(error: BaseException) -> str:
    """Return the first line of what a library said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
