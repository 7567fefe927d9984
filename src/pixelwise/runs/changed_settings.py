"""What may change when a run goes on: the table, the check, and the words for both."""

import warnings
from itertools import takewhile
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
        # The run has kept lists of its own.
        **dict.fromkeys(("split_table", "training_list", "validation_list", "test_list"), PLACE),
        "unlabelled": PLACE,
    },
    "model": {"weights": PLACE, "accept_licence": NOTHING, "mirrors": NOTHING},
    "train": {
        "steps": "the learning rate follows the new length from here on",
        "teacher": PLACE,
        "evaluate_every": "other steps may give the best model",
        "patience": "the run may end at another step",
        **dict.fromkeys(("device", "compile", "parallel"), BITS),
        "accumulate": f"{BITS}, and more where batch norms or dropout see parts of a batch",
        **dict.fromkeys(
            ("workers", "keep_every", "save_every_minutes", "log_every", "activation_checkpointing"), NOTHING
        ),
    },
    "predict": dict.fromkeys(("tile", "overlap", "flips", "scales"), SCORES),
}
"""Table -> key -> what the change does. Every other key must be as before, because it says what is learned."""
WITH_OR_WITHOUT = ("[model].weights", "[data].unlabelled", "[data].validation_images", "[train].teacher")
"""Of those that may have moved: with and without them, rates, parts, or what is learned, are others."""
NOT_SET = "not set"
LISTED = 5
"""How many changes a message names."""
LONGEST, ALIKE = 60, 20
"""Characters of a value that a message shows, and how many of them may be alike in both values where they are cut."""


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
    if changed := _not_allowed(before, now):
        raise ConfigError(
            f"{folder} began with other settings: {changed}. They say what is learned, so a run keeps them. Set them "
            f"back (`pixelwise train {folder / 'config.toml'} --resume` has all as before), or begin another run "
            "(--run).",
            code="PW604",
        )


def require_own_state(last: Path, before: Config, now: Config) -> None:
    """Check that a state is of the run that it lies in, whose own configuration has passed `require_same_settings`.

    Args:
        last: the folder of the state.
        before: the configuration in the state.

    Raises:
        ConfigError: it is of another run. It names both values.
    """
    if changed := _not_allowed(before, now):
        raise ConfigError(
            f"{last} holds the state of another run: {changed}. Restore this run's own state from a copy, or begin "
            "again in another folder (--run).",
            code="PW605",
        )


def _not_allowed(before: Config, now: Config) -> str:
    """Return the changes that may not be, as text; empty if there is none."""
    changed = [
        f"{name} was {was} and is {is_now}"
        for name, was, is_now, effect in changes(before, now)
        if effect is None or goes_or_comes(name, was, is_now)
    ]
    return ", ".join(changed[:LISTED]) + (f", and {len(changed) - LISTED} more" if len(changed) > LISTED else "")


def say_changes(before: Config, now: Config) -> str | None:
    """Return a sentence about the allowed changes since a run began, but those of places; None if there are none."""
    found = [
        f"{name} was {was} and is {is_now} ({effect})"
        for name, was, is_now, effect in changes(before, now)
        if effect not in (None, PLACE)
    ]
    return f"Set otherwise than before: {', '.join(found)}." if found else None


def goes_or_comes(name: str, was: str, is_now: str) -> bool:
    """Return whether one of `WITH_OR_WITHOUT` is set where it was not, or the other way."""
    return name in WITH_OR_WITHOUT and NOT_SET in (was, is_now)


def changes(before: Config, now: Config) -> list[tuple[str, str, str, str | None]]:
    """Return each key that differs, both values in words, and what the change does; None where it may not change."""
    found = []
    for table in type(now).model_fields:
        for key in type(getattr(now, table)).model_fields if table not in ("run", "tune") else ():
            was, is_now = getattr(getattr(before, table), key), getattr(getattr(now, table), key)
            if not same_value(was, is_now):
                effect = MAY_CHANGE.get(table, {}).get(key)
                found.append((f"[{table}].{key}", *_shown(_text(was), _text(is_now)), effect))
    return found


def same_value(one: object, other: object) -> bool:
    """Return whether a key has the same value twice. NaN, which [data].nodata may be, is the same as NaN."""
    return one == other or (one != one and other != other)


def _text(value: object) -> str:
    return NOT_SET if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def _shown(was: str, is_now: str) -> tuple[str, str]:
    """Return two texts, cut so that what differs is seen."""
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(was, is_now, strict=False)))
    begin = alike - ALIKE if max(len(was), len(is_now)) > LONGEST and alike > LONGEST - ALIKE else 0
    first, second = (("..." if begin else "") + text[begin:] for text in (was, is_now))
    return _cut(first), _cut(second)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
