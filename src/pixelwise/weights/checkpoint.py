"""Where the weights are in a checkpoint: in which of its parts, and behind which prefix of wrappers."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixelwise.errors import WeightsError
from pixelwise.weights.pickles import Skipped, Stored

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "student",
)
"""Keys under which training scripts keep the weights beside their own state; the first that is there is taken."""
AVERAGED = re.compile(r"(^|_)(ema|swa|teacher|averaged?)(_|$)")
"""Of keys of weights that were averaged over training; they are taken where there are no others."""
DEPTH = 6
"""Levels of a checkpoint, and of wrappers, that are looked into."""
FEW = 0.1
"""Share of the names that may lie outside the prefix of a wrapper: losses, metrics and counters beside the network."""
TENSORS = (Tensor, np.ndarray, Stored)


@dataclass(frozen=True)
class State:
    """Tensors by name, and where they were found."""

    tensors: dict[str, Tensor]
    part: str = ""
    """Key of the checkpoint's part, such as 'model_ema'; several are joined by dots."""
    others: tuple[str, ...] = ()
    """Keys of other parts that hold weights too."""
    prefix: str = ""
    """What a wrapper put before the names; it is taken off."""


def state_in(loaded: object, where: str) -> State:
    """Return the weights of a checkpoint: ``{"state_dict": ...}`` and the like.

    Raises:
        WeightsError: no weights in it, or several parts of which none has a known name.
    """
    path, others = [], []
    while isinstance(loaded, Mapping) and len(path) < DEPTH:
        parts = {str(key): value for key, value in loaded.items() if isinstance(value, Mapping)}
        holding = [key for key in CONTAINERS if key in parts and _tensors(parts[key])]
        if not holding and any(isinstance(value, TENSORS) for value in loaded.values()):
            break
        averaged = [key for key in parts if AVERAGED.search(key) and _tensors(parts[key])]
        unknown = [key for key, value in parts.items() if key not in averaged and _tensors(value, named=True)]
        found = holding + averaged or unknown
        if not found:
            break
        if found == unknown and len(unknown) > 1:
            raise WeightsError(
                f"{where} holds weights under {', '.join(map(repr, unknown))}, and none of these is a known name such "
                f"as {CONTAINERS[0]!r}. Save the part you mean alone, or give it as a state dict.",
                code="PW502",
            )
        path.append(found[0])
        others += found[1:]
        loaded = parts[found[0]]
    if isinstance(loaded, Skipped):
        raise WeightsError(
            f"{where} holds a whole object ({loaded.name or 'of an unknown kind'}), and reading that could run foreign "
            "code. Save its state_dict alone, best as .safetensors.",
            code="PW502",
        )
    if not isinstance(loaded, Mapping):
        raise WeightsError(
            f"{where} holds a {type(loaded).__name__}, not a state_dict. Save model.state_dict().", code="PW502"
        )
    named = {str(name): value for name, value in loaded.items() if isinstance(value, TENSORS)}
    if not named:
        raise WeightsError(f"{where} holds no tensors{_contents(loaded)}. Save model.state_dict().", code="PW502")
    try:
        tensors = {name: _tensor(value) for name, value in named.items()}
    except Exception as error:  # whatever a damaged file leads to
        raise WeightsError(f"{where} is damaged ({str(error)[:200]}). Fetch it again.", code="PW502") from None
    return State(tensors, ".".join(path), tuple(others))


def _tensors(value: object, *, named: bool = False, depth: int = DEPTH) -> bool:
    """Return True if a mapping holds tensors; if ``named``, such whose names have dots, as a module's have."""
    if not isinstance(value, Mapping) or depth == 0:
        return False
    if any(isinstance(inner, TENSORS) and (not named or "." in str(key)) for key, inner in value.items()):
        return True
    return any(_tensors(inner, named=named, depth=depth - 1) for inner in value.values())


def _contents(loaded: Mapping[object, object]) -> str:
    skipped = sorted({value.name for value in loaded.values() if isinstance(value, Skipped) and value.name})
    keys = ", ".join(repr(key)[:40] for key in list(loaded)[:8])
    objects = f", and objects that are not read, since that could run foreign code ({', '.join(skipped[:3])})"
    return (f", but {keys}" if keys else "") + (objects if skipped else "")


def _tensor(value: object) -> Tensor:
    if isinstance(value, Stored):
        return value.load()
    return torch.from_numpy(np.array(value, order="C")) if isinstance(value, np.ndarray) else value  # pyright: ignore[reportReturnType]


def unwrapped(state: State, recognised: Callable[[set[str]], bool], where: str) -> State:
    """Return the state without the prefix that a wrapper put before nearly all names (``module.``, ``model.`` ...).

    Names outside the prefix stay as they are; so does all, if no prefix leads to names that are recognised.

    Raises:
        WeightsError: the weights of several networks, such as a student's and its teacher's, of which none goes first.
    """
    names = list(state.tensors)
    found = _prefixes(names, recognised, DEPTH)
    plain = [prefix for prefix in found if not AVERAGED.search(prefix.split(".")[0])] or found
    if len(plain) > 1:
        raise WeightsError(
            f"{where} holds the weights of several networks, behind {' and '.join(plain)}. Give those of one alone.",
            code="PW502",
        )
    if not plain or not plain[0]:
        return state
    prefix = plain[0]
    others = tuple(other for other in found if other != prefix)
    tensors = {
        name.removeprefix(prefix): tensor for name, tensor in state.tensors.items() if not name.startswith(others)
    }
    return replace(state, tensors=tensors, prefix=prefix, others=(*state.others, *others))


def _prefixes(names: list[str], recognised: Callable[[set[str]], bool], depth: int) -> list[str]:
    if recognised(set(names)):
        return [""]
    if depth == 0:
        return []
    found, inside = [], 0
    for first, count in Counter(name.split(".")[0] for name in names if "." in name).most_common(4):
        inner = _prefixes(
            [name[len(first) + 1 :] for name in names if name.startswith(f"{first}.")], recognised, depth - 1
        )
        if inner:
            found.append(f"{first}.{inner[0]}")
            inside += count
    return found if len(names) - inside <= max(4, FEW * len(names)) else []
