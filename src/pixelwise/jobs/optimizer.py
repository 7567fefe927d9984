"""AdamW with the paper's parameter groups, the rate's schedule, and the moving average of the weights."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pixelwise.models import Segmenter


def parameter_groups(model: Segmenter, *, rate: float, decoder_rate: float, weight_decay: float) -> list[dict]:
    """Sort parameters into four groups: encoder and decoder, each with and without weight decay.

    As in SegFormer's training: norms and biases are not decayed, the decoder learns ``decoder_rate`` times faster.

    Args:
        rate: learning rate of the encoder.
    """
    groups = []
    for module, factor in ((model.encoder, 1.0), (model.decoder, decoder_rate)):
        decayed, plain = [], []
        for parameter in module.parameters():
            if parameter.requires_grad:
                # Weights of linear maps and convolutions are the parameters with two or more dimensions.
                (decayed if parameter.ndim > 1 else plain).append(parameter)
        groups.append({"params": decayed, "lr": rate * factor, "weight_decay": weight_decay})
        groups.append({"params": plain, "lr": rate * factor, "weight_decay": 0.0})
    return [{**group, "base_rate": group["lr"]} for group in groups if group["params"]]


def rate_factor(step: int, *, steps: int, warmup: int, power: float) -> float:
    """Return what the base rates are multiplied with at a step: linear warm-up times polynomial decay to zero."""
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return warm * (1 - step / steps) ** power


class MovingAverage:
    """An exponential moving average of all weights and buffers, in a model of its own.

    The decay rises as (1 + t) / (10 + t) to its final value, so that short runs do not average in their beginning.
    """

    def __init__(self, model: Segmenter, average: Segmenter, decay: float) -> None:
        self.model, self.average, self.decay = model, average, decay
        average.load_state_dict(model.state_dict())
        average.requires_grad_(False).eval()
        self._pairs = list(_floats(model, average))
        self._others = list(_counters(model, average))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for source, target in self._pairs:
            target.lerp_(source, 1 - decay)
        for source, target in self._others:
            target.copy_(source)


def _entries(model: nn.Module, average: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(model.state_dict().values(), average.state_dict().values(), strict=True)


def _floats(model: nn.Module, average: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return ((s, t) for s, t in _entries(model, average) if s.is_floating_point())


def _counters(model: nn.Module, average: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return ((s, t) for s, t in _entries(model, average) if not s.is_floating_point())
