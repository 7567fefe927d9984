"""Crops that are pasted into others, with their labels: ClassMix and CutMix."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelwise.config import AugmentConfig
from pixelwise.labels import IGNORE


def mix(
    images: Float[Tensor, "B C H W"],
    masks: Int[Tensor, "B H W"],
    partners: tuple[Float[Tensor, "B C H W"], Int[Tensor, "B H W"]],
    config: AugmentConfig,
    rngs: Sequence[np.random.Generator],
) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B H W"]]:
    """Paste a part of each crop's partner into it, or leave it as it is. Each pixel keeps its own label.

    Args:
        partners: the images and masks that parts are taken from.
        config: how often (``classmix``, ``cutmix``).
        rngs: of each crop, so that it is mixed alike whichever crops are mixed with it in one call.
    """
    images, masks = images.clone(), masks.clone()
    for i, (image, mask, rng) in enumerate(zip(*partners, rngs, strict=True)):
        choice = rng.random()
        if choice < config.classmix:
            pasted = _half_of_classes(mask, rng)
        elif choice < config.classmix + config.cutmix:
            pasted = _rectangle(mask.shape, rng)
        else:
            continue
        pasted = pasted.to(mask.device)
        images[i] = torch.where(pasted, image, images[i])
        masks[i] = torch.where(pasted, mask, masks[i])
    return images, masks


def _half_of_classes(mask: Int[Tensor, "H W"], rng: np.random.Generator) -> Bool[Tensor, "H W"]:
    # Olsson et al., ClassMix, WACV 2021 (arXiv 2007.07936), section 3.1: half of the classes in the mask.
    present = torch.unique(mask[mask != IGNORE])
    chosen = rng.permutation(len(present))[: len(present) // 2]
    return torch.isin(mask, present[torch.from_numpy(chosen)])


def _rectangle(shape: torch.Size, rng: np.random.Generator) -> Bool[Tensor, "H W"]:
    # Yun et al., CutMix, ICCV 2019 (arXiv 1905.04899), eq. 2: its area is uniform, and what leaves the crop is cut off.
    pasted = torch.zeros(shape, dtype=torch.bool)
    side = np.sqrt(rng.random())
    (top, bottom), (left, right) = (
        (int(max(0, middle - side * size / 2)), int(min(size, middle + side * size / 2)))
        for size, middle in ((size, rng.random() * size) for size in shape)
    )
    pasted[top:bottom, left:right] = True
    return pasted
