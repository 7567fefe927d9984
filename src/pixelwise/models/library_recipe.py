"""The recipe of an encoder of another library: all that builds it again, without files and without a network."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelwise.encoder_name import is_folder_name
from pixelwise.errors import ConfigError
from pixelwise.optional import optional_module


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
    licence: str | None = None
    """Of the weights that the encoder was filled with: as their card names it, or "unknown". None: it began fresh."""

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
            if not isinstance(recipe.about, dict) or not isinstance(recipe.side, int) or recipe.side < 1:
                raise ValueError
        except (ValueError, TypeError, RecursionError):
            raise ConfigError(
                f"The library_config of encoder = {encoder!r} is damaged. Leave it out, or restore it.", code="PW309"
            ) from None
        if recipe.encoder != encoder:
            raise ConfigError(
                f"library_config is of {recipe.encoder!r}, but encoder is {encoder!r}. Leave library_config out; it is "
                "found by the name.",
                code="PW309",
            )
        return recipe


def folder_of(name: str) -> Path:
    """Return the folder.

    Raises:
        ConfigError: it is not there.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"The encoder's folder {folder} is not there. Correct the path after the colon.", code="PW309"
        )
    return folder


def card_licence(name: str) -> str | None:
    """Return the licence that the card beside weights names, or None.

    Args:
        name: a folder, or a repository of the hub, with ``@revision`` or without.
    """
    hub = optional_module("huggingface_hub")
    repository, _, revision = name.partition("@")
    try:
        if is_folder_name(name):
            card = folder_of(name) / "README.md"
        else:
            card = hub.hf_hub_download(repository, "README.md", revision=revision or None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = hub.ModelCard.load(card).data
        named = getattr(data, "license_name", None) if data.license == "other" else data.license
        return ", ".join(named) if isinstance(named, list) else named or None
    except Exception:  # no card, no network, or one that cannot be read
        return None


def reason_of(error: BaseException) -> str:
    """Return the first line of what a library said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
