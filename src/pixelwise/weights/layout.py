"""A layout: the names that one release gives to the tensors of a network, as a table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Converted = dict[str, tuple[str, Tensor]]
"""Our name -> (their name, tensor)."""


def _no_options(state: Mapping[str, Tensor]) -> dict[str, object]:
    return {}


def _as_they_are(converted: Converted) -> Converted:
    return converted


class _Group(str):
    @property
    def less(self) -> "_Group":
        return _Group(int(self) - 1)


def biases_into_means(converted: Converted) -> Converted:
    """Take the bias of a convolution off the mean of the batch norm after it, which takes it away again."""
    for name in [name for name in converted if name.endswith(".convolution.bias")]:
        mean = name.replace(".convolution.bias", ".norm.running_mean")
        if mean in converted:
            theirs, bias = converted.pop(name)
            converted[mean] = (theirs, converted[mean][1] - bias)
    return converted


@dataclass(frozen=True)
class Layout:
    """How to recognise a release's names, and what they are here."""

    name: str
    """Network and release, as a user would say it."""
    signature: tuple[str, ...]
    """Patterns of names; the layout is this one if each fits the beginning of some name."""
    rules: tuple[tuple[str, str], ...]
    """Pattern of the beginning of a name, and what stands there here; ``{0}`` is the pattern's first group, and
    ``{0.less}`` its number less one, for those who count from 1."""
    absent: tuple[str, ...] = ()
    """Patterns that fit no name of this layout, to tell it from its kin."""
    unused: tuple[str, ...] = ()
    """Patterns of names that the layout carries but its network never uses."""
    options: Callable[[Mapping[str, Tensor]], dict[str, object]] = _no_options
    """What the weights tell of the network, as options of `create`: the release's conventions above all."""
    rearrange: Callable[[Converted], Converted] = _as_they_are
    """Merges or reshapes tensors that are cut otherwise there than here."""

    def recognises(self, names: set[str]) -> bool:
        """Return True if the names are this layout's."""

        def found(pattern: str) -> bool:
            return any(re.match(pattern, name) for name in names)

        return all(found(pattern) for pattern in self.signature) and not any(found(pattern) for pattern in self.absent)

    def convert(self, state: Mapping[str, Tensor]) -> tuple[Converted, tuple[str, ...]]:
        """Return the tensors under our names, and their names that are left out on purpose."""
        unused = tuple(name for name in state if any(re.match(pattern, name) for pattern in self.unused))
        converted = {self.ours(name): (name, tensor) for name, tensor in state.items() if name not in unused}
        return self.rearrange(converted), unused

    def ours(self, name: str) -> str:
        """Return what is called ``name`` there, by its name here; itself if no rule fits."""
        for pattern, ours in self.rules:
            found = re.match(pattern, name)
            if found:
                return ours.format(*(_Group(group) for group in found.groups())) + name[found.end() :]
        return name
