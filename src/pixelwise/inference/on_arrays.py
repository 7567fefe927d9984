"""The arithmetic of a network that answers in numpy arrays (`pixelwise.inference.networks.Arithmetic`)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from pixelwise.array_upsampling import argmax_upsampled, decide_cells, recentred, resampled_part, upsample
from pixelwise.inference.networks import ArrayNetwork, Size

__all__ = ["argmax_upsampled", "decide_cells", "recentred", "resampled_part"]

Images = Float32[np.ndarray, "B C H W"]
Logits = Float32[np.ndarray, "B K h w"]


def device_of(model: ArrayNetwork) -> str:
    """Return where it computes: the runtime knows, and to us it is the processor."""
    return "cpu"


def version_of(model: ArrayNetwork) -> dict[str, str]:
    """Return name and version of the runtime, and of numpy, which does the rest."""
    return {"runtime": model.version, "numpy": np.__version__}


def given(model: ArrayNetwork, images: Images) -> Images:
    """Return images as they are."""
    return images


def taken(values: np.ndarray) -> np.ndarray:
    """Return values as they are."""
    return values


def placed(model: ArrayNetwork, values: np.ndarray) -> np.ndarray:
    """Return values as they are."""
    return values


def zeros(model: ArrayNetwork, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 zeros."""
    return np.zeros(shape, np.float32)


def edged(cells: Logits, rows: Size, columns: Size) -> Float32[np.ndarray, "B K _ _"]:
    """Repeat the outermost cells: above and below, left and right."""
    return np.pad(cells, ((0, 0), (0, 0), rows, columns), mode="edge")


def at_once(model: ArrayNetwork) -> int:
    """Return 1: the usual strip."""
    return 1


def decode(model: ArrayNetwork, images: Images) -> Logits:
    """Return logits at the network's own stride."""
    return model.logits(images).astype(np.float32, copy=False)


def mirrored(images: Images) -> Images:
    """Exchange left and right."""
    return np.ascontiguousarray(images[..., ::-1])


def mean(copies: Sequence[Logits]) -> Logits:
    """Return the mean of several."""
    return np.stack(copies).mean(axis=0)


def zoomed(images: Images, size: Size) -> Images:
    """Resize images, bilinear."""
    return upsample(images, size)


def upsampled(logits: Logits, size: Size, *, align_corners: bool = False) -> Logits:
    """Resize logits in one piece, bilinear."""
    return upsample(logits, size, align_corners=align_corners)


def finished(model: ArrayNetwork) -> None:
    """Do nothing: what is returned is done."""


def room(model: ArrayNetwork) -> None:
    """Return None: the runtime has memory of its own."""


def forget() -> None:
    """Do nothing: the runtime keeps its own memory."""
