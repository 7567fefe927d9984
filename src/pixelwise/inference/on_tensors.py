"""The arithmetic of a network of torch (`pixelwise.inference.networks.Arithmetic`)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from pixelwise import upsampling
from pixelwise.inference.networks import Decision, Size
from pixelwise.models import Segmenter
from pixelwise.upsampling import recentred, resampled_part

__all__ = ["recentred", "resampled_part"]

Logits = Float32[np.ndarray, "B K h w"]


def device_of(model: Segmenter) -> str:
    """Return where it computes."""
    return next(model.parameters()).device.type


def version_of(model: Segmenter) -> dict[str, str]:
    """Return torch's version."""
    return {"torch": torch.__version__}


def given(model: Segmenter, images: Float32[np.ndarray, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Return images on the network's device."""
    return torch.from_numpy(images).to(next(model.parameters()).device)


def taken(logits: Float[Tensor, "B K h w"]) -> Logits:
    """Return logits in the machine's memory."""
    return logits.cpu().numpy()


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


def upsampled(logits: Logits, size: Size, *, align_corners: bool = False) -> Float32[np.ndarray, "B K _ _"]:
    """Resize logits in one piece, bilinear."""
    return upsampling.upsample(torch.from_numpy(logits), size, align_corners=align_corners).numpy()


def argmax_upsampled(logits: Logits, size: Size, *, confidence: bool = False, align_corners: bool = False) -> Decision:
    """Decide logits upsampled to a size."""
    tensor = torch.from_numpy(logits)
    return _arrays(*upsampling.argmax_upsampled(tensor, size, confidence=confidence, align_corners=align_corners))


def decide_cells(cells: Logits, stride: int, *, confidence: bool = False) -> Decision:
    """Decide logits upsampled by a factor."""
    return _arrays(*upsampling.decide_cells(torch.from_numpy(cells), stride, confidence=confidence))


def forget() -> None:
    """Give memory back to a GPU."""
    torch.cuda.empty_cache()


def _arrays(labels: Tensor, confidence: Tensor | None) -> Decision:
    return labels.numpy(), None if confidence is None else confidence.numpy()
