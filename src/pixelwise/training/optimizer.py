"""Parameter groups, the schedule of the learning rate, and the average of the weights: moving (EMA), or of the tail."""

# torch's own optimisers use these functions of lists of tensors.
# pyright: reportPrivateImportUsage=false

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pixelwise.config import Config
from pixelwise.models import Segmenter
from pixelwise.processes import own_part


def learning_rates(config: Config) -> tuple[float, float]:
    """Return the highest rate of the encoder, and the decoder's over it: as configured, else what suits the start."""
    given = config.model.weights is not None or bool(config.model.options.get("pretrained"))
    rate = 6e-5 if given else 1e-3
    # Each of Lion's steps is as long as the rate; the paper takes 3 to 10 times less.
    rate *= 1 / 3 if config.train.optimizer == "lion" else 1
    # One cycle is at its highest rate only for a moment, after a long rise.
    rate *= 2 if config.train.schedule == "one_cycle" else 1
    return config.train.learning_rate or rate, config.train.decoder_lr_mult or (10.0 if given else 1.0)


def parameter_groups(
    model: Segmenter, *, rate: float, decoder_lr_mult: float, weight_decay: float, first_layer_lr_mult: float = 1.0
) -> list[dict]:
    """Sort parameters into groups of one rate and one weight decay.

    Only the matrices of linear layers and convolutions decay. Norms, biases and SegNeXt's layer scales do not (He et
    al. 2019, arXiv 1812.01187, section 3.1), nor do class tokens, position embeddings and class embeddings, which the
    authors of ViT's successors (DeiT, Segmenter, DEPICT) exempt. The decoder learns ``decoder_lr_mult`` times faster,
    as in SegFormer's training. Frozen parameters are left out.

    Args:
        rate: learning rate of the encoder's last layer.
        first_layer_lr_mult: rate of the encoder's first layer over that of its last; those between rise geometrically.
    """
    factors = layer_factors(model, first_layer_lr_mult) if first_layer_lr_mult != 1 else {}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for module, shared in ((model.encoder, 1.0), (model.decoder, decoder_lr_mult)):
        owners = dict(module.named_modules())
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                factor = factors.get(name, 1.0) if module is model.encoder else shared
                owner, _, own_name = name.rpartition(".")
                # Tokens, embeddings and norms of other libraries have several axes too.
                is_matrix = own_name == "weight" and isinstance(owners[owner], nn.Linear | _ConvNd)
                decay = weight_decay if is_matrix else 0.0
                groups.setdefault((rate * factor, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "base_rate": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


def layer_factors(model: Segmenter, first: float) -> dict[str, float]:
    """Return the factor of each encoder parameter's rate: ``first`` in the first layer, 1 in the last.

    A layer is a module that holds parameters. Layers are ordered as an image passes through them.
    """
    order: list[str] = []
    owners = {name.rpartition(".")[0] for name, _ in model.encoder.named_parameters()}
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: order.append(name))
        for name, module in model.encoder.named_modules()
        if name in owners
    ]
    parameter, training = next(model.parameters()), model.training
    try:
        with torch.no_grad():
            size = max(64, model.multiple)
            model.eval().decode(parameter.new_zeros(1, model.architecture.bands, size, size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    rank = {name: i for i, name in reversed(list(enumerate(dict.fromkeys(order))))}
    last = max(1, len(rank) - 1)
    # A parameter may be read without a call of its module. It gets the rank of the module before it.
    factors, depth = {}, 0
    for name, _ in model.encoder.named_parameters():
        depth = rank.get(name.rpartition(".")[0], depth)
        factors[name] = first ** (1 - depth / last)
    return factors


FIRST, LAST = 25, 1e4
"""One cycle begins at 1 / FIRST of the highest rate and ends at 1 / LAST of where it began."""
RISING = 0.3
"""Share of the steps in which one cycle rises."""


def rate_factor(step: int, *, steps: int, warmup: int, power: float, schedule: str = "poly") -> float:
    """Return the factor of the learning rates at a step.

    Args:
        step: counted from 0.
        warmup: steps of linear warm-up; one cycle has its own.
        schedule: "poly": polynomial decay to zero (of ``power``); "cosine": half a cosine to zero (Loshchilov and
            Hutter 2017, arXiv 1608.03983, eq. 5, without restarts); "one_cycle": up and down again along cosines (Smith
            and Topin 2018, arXiv 1708.07120), with the shape and numbers of `torch.optim.lr_scheduler.OneCycleLR`.
    """
    if schedule == "one_cycle":
        return _one_cycle(step, steps)
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule == "cosine":
        return warm * _between(1.0, 0.0, step / steps)
    return warm * (1 - step / steps) ** power


def _one_cycle(step: int, steps: int) -> float:
    top, end = RISING * steps - 1, steps - 1
    if step <= top:
        return _between(1 / FIRST, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, 1 / FIRST / LAST, (step - top) / (end - top) if end > top else 1.0)


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class MovingAverage:
    """An average of all weights and buffers, in a model of its own.

    It is an exponential moving average. Its decay rises as (1 + t) / (10 + t) to its final value, so that in short runs
    the first weights count little. From the step ``tail`` on it is the plain mean of the weights since then instead
    (Izmailov et al., Averaging Weights Leads to Wider Optima, 2018, arXiv 1803.05407, eq. 2).
    """

    def __init__(self, model: Segmenter, average: Segmenter, decay: float, tail: int | None = None) -> None:
        self.model, self.average, self.decay, self.tail = model, average, decay, tail
        average.load_state_dict(model.state_dict())
        average.requires_grad_(False).eval()
        self._sources, self._targets = _lists(_floats(model, average))
        self._counters, self._kept_counters = _lists(_counters(model, average))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.tail is not None and step >= self.tail:
            decay = 1 - 1 / (step - self.tail + 1)
        # All at once: on a GPU each call takes as long to begin as a small tensor to average.
        torch._foreach_lerp_(self._targets, self._sources, 1 - decay)
        if self._counters:
            torch._foreach_copy_(self._kept_counters, self._counters)


def _lists(pairs: Iterator[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    both = list(pairs)
    return [own_part(source) for source, _ in both], [own_part(target) for _, target in both]


def _entries(model: nn.Module, average: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(model.state_dict().values(), average.state_dict().values(), strict=True)


def _floats(model: nn.Module, average: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return ((s, t) for s, t in _entries(model, average) if s.is_floating_point())


def _counters(model: nn.Module, average: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return ((s, t) for s, t in _entries(model, average) if not s.is_floating_point())
