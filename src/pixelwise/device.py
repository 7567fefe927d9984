"""Where a network runs, and what each kind of device is good at: the one place that decides it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from pixelwise.errors import ConfigError

KINDS = ("cpu", "cuda", "mps", "xpu")


def choose_device(name: str) -> torch.device:
    """Return the device that a name means.

    Args:
        name: one of `KINDS`, a GPU with its number, such as 'cuda:1', or 'auto': 'cuda' if there is one, else 'cpu'.

    Raises:
        ConfigError: no such name, or a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = "it has no such kind"
    if name.partition(":")[0] in KINDS:
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
        else:
            return device
    raise ConfigError(
        f"The device {name!r} does not work on this machine: {reason}. Use 'auto' or one of {', '.join(KINDS)}; a "
        "number says which GPU, as in 'cuda:1'.",
        code="PW314",
    )


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """Return the devices of a list such as 'cuda:0,cuda:1', which share the work.

    Raises:
        ConfigError: one that this machine does not have, a GPU that is named twice, or devices of two kinds, whose
            answers differ in their last digits.
    """
    devices = tuple(choose_device(name.strip()) for name in names.split(","))
    gpus = [device for device in devices if device.type != "cpu"]
    if len(set(gpus)) < len(gpus) or len({device.type for device in devices}) > 1:
        raise ConfigError(
            f"The devices {names!r} do not work together: name each GPU once, and devices of one kind, as in "
            "'cuda:0,cuda:1'.",
            code="PW314",
        )
    return devices


READ_EVERY = 10
"""Steps after which a GPU is asked for its losses. Each question waits until the GPU has done all that it was given."""
DECIDED_AT_ONCE = {"cpu": 1, "cuda": 64}
"""Kind of device -> how many times the usual strip is upsampled and decided at once; others: as on the CPU."""


@dataclass(frozen=True)
class Practice:
    """How a device is used in training."""

    half: torch.dtype | None
    """What the network computes in; None: float32. The loss and the weights are float32 always."""
    log_every: int
    """Steps after which losses are read."""

    @property
    def scaled(self) -> bool:
        """Whether the loss is scaled, because small float16 gradients would be 0."""
        return self.half is torch.float16


def practice(device: torch.device, precision: str, log_every: int | None = None) -> Practice:
    """Return how a device is used in training.

    Args:
        precision: 'bf16', 'fp16', 'fp32', or 'auto': on a GPU bfloat16 where its hardware has that, else float16;
            elsewhere float32.
        log_every: what was asked for; None: every step on a CPU, every `READ_EVERY` on a GPU.
    """
    half = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}
    if precision == "auto":
        precision = "fp32" if device.type != "cuda" else "bf16" if has_bfloat16(device) else "fp16"
    return Practice(half[precision], log_every or (READ_EVERY if device.type == "cuda" else 1))


@cache
def has_bfloat16(device: torch.device) -> bool:
    """Return whether a GPU's hardware computes in bfloat16; older ones only imitate it."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def laid_out(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a network on a device, in the memory layout that suits both.

    Convolutions on a GPU are fastest with channels last. Attention asks for the other layout again and again, so
    networks whose weights are mostly of convolutions get it, and others do not.
    """
    model = model.to(device)
    # torch's own signature leaves out that a layout alone is taken.
    return model.to(memory_format=torch.channels_last) if channels_last(model, device) else model  # pyright: ignore[reportCallIssue]


def channels_last(model: nn.Module, device: torch.device) -> bool:
    """Return whether images and weights lie in memory with channels last (`laid_out`)."""
    if device.type != "cuda":
        return False
    own = sum(each.weight.numel() for each in model.modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d))
    return 2 * own > sum(each.numel() for each in model.parameters())


@dataclass(frozen=True)
class Upload:
    """Tensors on their way to a device."""

    tensors: tuple[Tensor, ...]
    there: torch.cuda.Event | None
    """Happens once they have arrived; None: they have."""

    def arrived(self) -> tuple[Tensor, ...]:
        """Return them for use; the device waits for the copy, and the program does not."""
        if self.there is not None:
            stream = torch.cuda.current_stream(self.tensors[0].device)
            stream.wait_event(self.there)
            for tensor in self.tensors:
                # Their memory is of another stream, which must not give it away while this one reads it.
                tensor.record_stream(stream)
        return self.tensors


def upload(tensors: Sequence[Tensor], device: torch.device) -> Upload:
    """Begin to copy tensors to a device.

    To a GPU they go from page-locked memory and on a stream of their own, beside what the GPU computes.
    """
    if device.type != "cuda":
        return Upload(tuple(tensor.to(device) for tensor in tensors), None)
    with torch.cuda.stream(_copies(device)):
        copied = tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
        there = torch.cuda.Event()
        there.record()
    return Upload(copied, there)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
