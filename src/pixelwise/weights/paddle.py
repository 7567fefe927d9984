"""What PaddlePaddle saves otherwise than torch, whatever the network; PaddleSeg's names are with each family's."""

from collections.abc import Mapping

from torch import Tensor

STATISTICS = {"._mean": ".running_mean", "._variance": ".running_var"}
"""Of its batch norms."""
WIDENING = (".mlp.fc1.weight",)
"""Linear layers that give more channels than they read, in all transformers: their shape shows which axis is which."""


def is_paddles(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if the names or shapes are those of PaddlePaddle's layers."""
    if any(name.endswith(tuple(STATISTICS)) for name in tensors):
        return True
    widening = [tensor.shape for name, tensor in tensors.items() if name.endswith(WIDENING) and tensor.ndim == 2]
    return bool(widening) and all(shape[0] < shape[1] for shape in widening)


def as_torch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return them as torch has them: matrices of linear layers as [out, in], statistics under its names."""
    converted = {}
    for name, tensor in tensors.items():
        for theirs, ours in STATISTICS.items():
            name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
        converted[name] = tensor.T if tensor.ndim == 2 and name.endswith(".weight") else tensor
    return converted
