"""Programs for GPUs, written in Triton, each an equal of a plain function of torch.

torch brings Triton with its builds for GPUs. A kernel is tried before it is used: on a small case, beside the plain
function. Where Triton is missing, fails or answers otherwise, the plain function does the work, and `REFUSED` says why.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

CLOSE = 1e-4
"""How far a kernel's numbers may be from the plain function's in its trial, as a share of the largest."""
REFUSED: dict[str, str] = {}
"""Kernel -> why it is not used."""


def on_gpu(tensor: Tensor) -> bool:
    """Return whether a tensor is where kernels run, and torch is not recording or compiling what is done with it."""
    return tensor.device.type == "cuda" and torch.cuda.is_available() and not torch.compiler.is_compiling()


def where(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which kernels are started on a tensor's device; Triton takes the current one."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def proven(
    name: str, kernel: Callable[[], Callable], plain: Callable, case: Callable[[torch.device], tuple], device: str
) -> Callable | None:
    """Return a kernel that answered as the plain function did, or None.

    Args:
        name: for `REFUSED`.
        kernel: imports the kernel; called here because Triton may be missing.
        plain: what it must equal; both return tensors or None.
        case: makes the arguments of the trial.
        device: where it is tried.
    """
    try:
        made, arguments = kernel(), case(torch.device(device))
        pairs = list(zip(made(*arguments), plain(*arguments), strict=True))
        far = [
            float((own.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1))
            for own, other in pairs
            if own is not None and other is not None
        ]
    except Exception as error:  # Triton, its compiler and the driver raise errors of many kinds
        REFUSED[name] = " ".join(str(error).split())[:300] or type(error).__name__
        return None
    if not all(each <= CLOSE for each in far):
        REFUSED[name] = f"its answers are a share of {max(far):.2g} from the plain function's"
        return None
    return made


@cache
def neighbours(coarse: int, full: int, align_corners: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return for each of ``full`` pixels the first of the two cells that it lies between, and the second one's share.

    As bilinear upsampling has it. Cells are int32 and shares float32; the second cell of the last one is itself.
    """
    # In float64: a large scene has more rows than float32 has exact halves.
    pixel = torch.arange(full, dtype=torch.float64)
    if align_corners:
        centre = pixel * ((coarse - 1) / max(1, full - 1))
    else:
        centre = ((pixel + 0.5) * (coarse / full) - 0.5).clamp(min=0)
    first = centre.floor().clamp(max=coarse - 1)
    return first.to(device, torch.int32), (centre - first).clamp(0, 1).to(device, torch.float32)
