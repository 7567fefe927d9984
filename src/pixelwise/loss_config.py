"""What the loss is: the weight of each loss in the sum, and the losses' settings. All defaults stand here.

It is apart from `losses/`, so that the configuration can read it without torch.
"""

from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True)
class LossConfig:
    """The weights of the losses and their settings, named as the keys of [train].

    Each loss is explained at its function, which is named in brackets.
    """

    cross_entropy: float = 1.0
    """Weight of the mean over valid pixels. Each pixel counts by the weight of its class."""
    focal: float = 0.0
    """Weight of the focal loss (`focal_parts`), averaged in the same way; the class weights are its alpha."""
    ohem: float = 0.0
    """Weight of the cross-entropy of hard examples (`hard_example_loss`)."""
    bootstrapped: float = 0.0
    """Weight of the cross-entropy of each image's worst pixels (`bootstrapped_loss`)."""
    binary_cross_entropy: float = 0.0
    """Weight of the cross-entropy with a sigmoid per class, RMI's companion (`binary_cross_entropy_sum`)."""
    dice: float = 0.0
    """Weight of `dice_loss`."""
    soft_iou: float = 0.0
    """Weight of `soft_iou_loss`."""
    lovasz: float = 0.0
    """Weight of `lovasz_softmax`."""
    ms_ssim: float = 0.0
    """Weight of `ms_ssim_loss`."""
    rmi: float = 0.0
    """Weight of `mutual_information_loss`."""
    boundary: float = 0.0
    """Weight of `boundary_loss`."""

    label_smoothing: float = 0.0
    """Of the cross-entropy, 0 to below 1."""
    focal_gamma: float = 2.0
    """0 or more; 0 is the cross-entropy."""
    ohem_threshold: float = 0.9
    """A pixel is hard if its class has a probability below this, 0 to 1."""
    ohem_min_kept: int = 131072
    """At least so many pixels of a batch count as hard."""
    bootstrapped_threshold: float = 0.3
    """A pixel counts if its cross-entropy is above this."""
    bootstrapped_min_kept: int = 4096
    """At least so many pixels of an image count."""
    foreground_only: bool = False
    """Dice, soft IoU and MS-SSIM leave out the first class, as papers on one foreground do."""
    ms_ssim_product: Literal["paper", "unet3p"] = "paper"
    """How levels are multiplied: "paper", as in the paper on MS-SSIM, or "unet3p", as in UNet 3+'s release."""
    rmi_radius: int = 3
    """Side of RMI's neighbourhood in pooled pixels, 1 or more."""
    boundary_tolerance: int = 5
    """Side of the window, odd, within which boundaries meet."""


LOSSES = (
    *("cross_entropy", "focal", "ohem", "bootstrapped", "binary_cross_entropy", "dice", "soft_iou", "lovasz"),
    *("ms_ssim", "rmi", "boundary"),
)
"""The fields of `LossConfig` that are weights of losses in the sum."""
LOSS_KEYS = tuple(field.name for field in fields(LossConfig))
"""All fields of `LossConfig`, which are keys of [train]."""
