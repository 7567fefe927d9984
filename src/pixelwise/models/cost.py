"""What one image costs: parameters, operations, memory and traffic."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.models.segmenter import Decoded, Segmenter


@dataclass(frozen=True)
class Cost:
    """Of one image of a given size, as the network really computes it, in evaluation mode and in its own type.

    SegFormer's decoder is rearranged here (see `AllMLPDecoder`), so its count lies below that of the published graph:
    for B0 at 512x512 and 150 classes 16.8 GFLOP are published.
    """

    parameters: int
    flops: int
    """Floating-point operations of matrix products, convolutions and attention; one multiply-add counts as two."""
    activation_bytes: int
    """Sum of the outputs of all innermost modules: what training without checkpointing keeps, roughly."""
    traffic_bytes: int
    """Sum of inputs, outputs and parameters of all innermost modules: what is moved if nothing stays in cache."""


def cost(model: Segmenter, *, size: tuple[int, int] = (512, 512)) -> Cost:
    """Count the cost of `Segmenter.decode` for one image; nothing is computed if the model is on the meta device.

    Args:
        size: height and width of the image.
    """
    activations = traffic = 0

    def count(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal activations, traffic
        activations += _bytes(output)
        traffic += _bytes(output) + _bytes(inputs) + sum(_bytes(parameter) for parameter in module.parameters())

    hooks = [m.register_forward_hook(count) for m in model.modules() if not any(True for _ in m.children())]
    training = model.training
    parameter = next(model.parameters())
    image = torch.zeros(1, model.architecture.bands, *size, device=parameter.device, dtype=parameter.dtype)
    try:
        # The counter knows the plain form of attention on every device, the fused ones only on some.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval().decode(image)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, int(counter.get_total_flops()), activations, traffic)


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Decoded):
        return _bytes(value.logits) + sum(map(_bytes, value.aux.values()))
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0
