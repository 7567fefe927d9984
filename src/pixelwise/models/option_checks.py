"""Checks of a network's options: whatever a user wrote, he reads what the option takes."""

from collections.abc import Collection, Sequence
from typing import Any

from pixelwise.errors import ConfigError


def require_whole_number(name: str, value: object, *, least: int = 1) -> None:
    """Check an option that is a whole number from ``least`` on.

    Args:
        name: of the network and the option, for the message.

    Raises:
        ConfigError: it is something else; so do all checks here.
    """
    if not _is_whole(value, least):
        raise ConfigError(f"{name} is a whole number from {least} on, not {value!r}.", code="PW306")


def require_chance(name: str, value: object) -> None:
    """Check an option that is a chance, from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{name} is a chance from 0 to below 1, not {value!r}.", code="PW306")


def require_positive(name: str, value: object) -> None:
    """Check an option that is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} is a number above 0, not {value!r}.", code="PW306")


def require_true_or_false(name: str, value: object) -> None:
    """Check an option that is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is true or false, not {value!r}.", code="PW306")


def require_one_of(name: str, value: object, known: Collection[object]) -> None:
    """Check an option that is one of a few values."""
    # A list from TOML has no hash, and a table's keys are looked up by theirs.
    if value not in tuple(known):
        raise ConfigError(f"{name} is one of {', '.join(map(str, known))}, not {value!r}.", code="PW306")


def require_whole_numbers(
    name: str, values: object, *, count: int | None = None, least: int = 1, most: int = 64
) -> Sequence[int]:
    """Return an option that is a list of whole numbers from ``least`` on: ``count`` of them, or 1 to ``most``."""
    if (
        isinstance(values, list | tuple)
        and (len(values) == count if count else 1 <= len(values) <= most)
        and all(_is_whole(one, least) for one in values)
    ):
        return values
    number = "a list of whole numbers" if count is None else f"a list of {count} whole numbers"
    raise ConfigError(
        f"{name} must be {number} from {least} on, such as {[least] * (count or 1)}, not {values!r}.", code="PW306"
    )


def sizes_of(name: str, given: object, own: Sequence[int], *, least: int = 1) -> Any:
    """Return the sizes of an encoder's stages: those that a user gave, or the variant's own if he gave none.

    Args:
        name: of the encoder and its option, for the message.
        given: as many whole numbers as ``own`` has, at least ``least`` each; empty: the variant's own.
    """
    if isinstance(given, list | tuple) and not given:
        return tuple(own)
    return tuple(require_whole_numbers(name, given, count=len(own), least=least))


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
