"""What a network learns from another one: a teacher's logits, and pseudo labels for images without labels."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelwise.config import AugmentConfig, Config
from pixelwise.data.augment import colour_change
from pixelwise.data.mixing import mix
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.fast.fuse import fuse
from pixelwise.labels import IGNORE
from pixelwise.losses.distillation import distillation_loss
from pixelwise.models import Segmenter
from pixelwise.processes import followers
from pixelwise.runs.model_folder import ModelCard, load_model
from pixelwise.upsampling import argmax_upsampled, upsample

RISING = 0.3
"""Share of the steps in which the weight of pseudo labels rises to its value."""
MIXED = 0.5
"""Share of the images without labels that get half of the classes of another one."""


def load_teacher(config: Config, bands: tuple[int, ...] | None) -> tuple[Segmenter, ModelCard, str]:
    """Load the model of ``[train].teacher``, as `load_model` does.

    Args:
        bands: of the network that learns; None: unknown.

    Raises:
        ConfigError: it has other classes or bands.
        WeightsError: no model there.
    """
    folder = config.train.teacher
    assert folder is not None, "only called with a teacher"
    model, card, digest = load_model(folder)
    names = tuple(config.data.classes)
    for what, own, theirs in (("classes", names, card.classes.names), ("bands", bands or card.bands, card.bands)):
        if own != theirs:
            raise ConfigError(
                f"[train].teacher = {folder} has the {what} {', '.join(map(str, theirs))}, and this run has "
                f"{', '.join(map(str, own))}. Give both the same, or leave the teacher out.",
                code="PW617",
            )
    return model, card, digest


class Teacher:
    """A trained network, which takes images as the run's own network does."""

    def __init__(self, config: Config, card: ModelCard, own: Segmenter, device: torch.device) -> None:
        """Load the model of ``[train].teacher``.

        Args:
            card: of the network that learns.
            own: that network.

        Raises:
            ConfigError: a crop that the two networks pad differently.
            ConfigError, WeightsError: as `load_teacher` says.
        """
        folder, side = config.train.teacher, config.train.crop_size
        model, theirs, self.digest = load_teacher(config, card.bands)
        if model.padded_size((side, side)) != own.padded_size((side, side)):
            raise ConfigError(
                f"[train].crop_size is {side}, which {own.architecture.name} and its teacher {folder} "
                f"({model.architecture.name}) pad to different sizes. Take a multiple of "
                f"{math.lcm(32, own.multiple, model.multiple)}.",
                code="PW617",
            )
        self.model = fuse(model.to(device))
        # From the run's normalisation to the teacher's: one line for each band.
        (mean, std), (their_mean, their_std) = (
            (torch.tensor(each.mean, device=device), torch.tensor(each.std, device=device)) for each in (card, theirs)
        )
        self._stretch, self._shift = (std / their_std)[:, None, None], ((mean - their_mean) / their_std)[:, None, None]

    @torch.no_grad()
    def logits(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Return the teacher's logits of images that are normalised for the network that learns."""
        theirs = (image * self._stretch + self._shift) * holds_data(image)[:, None]
        return self.model.decode(theirs).logits

    def loss(
        self, image: Float[Tensor, "B C H W"], logits: Float[Tensor, "B K h w"], temperature: float
    ) -> Float[Tensor, ""]:
        """Return the `distillation_loss` of a network's logits, over all pixels that hold data, labelled or not."""
        wanted = upsample(self.logits(image), logits.shape[-2:], align_corners=self.model.align_corners)
        counted = F.interpolate(holds_data(image)[:, None].float(), logits.shape[-2:], mode="nearest")[:, 0] > 0
        return distillation_loss(logits, wanted, counted, temperature)

    def require_same(self, state: dict) -> None:
        """Check that the run that goes on had the same teacher.

        Raises:
            WeightsError: it had other weights.
        """
        if state.get("teacher", self.digest) != self.digest:
            raise WeightsError(
                "[train].teacher holds other weights than when the run began, so it would not go on as it began. "
                "Restore them, or begin another run.",
                code="PW617",
            )


def holds_data(image: Float[Tensor, "B C H W"]) -> Bool[Tensor, "B H W"]:
    """Return where an image holds data. Pixels without data are 0 in all bands."""
    return (image != 0).any(dim=1)


@torch.no_grad()
def pseudo_labels(
    model: Segmenter, logits: Float[Tensor, "B K h w"], masks: Int[Tensor, "B H W"], confidence: float
) -> Int[Tensor, "B H W"]:
    """Return the teacher's class where it is surer than ``confidence``, else `IGNORE`; also where ``masks`` ignores."""
    height, width = masks.shape[-2:]
    labels, sure = argmax_upsampled(
        logits, model.padded_size((height, width)), confidence=True, align_corners=model.align_corners
    )
    assert sure is not None, "asked for"
    known = (sure[:, :height, :width] > confidence) & (masks != IGNORE)
    return torch.where(known, labels[:, :height, :width].long(), IGNORE)


def unlabelled_weight(step: int, steps: int, weight: float) -> float:
    """Return the weight of pseudo labels at a step: times exp(-5 (1 - t)²), where t rises to 1 in `RISING` of steps.

    Laine and Aila, Temporal Ensembling, 2017 (arXiv 1610.02242), section 2.1; so also the mean teacher.
    """
    share = min(1.0, step / max(1.0, RISING * steps))
    return weight * math.exp(-5 * (1 - share) ** 2)


def disturbed(
    images: Float[Tensor, "B C H W"],
    masks: Int[Tensor, "B H W"],
    config: AugmentConfig,
    rngs: Sequence[np.random.Generator],
) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B H W"]]:
    """Return what the network has to learn from pseudo labels: images in other colours, and mixed (ClassMix).

    Args:
        rngs: of each image.
    """
    images, masks = mix(images, masks, (followers(images), followers(masks)), AugmentConfig(classmix=MIXED), rngs)
    changed = []
    for image, rng in zip(images, rngs, strict=True):
        stretch, shift = (torch.from_numpy(each).to(image) for each in colour_change(config, len(image), rng))
        changed.append((image * stretch[:, None, None] + shift[:, None, None]) * (image != 0).any(dim=0))
    return torch.stack(changed), masks


def require_teacher(config: Config) -> None:
    """Check that images without labels have a teacher.

    Raises:
        ConfigError: there is neither a model nor an average of the weights.
    """
    if config.data.unlabelled is not None and config.train.teacher is None and not config.train.ema_decay:
        raise ConfigError(
            "[data].unlabelled needs a teacher, and [train].ema_decay = 0 asks for no average of the weights. Set "
            "ema_decay above 0, or name a model with [train].teacher.",
            code="PW617",
        )


def wrong_shares(logits: Float[Tensor, "B K h w"], masks: Int[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """Return the share of wrong cells of each crop at the logits' stride; NaN where none is labelled."""
    truth = F.interpolate(masks[:, None].float(), logits.shape[-2:], mode="nearest")[:, 0]
    counted = truth != IGNORE
    wrong = counted & (logits.argmax(dim=1) != truth)
    return wrong.sum(dim=(1, 2)) / counted.sum(dim=(1, 2))
