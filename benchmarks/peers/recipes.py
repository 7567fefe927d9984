"""Peers' SegFormer-B0 from scratch, trained as their own documentation trains, on the crops of our sampler.

* transformers: its guide on semantic segmentation: `Trainer`'s AdamW (weight decay 0), a rate that falls linearly to 0,
  a clipped gradient, batch 2, colour jitter of 0.25. The guide's rate of 6e-5 is for trained weights.
* smp: its example on CamVid: Dice loss, Adam at 2e-4, cosine to 1e-5, mirroring, zoom 0.5 to 1.5, noise, blur and
  brightness. Its perspective and CLAHE are left out.

Each is trained at its documented rate, and at 1e-3, which is ours from scratch.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Where there is no build of torchvision for this torch, its two operators that others import are only named.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
OPERATORS.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")

from pixelwise.config import AugmentConfig, Config
from pixelwise.data.sampler import Sampler, batches
from pixelwise.data.split import open_split
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.models import Architecture, Decoded, Segmenter
from pixelwise.runs.model_folder import ModelCard
from pixelwise.training.training_data import read_training_data

PROBE = 12
"""Steps that tell how long a step takes."""


@dataclass(frozen=True)
class Documented:
    """What a peer's documentation says."""

    build: Callable[[int], tuple[nn.Module, Callable[[Tensor], Tensor]]]
    """From the number of classes to the network and what gives its logits."""
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]
    rate: float
    schedule: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]
    augment: AugmentConfig
    batch: int | None
    """None: as ours."""
    clip: float
    """Largest norm of the gradient."""


class Whole(nn.Module):
    """A peer's network as a decoder, behind an encoder that hands on the image."""

    def __init__(self, network: nn.Module, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.logits = network, logits

    def forward(self, maps: list[Tensor]) -> Decoded:
        """Return the peer's logits."""
        return Decoded(self.logits(maps[0]))


class Image(nn.Module):
    """Hands on the image."""

    channels, strides, multiple = (3,), (1,), 32

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the image in a list."""
        return [image]


def transformers_network(classes: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes))
    return network, lambda image: network(pixel_values=image).logits


def transformers_loss(logits: Tensor, mask: Tensor) -> Tensor:
    # What the network computes from labels.
    full = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, mask, ignore_index=-1)


def smp_network(classes: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    import segmentation_models_pytorch as smp

    network = smp.Segformer("mit_b0", encoder_weights=None, classes=classes)
    return network, network


def smp_loss(logits: Tensor, mask: Tensor) -> Tensor:
    from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss

    return DiceLoss(MULTICLASS_MODE, from_logits=True, ignore_index=-1)(logits, mask)


def linearly(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))


def along_cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-5)


COLOURS = AugmentConfig(flip=False, rotate90=False, scale=(1.0, 1.0), brightness=0.25, contrast=0.25, band_jitter=0.25)
ZOOMED = AugmentConfig(flip=True, rotate90=False, scale=(0.5, 1.5), noise=0.1, blur=1.0, brightness=0.2, contrast=0.2)

TRANSFORMERS = Documented(
    transformers_network,
    transformers_loss,
    partial(torch.optim.AdamW, weight_decay=0.0),
    6e-5,
    linearly,
    COLOURS,
    2,
    1.0,
)
SMP = Documented(smp_network, smp_loss, torch.optim.Adam, 2e-4, along_cosine, ZOOMED, None, torch.inf)


def train_peer(
    peer: Documented, rate: float | None, config: Config, seconds: float, work: Path
) -> tuple[Segmenter, ModelCard, dict]:
    """Train a peer's network for a budget of processor seconds: a probe tells how many steps fit."""
    keep_freed_memory()
    classes, split = open_split(config)
    data = read_training_data(classes, split.training, [], print)
    first = data.training[0]
    kept = Architecture("segformer-b0", len(classes), len(first.reader.bands))
    card = ModelCard(kept, classes, first.reader.bands, first.info.dtype, data.mean, data.std)
    settings, size = config.train, peer.batch or config.train.batch_size
    sampler = Sampler(
        data.training, peer.augment, crop=settings.crop_size, seed=settings.seed, mean=data.mean, std=data.std
    )

    def run(steps: int) -> tuple[Segmenter, list[float]]:
        torch.manual_seed(settings.seed)
        network, logits = peer.build(len(classes))
        optimizer = peer.optimizer(network.parameters(), lr=rate or peer.rate)
        schedule, marks = peer.schedule(optimizer, steps), []
        network.train()
        for batch in batches(sampler, batch=size, first=0, last=steps, workers=0):
            optimizer.zero_grad()
            peer.loss(logits(batch.images), batch.masks).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), peer.clip)
            optimizer.step()
            schedule.step()
            marks.append(time.process_time())
        return Segmenter(Image(), Whole(network, logits), kept).eval(), marks

    _, marks = run(PROBE)
    steps = max(3, round(seconds / statistics.median(b - a for a, b in pairwise(marks[2:]))))
    model, marks = run(steps)
    return model, card, {"steps": steps, "seconds": (marks[-1] - marks[0]) * steps / (steps - 1), "batch": size}


PEERS = {
    "transformers": partial(train_peer, TRANSFORMERS, None),
    "transformers at 1e-3": partial(train_peer, TRANSFORMERS, 1e-3),
    "smp": partial(train_peer, SMP, None),
    "smp at 1e-3": partial(train_peer, SMP, 1e-3),
}
"""Way -> what trains it."""
