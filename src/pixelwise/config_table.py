"""From TOML files and the command line to one table of tables, which `config.py` then checks; and a table of keys."""

import json
import tomllib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from pixelwise.errors import ConfigError, OldNameWarning

Table = dict[str, object]

OLD_KEYS: dict[str, dict[str, str]] = {
    "train": {
        "batch": "batch_size",
        "crop": "crop_size",
        "decoder_rate": "decoder_lr_mult",
        "first_layer_rate": "first_layer_lr_mult",
        "power": "poly_power",
        "clip": "grad_clip",
        "average": "ema_decay",
        "ohem_keep": "ohem_min_kept",
        "bootstrapped_keep": "bootstrapped_min_kept",
        "checkpointing": "activation_checkpointing",
        "mixed_precision": "precision",
    },
    "augment": {"turn": "rotate90"},
}
"""Table -> old key -> the key's name today. Old names are read and never written."""

ANNOTATION_SUFFIXES = (".json", ".xml", ".csv", ".txt", ".yaml", ".yml")
"""Of files of annotations; any other path is a folder of them."""


class ConfigTable(BaseModel):
    """A table of the configuration. It refuses unknown keys, and reads old ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, given: object) -> object:
        name = cls.__name__.removesuffix("Config").lower()
        return renamed({name: given}, cls.__name__)[name] if isinstance(given, dict) else given

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, given: object, info: Any) -> object:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(given, bool) and kind is not bool and bool not in get_args(kind):
            raise ValueError("true and false are no value of this key")
        return given


def read_table(path: Path, place: Callable[[Table, Path], Table]) -> Table:
    """Read a TOML file, and the file that its ``base`` names.

    Tables are merged key by key, also tables inside of tables; the file's own keys win over those of its base.

    Args:
        path: the file.
        place: called with each file's table and folder; returns the table with absolute paths.

    Raises:
        ConfigError: no such file, TOML that is wrong, or a base that has a base.
    """
    table = _parsed(path)
    if "base" not in table:
        return place(renamed(table, str(path)), path.resolve().parent)
    named = table.pop("base")
    if not isinstance(named, str):
        raise ConfigError(
            f"{path}: base is {named!r}, but must be the path of a TOML file, such as base = 'all.toml'.", code="PW304"
        )
    base_path = path.parent / Path(named).expanduser()
    if not base_path.exists():
        raise ConfigError(
            f"{path}: base = {named!r}, but there is no {base_path}. The path counts from {path.parent}.", code="PW304"
        )
    base = _parsed(base_path)
    if "base" in base:
        raise ConfigError(
            f"{base_path} is the base of {path}, but has a base itself ({base['base']!r}). A base must not have one: "
            "copy the tables of one base into the other.",
            code="PW304",
        )
    base, table = (
        place(renamed(each, str(file)), file.resolve().parent) for each, file in ((base, base_path), (table, path))
    )
    return merged(base, table)


def _parsed(path: Path) -> Table:
    try:
        # utf-8-sig: editors on Windows put a byte order mark in front.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration {path}. `pixelwise train --print-config` prints one to start from.",
            code="PW301",
        ) from None
    except NotADirectoryError:
        raise ConfigError(
            f"There is no configuration {path}: a part of its path is a file, not a folder.", code="PW301"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a configuration. Name the TOML file.", code="PW301") from None
    except OSError as error:
        raise ConfigError(f"Reading the configuration {path} failed: {error.strerror}.", code="PW301") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not valid TOML: byte {error.start} is not UTF-8. Save the file as UTF-8 text.", code="PW302"
        ) from None
    except (ValueError, RecursionError) as error:
        # ValueError: TOML's own errors, and dates and numbers that Python refuses.
        raise ConfigError(
            f"{path} is not valid TOML: {str(error) or 'its tables are nested too deeply'}.", code="PW302"
        ) from None


def merged(base: Table, over: Table) -> Table:
    """Return two tables as one; where both have a key, ``over`` wins, and tables under it are merged alike."""
    # Whoever names labels of one kind wants those instead of the others.
    gone = {"labels": "annotations", "annotations": "labels"}
    result = {key: value for key, value in base.items() if gone.get(key) not in over or key in over}
    for key, value in over.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def renamed(table: Table, where: str) -> Table:
    """Return a table with today's names of its keys, and warn once where it has old ones.

    Raises:
        ConfigError: an old name beside the new one.
    """
    result, told = dict(table), []
    for name, keys in OLD_KEYS.items():
        section = table.get(name)
        if not isinstance(section, dict):
            continue
        old = [key for key in keys if key in section]
        for key in old:
            if keys[key] in section:
                raise ConfigError(
                    f"{where}: [{name}] has both {key} and {keys[key]}, its new name. Keep {keys[key]}.", code="PW303"
                )
        result[name] = {keys.get(key, key): value for key, value in section.items()}
        told += [f"[{name}].{key} is {keys[key]} now" for key in old]
    if told:
        warnings.warn(f"{where} uses old names: {', '.join(told)}. They still work.", OldNameWarning, stacklevel=2)
    return result


def images_beside(table: Table) -> Table:
    """Return ``[data]`` with images: if it names annotations alone, those in the annotations' own folder."""
    named = table.get("annotations")
    if named is None or table.get("images") is not None:
        return table
    paths = [Path(str(each)) for each in (named if isinstance(named, list) else [named])]
    folders = [str(path.parent if path.suffix.lower() in ANNOTATION_SUFFIXES else path) for path in paths]
    return table | {"images": folders}


def parsed_overrides(assignments: Sequence[str]) -> Table:
    """Read ``train.steps=200`` and the like as one table. Values are TOML; a bare word is a text.

    Raises:
        ConfigError: no ``=``, or a key or value that is not valid TOML.
    """
    table: Table = {}
    for text in assignments:
        table = merged(table, _assignment(text, "--set", "train.steps=200"))
    return renamed(table, "--set")


def parsed_options(assignments: Sequence[str]) -> Table:
    """Read ``output_stride=8`` and the like, as `parsed_overrides` does. Keys are names of a network's options.

    Raises:
        ConfigError: as there.
    """
    table: Table = {}
    for text in assignments:
        table |= _assignment(text, "--option", "output_stride=8")
    return table


def _assignment(text: str, flag: str, example: str) -> Table:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"{flag} {text!r} assigns nothing. Write a key and a value, such as {flag} {example}.", code="PW305"
        )
    value = value.strip()
    # Shells remove quotes. So what is not TOML is a text, unless it begins like a list, a table or a quoted text.
    forms = [value] if value.startswith(("[", "{", '"', "'")) else [value, json.dumps(value)]
    problem = ""
    for form in forms:
        try:
            return tomllib.loads(f"{key.strip()} = {form}")
        except (ValueError, RecursionError) as error:
            problem = str(error)
    raise ConfigError(f"{flag} {text!r} is not valid TOML: {problem}. Write it such as {flag} {example}.", code="PW305")
