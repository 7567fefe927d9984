"""What two processes do together in `training/test_distributed.py`; torchrun starts this file."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from pixelwise import processes
from pixelwise.config import Config
from pixelwise.errors import DataError, PixelwiseError
from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss
from pixelwise.losses.distillation import distillation_loss
from pixelwise.models.layers import DropPath
from pixelwise.training.joining import first_alone, joined
from pixelwise.training.train import Progress, train
from pixelwise.training.whole_batch import of_whole_batch

NONE = {"cross_entropy": 0.0}
LOSSES = {
    "cross-entropy": LossConfig(label_smoothing=0.1),
    "focal": LossConfig(**NONE, focal=1.0),
    "OHEM": LossConfig(**NONE, ohem=1.0, ohem_min_kept=200, ohem_threshold=0.1),
    "OHEM of few": LossConfig(**NONE, ohem=1.0, ohem_min_kept=5000),
    "bootstrapped": LossConfig(**NONE, bootstrapped=1.0, bootstrapped_min_kept=20),
    "Dice": LossConfig(**NONE, dice=1.0),
    "soft IoU": LossConfig(**NONE, soft_iou=1.0, foreground_only=True),
    "Lovász": LossConfig(**NONE, lovasz=1.0),
    "MS-SSIM": LossConfig(**NONE, ms_ssim=1.0),
    "RMI and binary cross-entropy": LossConfig(**NONE, rmi=0.5, binary_cross_entropy=0.5),
    "boundary": LossConfig(**NONE, boundary=1.0),
}


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, masks and class weights of 4 images, of which one has no label and one has few."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, 3, (4, 32, 32), generator=generator)
    masks[3] = IGNORE
    masks[2, 4:] = IGNORE
    return logits, masks, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def of_losses(logits: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor) -> dict[str, tuple]:
    """Return each loss, and its gradient by the logits."""
    found = {}
    for name, losses in LOSSES.items():
        own = logits.clone().requires_grad_()
        loss = segmentation_loss(own, masks, losses, class_weights=weights)
        loss.backward()
        found[name] = loss.detach(), own.grad
    own = logits.clone().requires_grad_()
    loss = distillation_loss(own, logits.flip(1), masks[:, ::4, ::4] != IGNORE, 2.0)
    loss.backward()
    found["distillation"] = loss.detach(), own.grad
    return found


def normed(norm: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a norm's output, all gradients, and its statistics."""
    own = images.clone().requires_grad_()
    output = norm(own)
    (output * own.detach().cos()).sum().backward()
    return {
        "output": output.detach(),
        "by image": own.grad,
        "by weight": norm.weight.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }


def norm_and_images() -> tuple[nn.BatchNorm2d, torch.Tensor]:
    """Return a norm with parameters that are not 0 or 1, and 4 images that differ."""
    generator = torch.Generator().manual_seed(1)
    norm = nn.BatchNorm2d(3).double()
    norm.weight.data.uniform_(0.5, 2, generator=generator)
    images = torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    return norm, images * torch.arange(1, 5)[:, None, None, None] + 100


def dropped(images: torch.Tensor, branch: nn.Module, channels: nn.Module) -> torch.Tensor:
    """Return images after a branch and some channels were left out at random."""
    torch.manual_seed(5)
    return torch.cat([branch(images, images), channels(images)], dim=1)


def exchanged() -> dict[str, object]:
    """Return what the functions of `processes` give in this process."""
    number = processes.rank()
    return {
        "world": processes.world(),
        "gathered": processes.gathered(torch.full((number + 1, 2), float(number))),
        "followers": processes.followers(processes.own_share(torch.arange(4))),
        "range": list(processes.own_range(6)),
        "from first": processes.from_first(f"from {number}"),
        "agreed": processes.agreed(number == 1, False),
        "count": processes.mean_count(torch.tensor(3 * number)),
        "no count": processes.mean_count(torch.tensor(0)),
    }


def main(folder: Path) -> None:
    todo = [(Config.model_validate(each["config"]), each["resume"]) for each in json.loads(sys.argv[2])]
    with joined(todo[0][0]):
        with first_alone() as first:
            if first:
                (folder / "alone").write_text("here")
        assert (folder / "alone").exists(), "the others have waited"
        share = processes.own_share
        logits, masks, weights = batch()
        found: dict[str, object] = {"losses": of_losses(share(logits), share(masks), weights)}
        norm, images = norm_and_images()
        found["norm"] = normed(of_whole_batch(norm), share(images))
        channels = of_whole_batch(nn.Dropout2d(0.5))
        found["dropped"] = dropped(share(images), DropPath(0.5), channels)
        found["exchanged"] = exchanged()
        said: list[str] = []
        for config, resume in todo:
            report = lambda event: None if isinstance(event, Progress) else said.append(event)  # noqa: E731
            train(config, resume=resume, report=report)
        found["said"] = said
        torch.save(found, folder / f"{processes.rank()}.pt")


def fail(how: str) -> None:
    """End in the second process while the first one waits for it."""
    with joined(Config.model_validate({"data": {"images": "images", "labels": "masks", "classes": ["a", "b"]}})):
        if processes.rank() == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("fields.tif is cut off. Copy it again.")
        processes.from_first("hello")
        processes.gathered(torch.zeros(1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] in ("killed", "mistaken"):
        try:
            fail(sys.argv[1])
        except PixelwiseError as problem:
            sys.exit(f"Error: {problem}")
    else:
        main(Path(sys.argv[1]))
