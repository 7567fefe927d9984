"""What an evaluation was made of, and a name for it that overwrites no other."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

from pixelwise.config import Config, PredictConfig
from pixelwise.errors import ConfigError

VALIDATION = "validation"
"""Name of the evaluation on the run's own validation part, predicted as in training."""


@dataclass(frozen=True)
class About:
    """What an evaluation was made of, and how."""

    data: str
    """The configuration's path, or "validation"."""
    predict: dict
    """Tile, overlap, flips and scales."""
    options: dict
    """The paper's options that were given for it."""
    weights: str
    """SHA-256 of the weights."""
    digest: str
    """Other data and other ways of predicting have other digests; the weights do not count."""


def evaluation_digest(data: Config, predict: PredictConfig, options: Mapping[str, object] | None) -> str:
    """Return what tells evaluations apart: the data, and how it is predicted."""
    told = [data.data.model_dump(mode="json"), data.train.seed, predict.model_dump(mode="json"), dict(options or {})]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def choose_name(metrics: Mapping[str, Any], about: About, *, wanted: str | None, own: str, plain: bool) -> str:
    """Return the name under which an evaluation is kept.

    An evaluation that is made again replaces the older one. Another one gets a number or, if the user chose the name,
    is refused.

    Args:
        wanted: the user's choice.
        own: the name that the data give.
        plain: the run's own validation part, predicted as in training; nothing else is called "validation".

    Raises:
        ConfigError: a name that is taken, or that does not work for a file.
    """
    # Names that differ in case alone are one file on macOS and Windows.
    taken = {key.casefold(): (key, _digest_of(value)) for key, value in metrics.items()}

    def free(name: str) -> bool:
        if name.casefold() not in taken:
            return plain or name.casefold() != VALIDATION
        key, digest = taken[name.casefold()]
        # Early versions kept no digest. Their "validation" is the run's own part too.
        return key == name and (digest == about.digest or (digest is None and plain and name == VALIDATION))

    if wanted is not None:
        if not wanted.strip() or wanted.startswith(".") or set(wanted) & set('/\\:*?"<>|\0') or len(wanted) > 100:
            raise ConfigError(
                f"{wanted!r} does not work as a name of an evaluation, because a file gets it. Choose another one."
            )
        if not free(wanted):
            raise ConfigError(
                f"The run has an evaluation {wanted!r} already, of other data or made in another way. Choose another "
                "name, or leave it out."
            )
        return wanted
    return next(filter(free, chain([own], (f"{own}-{i}" for i in count(2)))))


def _digest_of(entry: object) -> str | None:
    about = entry.get("about") if isinstance(entry, dict) else None
    return about.get("digest") if isinstance(about, dict) else None
