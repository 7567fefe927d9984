"""Where a network runs: the one place that chooses a device."""

import torch

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
        "number says which GPU, as in 'cuda:1'."
    )
