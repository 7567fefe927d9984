"""What a search tries: the keys of [tune.space], checked before the first trial."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pixelwise.config import Config, changed_config
from pixelwise.config_table import Table, merged
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.training.model_check import check_model
from pixelwise.training.training_data import require_weight_per_class

RANGE_KEYS = ("low", "high", "log", "step")
SAME_FOR_ALL = {
    "data": "it says what trials are scored on, so their scores could not be compared",
    "run": "each trial has a folder of its own",
    "tune": "a search does not change itself",
}
"""Tables that are not searched, and why."""
FREE_DATA = ("bands", "unlabelled")
"""Keys of [data] that change no score's meaning."""

Value = Any
"""Of a key: what TOML holds."""


@dataclass(frozen=True)
class Choices:
    """A key that takes one of several values."""

    key: str
    values: tuple[Value, ...]

    @property
    def labels(self) -> tuple[str | int | float | bool, ...]:
        """The values as the search's storage takes them: a list as its text."""
        return tuple(value if isinstance(value, str | int | float) else json.dumps(value) for value in self.values)

    @property
    def tried(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def suggest(self, trial: Any) -> Value:
        """Return the value of a trial (an ``optuna.Trial``)."""
        return self.value_of(trial.suggest_categorical(self.key, self.labels))

    def value_of(self, label: object) -> Value:
        """Return the value that has a label."""
        return self.values[self.labels.index(label)]  # pyright: ignore[reportArgumentType]

    def holds(self, value: Value) -> bool:
        """Return whether a value is one of them."""
        return value in self.values

    def label_of(self, value: Value) -> str | int | float | bool:
        """Return the label of one of the values."""
        return self.labels[self.values.index(value)]


@dataclass(frozen=True)
class Range:
    """A key that takes a number between two, both included."""

    key: str
    low: float
    high: float
    log: bool
    """Small numbers are tried as often as large ones."""
    step: float | None
    whole: bool
    """The key takes integers alone."""

    @property
    def tried(self) -> tuple[Value, ...]:
        """Both ends, between which all values lie."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def suggest(self, trial: Any) -> Value:
        """Return the value of a trial (an ``optuna.Trial``)."""
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(self.key, self.low, self.high, log=self.log, step=self.step)

    def value_of(self, label: Any) -> Value:
        """Return the value itself."""
        return label

    def holds(self, value: Value) -> bool:
        """Return whether a number lies between both ends and on a step."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-9

    def label_of(self, value: Value) -> Value:
        """Return the value itself."""
        return value


Parameter = Choices | Range


def read_space(config: Config) -> tuple[Parameter, ...]:
    """Return what [tune.space] of a configuration asks for.

    Keys are written ``"train.learning_rate"``, or as tables below [tune.space].

    Raises:
        ConfigError: nothing to try, a key that is not searched, or neither a list nor a range.
    """
    flat = _flat(config.tune.space)
    if not flat:
        raise ConfigError(
            '[tune.space] says nothing of what to try. Write it such as: "train.learning_rate" = {low = 1e-4, high = '
            '3e-3, log = true}, or "model.name" = ["unet", "segformer-b0"].',
            code="PW312",
        )
    return tuple(_parameter(key, value) for key, value in flat.items())


def check_space(config: Config, space: Sequence[Parameter], folder: Path) -> None:
    """Try every choice, and both ends of every range, in the configuration; nothing is trained.

    Args:
        folder: relative paths in values count from here.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    for parameter in space:
        for value in parameter.tried:
            where = f'[tune.space] "{parameter.key}" = {json.dumps(value)}'
            changed = with_values(config, {parameter.key: value}, folder, where)
            try:
                require_weight_per_class(changed, len(changed.data.classes))
            except ConfigError as problem:
                raise ConfigError(f"{where}: {problem}", code="PW312") from None
            if parameter.key.startswith("model."):
                try:
                    problems = check_model(changed, bands=None)
                except PixelwiseError as problem:
                    problems = [str(problem)]
                if problems:
                    raise ConfigError(f"{where}: {problems[0]}", code="PW312")


def with_values(config: Config, values: Mapping[str, Value], folder: Path, where: str) -> Config:
    """Return a configuration with the values of a trial.

    Raises:
        ConfigError: as `changed_config` says.
    """
    table: Table = {}
    for key, value in values.items():
        part: object = value
        for name in reversed(key.split(".")):
            part = {name: part}
        assert isinstance(part, dict)
        table = merged(table, part)
    return changed_config(config, table, folder, where)


def own_values(config: Config, space: Sequence[Parameter]) -> dict[str, Value] | None:
    """Return the labels of the configuration's own values; None where one of them is not among those that are tried."""
    found = {}
    dumped = config.model_dump(mode="json")
    for parameter in space:
        value: Any = dumped
        for name in parameter.key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if not parameter.holds(value):
            return None
        found[parameter.key] = parameter.label_of(value)
    return found


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the keys of tables inside of tables with dots between; a table with ``low`` or ``high`` is a range."""
    flat = {}
    for key, value in table.items():
        inner = isinstance(value, dict) and value and not {"low", "high"} & set(value)
        flat |= _flat(value, f"{before}{key}.") if inner else {f"{before}{key}": value}
    return flat


def _parameter(key: str, value: Any) -> Parameter:
    table, _, name = key.partition(".")
    if table in SAME_FOR_ALL and not (table == "data" and name in FREE_DATA):
        raise ConfigError(f"[tune.space] names {key!r}, which is not searched: {SAME_FOR_ALL[table]}.", code="PW312")
    if key == "train.seed":
        raise ConfigError(
            "[tune.space] names 'train.seed', which is not searched: the split into parts depends on it, and a seed "
            "that scores well was lucky.",
            code="PW312",
        )
    if not name:
        near = [f"{each}.{key}" for each, entry in Config.model_fields.items() if key in _fields(entry.annotation)]
        hint = f"Did you mean {near[0]!r}?" if near else 'Write the table too, such as "train.learning_rate".'
        raise ConfigError(f"[tune.space] names {key!r}, which is no key of a table. {hint}", code="PW312")
    if isinstance(value, list) and value:
        return Choices(key, tuple(value))
    if isinstance(value, dict) and {"low", "high"} <= set(value):
        return _range(key, value)
    raise ConfigError(
        f"[tune.space] {key!r} is {json.dumps(value, default=str)}. Give a list of values, or a range such as "
        "{low = 1e-4, high = 3e-3, log = true}.",
        code="PW312",
    )


def _range(key: str, value: Mapping[str, Any]) -> Range:
    unknown = [each for each in value if each not in RANGE_KEYS]
    if unknown:
        raise ConfigError(
            f"[tune.space] {key!r} has {unknown[0]!r}. A range has {', '.join(RANGE_KEYS)}.", code="PW312"
        )
    low, high, log, step = value["low"], value["high"], value.get("log"), value.get("step")
    numbers = [each for each in (low, high, step) if each is not None]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers) or not low < high:
        raise ConfigError(
            f"[tune.space] {key!r} goes from {low!r} to {high!r}. Give two numbers, the smaller as low.", code="PW312"
        )
    if log not in (None, True, False) or (step is not None and step <= 0):
        raise ConfigError(f"[tune.space] {key!r}: log is true or false, and step a number above 0.", code="PW312")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"[tune.space] {key!r}: with log = true, low is above 0 and there is no step.", code="PW312")
    if step is not None and step > high - low:
        raise ConfigError(
            f"[tune.space] {key!r}: step = {step!r} is longer than the range from {low!r} to {high!r}, so nothing but "
            "low would be tried. Give a shorter step.",
            code="PW312",
        )
    return Range(key, low, high, bool(log), step, whole=_whole(key, numbers))


def _whole(key: str, numbers: Sequence[float]) -> bool:
    """Return whether a key takes integers alone; one of the network's options, if its range is written in integers.

    Raises:
        ConfigError: it does, and the range has others; or it takes no numbers but true and false.
    """
    table, _, name = key.partition(".")
    entry = Config.model_fields.get(table)
    field = _fields(entry.annotation).get(name) if entry is not None else None
    if field is None:
        return all(isinstance(each, int) for each in numbers)
    types = _types(field.annotation)
    if bool in types and not {int, float} & types:
        raise ConfigError(
            f"[tune.space] {key!r} is true or false, so it has no range. Write [true, false].", code="PW312"
        )
    if int not in types or float in types:
        return False
    if not all(float(each).is_integer() for each in numbers):
        shown = ", ".join(f"{each:g}" for each in numbers)
        raise ConfigError(
            f"[tune.space] {key!r} takes whole numbers alone, and its range is written with {shown}. Round them.",
            code="PW312",
        )
    return True


def _fields(annotation: Any) -> dict[str, Any]:
    return getattr(annotation, "model_fields", {})


def _types(annotation: Any) -> set[Any]:
    inner = [each for argument in get_args(annotation) for each in _types(argument)]
    return {annotation, *inner} if not inner else {*inner}
