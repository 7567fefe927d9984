"""What may change when a run goes on: the table, the check, and the words for both."""

import warnings
from pathlib import Path

from pixelwise.config import Config, parse_config
from pixelwise.config_table import Table
from pixelwise.errors import ConfigError, OldNameWarning

PLACE = "a place"
"""Of what must be the same wherever it lies; the run says so itself where it is not."""
NOTHING = "changes no weight"
BITS = "the last bits of the weights may differ"
SCORES = "scores are not comparable with those before"
MAY_CHANGE: dict[str, dict[str, str]] = {
    "data": {
        **dict.fromkeys(("images", "labels", "annotations", "validation_images", "validation_labels"), PLACE),
        "unlabelled": PLACE,
    },
    "model": {"weights": PLACE, "accept_licence": NOTHING, "mirrors": NOTHING},
    "train": {
        "steps": "the learning rate follows the new length from here on",
        "teacher": PLACE,
        "evaluate_every": "other steps may give the best model",
        "patience": "the run may end at another step",
        **dict.fromkeys(("device", "compile", "accumulate", "parallel"), BITS),
        **dict.fromkeys(
            ("workers", "keep_every", "save_every_minutes", "log_every", "activation_checkpointing"), NOTHING
        ),
    },
    "predict": dict.fromkeys(("tile", "overlap", "flips", "scales"), SCORES),
}
"""Table -> key -> what the change does. Every other key must be as before, because it says what is learned."""
LISTED = 5
"""How many changes a message names."""


def recorded_config(table: Table, where: str) -> Config:
    """Check a configuration that a run has recorded. Old names of keys are not said: the user did not write it.

    Raises:
        ConfigError: as `parse_config` says.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldNameWarning)
        return parse_config(table, where)


def require_same_settings(folder: Path, before: Config, now: Config) -> None:
    """Check that only what `MAY_CHANGE` lists has changed since a run began.

    Args:
        folder: of the run.

    Raises:
        ConfigError: something else has. It names both values.
    """
    changed = [
        f"{name} was {was} and is {is_now}"
        for name, was, is_now, effect in _changes(before, now)
        # They may have moved. But with and without them, rates, or what is learned, are others.
        if effect is None or (name in ("[model].weights", "[data].unlabelled") and NOT_SET in (was, is_now))
    ]
    if changed:
        more = f", and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
        raise ConfigError(
            f"{folder} began with other settings: {', '.join(changed[:LISTED])}{more}. They say what is learned, so a "
            f"run keeps them. Set them back (`pixelwise train {folder / 'config.toml'} --resume` has all as before), "
            "or begin another run (--run).",
            code="PW604",
        )


def say_changes(before: Config, now: Config) -> str | None:
    """Return a sentence about the allowed changes since a run began, but those of places; None if there are none."""
    found = [
        f"{name} was {was} and is {is_now} ({effect})"
        for name, was, is_now, effect in _changes(before, now)
        if effect not in (None, PLACE)
    ]
    return f"Set otherwise than before: {', '.join(found)}." if found else None


NOT_SET = "not set"


def _changes(before: Config, now: Config) -> list[tuple[str, str, str, str | None]]:
    """Return each key that differs, both values, and what it does; None where it may not."""
    found = []
    for table in type(now).model_fields:
        for key in type(getattr(now, table)).model_fields if table not in ("run", "tune") else ():
            was, is_now = getattr(getattr(before, table), key), getattr(getattr(now, table), key)
            if was != is_now:
                found.append((f"[{table}].{key}", _shown(was), _shown(is_now), MAY_CHANGE.get(table, {}).get(key)))
    return found


def _shown(value: object) -> str:
    text = NOT_SET if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
    return text if len(text) <= 60 else f"{text[:57]}..."
