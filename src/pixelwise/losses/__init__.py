"""Losses of logits at the network's stride against a mask at full size, and their weighted sum.

Every loss is that of the bilinearly upsampled logits. One rule holds for all: ignored pixels change neither loss nor
gradient. An image without a valid pixel has a zero gradient and changes nothing for the others. A batch of such images
has the loss 0.
"""

from pixelwise.loss_config import LossConfig
from pixelwise.losses.dice import DICE_SMOOTH
from pixelwise.losses.masks import MaskLoss, mask_loss
from pixelwise.losses.segmentation import segmentation_loss
from pixelwise.losses.total import total_loss

__all__ = ["DICE_SMOOTH", "LossConfig", "MaskLoss", "mask_loss", "segmentation_loss", "total_loss"]
