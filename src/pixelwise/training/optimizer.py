"""Parameter groups for AdamW, the schedule of the learning rate, and the moving average of the weights (EMA)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pixelwise.models import Segmenter


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


def rate_factor(step: int, *, steps: int, warmup: int, power: float) -> float:
    """Return the factor of the learning rates at a step: linear warm-up times polynomial decay to zero."""
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return warm * (1 - step / steps) ** power


class MovingAverage:
    """An exponential moving average of all weights and buffers, in a model of its own.

    The decay rises as (1 + t) / (10 + t) to its final value, so that in short runs the first weights count little.
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
