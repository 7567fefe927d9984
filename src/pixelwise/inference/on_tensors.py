"""The arithmetic of a network of torch (`pixelwise.inference.networks.Arithmetic`)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from pixelwise.device import DECIDED_AT_ONCE, upload
from pixelwise.inference.networks import Size
from pixelwise.models import Segmenter
from pixelwise.upsampling import argmax_upsampled, decide_cells, recentred, resampled_part
from pixelwise.upsampling import upsample as upsampled

__all__ = ["argmax_upsampled", "decide_cells", "recentred", "resampled_part", "upsampled"]


def device_of(model: Segmenter) -> str:
    """Return where it computes."""
    return next(model.parameters()).device.type


def version_of(model: Segmenter) -> dict[str, str]:
    """Return torch's version."""
    return {"torch": torch.__version__}


def given(model: Segmenter, images: Float32[np.ndarray, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Return images on the network's device."""
    (batch,) = upload([torch.from_numpy(images)], next(model.parameters()).device).arrived()
    return batch


def taken(values: Tensor) -> np.ndarray:
    """Return values in the machine's memory."""
    return values.cpu().numpy()


def placed(model: Segmenter, values: Tensor | np.ndarray) -> Tensor:
    """Return values on the network's device."""
    if isinstance(values, np.ndarray):
        # What came from another machine cannot be written to, and torch has no such tensors.
        values = torch.from_numpy(values if values.flags.writeable else values.copy())
    return values.to(next(model.parameters()).device)


def zeros(model: Segmenter, shape: tuple[int, ...]) -> Tensor:
    """Return zeros on the network's device."""
    return torch.zeros(shape, device=next(model.parameters()).device)


def edged(cells: Float[Tensor, "B K h w"], rows: Size, columns: Size) -> Float[Tensor, "B K _ _"]:
    """Repeat the outermost cells: above and below, left and right."""
    return F.pad(cells, (*columns, *rows), mode="replicate")


def at_once(model: Segmenter) -> int:
    """Return how many times the usual strip is decided at once."""
    return DECIDED_AT_ONCE.get(device_of(model), 1)


@torch.no_grad()
def decode(model: Segmenter, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
    """Return logits at the network's own stride, float32."""
    return model.decode(images).logits.float()


def mirrored(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Exchange left and right."""
    return images.flip(-1)


def mean(copies: Sequence[Tensor]) -> Tensor:
    """Return the mean of several."""
    return torch.stack(list(copies)).mean(dim=0)


def zoomed(images: Float[Tensor, "B C _ _"], size: Size) -> Float[Tensor, "B C _ _"]:
    """Resize images, bilinear."""
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def finished(model: Segmenter) -> None:
    """Wait for a GPU, where work is only begun."""
    if device_of(model) == "cuda":
        torch.cuda.synchronize()


def room(model: Segmenter) -> int | None:
    """Return the bytes that are free on the network's GPU; None on others."""
    where = next(model.parameters()).device
    return torch.cuda.mem_get_info(where)[0] if where.type == "cuda" else None


def forget() -> None:
    """Give memory back to a GPU."""
    torch.cuda.empty_cache()
