"""What prediction asks of a network, whether it is one of torch or an exported file, and the arithmetic for each.

A file takes and gives numpy arrays, so all that follows is numpy, and no torch is needed; on any machine, so that a map
has the same bytes where torch is installed. A network of torch answers in tensors, on its own device.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from pixelwise.architecture import Architecture

Size = tuple[int, int]


@runtime_checkable
class Network(Protocol):
    """A `pixelwise.models.Segmenter`, or an exported file in its place."""

    architecture: Architecture
    align_corners: bool
    """How its logits are upsampled."""

    def padded_size(self, size: Size) -> Size:
        """Return the height and width that the logits of an image of ``size`` stand for."""
        ...

    def to(self, device: Any) -> Any:
        """Return it on a device; a file stays where its runtime has it."""
        ...


@runtime_checkable
class ArrayNetwork(Network, Protocol):
    """A network that takes and gives numpy arrays."""

    version: str
    """Name and version of what runs it."""

    def logits(self, image: Float32[np.ndarray, "B C H W"]) -> Float32[np.ndarray, "B K h w"]:
        """Return logits of normalised images at the network's own stride; they cover `padded_size`."""
        ...


@runtime_checkable
class Arithmetic(Protocol):
    """What follows the reading of tiles. The images and logits between are of the network's own kind."""

    def device_of(self, model: Any) -> str:
        """Return where a network computes: 'cpu', 'cuda' ..."""
        ...

    def version_of(self, model: Any) -> dict[str, str]:
        """Return name and version of what runs a network: bytes of a map depend on it."""
        ...

    def given(self, model: Any, images: Float32[np.ndarray, "B C H W"]) -> Any:
        """Return images as the network takes them."""
        ...

    def taken(self, values: Any) -> np.ndarray:
        """Return values as numpy arrays."""
        ...

    def placed(self, model: Any, values: Any) -> Any:
        """Return values, arrays or of the network's kind, where the network computes."""
        ...

    def zeros(self, model: Any, shape: tuple[int, ...]) -> Any:
        """Return float32 zeros where the network computes."""
        ...

    def edged(self, cells: Any, rows: Size, columns: Size) -> Any:
        """Repeat the outermost cells [B,K,h,w]: above and below, left and right."""
        ...

    def at_once(self, model: Any) -> int:
        """Return how many times the usual strip is decided at once."""
        ...

    def decode(self, model: Any, images: Any) -> Any:
        """Return logits at the network's own stride, float32; they cover `Network.padded_size`."""
        ...

    def mirrored(self, images: Any) -> Any:
        """Exchange left and right."""
        ...

    def mean(self, copies: Sequence[Any]) -> Any:
        """Return the mean of several."""
        ...

    def zoomed(self, images: Any, size: Size) -> Any:
        """Resize images, bilinear."""
        ...

    def resampled_part(self, logits: Any, size: Size, part: Size, cells: Size, *, align_corners: bool = False) -> Any:
        """Resample a part of logits to cells (`pixelwise.upsampling.resampled_part`)."""
        ...

    def recentred(self, logits: Any, size: Size) -> Any:
        """Resample logits with aligned corners to the centres of cells (`pixelwise.upsampling.recentred`)."""
        ...

    def upsampled(self, logits: Any, size: Size, *, align_corners: bool = False) -> Any:
        """Resize logits in one piece, bilinear."""
        ...

    def argmax_upsampled(
        self,
        logits: Any,
        size: Size,
        *,
        confidence: bool = False,
        temperature: float = 1.0,
        align_corners: bool = False,
    ) -> tuple[Any, Any]:
        """Decide logits upsampled to a size (`pixelwise.upsampling.argmax_upsampled`)."""
        ...

    def decide_cells(
        self, cells: Any, stride: int, *, confidence: bool = False, temperature: float = 1.0
    ) -> tuple[Any, Any]:
        """Decide logits upsampled by a factor (`pixelwise.upsampling.decide_cells`)."""
        ...

    def finished(self, model: Any) -> None:
        """Wait until what was begun where the network computes is done."""
        ...

    def room(self, model: Any) -> int | None:
        """Return the bytes that are free where the network computes, if that is no processor; else None."""
        ...

    def forget(self) -> None:
        """Give memory back to the device."""
        ...


def arithmetic_of(model: Network) -> Arithmetic:
    """Return what computes with a network's answers."""
    if isinstance(model, ArrayNetwork):
        from pixelwise.inference import on_arrays

        return on_arrays
    from pixelwise.inference import on_tensors

    return on_tensors


def device_of(model: Network) -> str:
    """Return where a network computes: 'cpu', 'cuda' ..."""
    return arithmetic_of(model).device_of(model)
