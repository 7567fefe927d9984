"""Lion, an optimiser that moves each weight by the sign of its momentum."""

# pyright: reportPrivateImportUsage=false  torch's own optimisers use these functions of lists of tensors

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, arXiv 2302.06675, algorithm 2).

    Each step is as long as the rate, whatever the gradient. So the paper takes a rate 3 to 10 times smaller than
    AdamW's, and a weight decay as many times larger. It keeps one number per weight; AdamW keeps two.

    A step with ``found_inf`` set to a tensor that is not 0 changes nothing, as torch's fused optimisers have it.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]] | Iterable[Tensor],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
        # Gradient scalers then set ``found_inf`` and call `step`, instead of asking the device whether they may.
        self._step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]  typed as torch's own are
        """Move all weights that have a gradient; return what ``closure`` does, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        bad: Tensor | None = getattr(self, "found_inf", None)
        if bad is not None and bad.device.type == "cpu":
            if bad:
                return loss
            bad = None
        for group in self.param_groups:
            rate, (fast, slow), decay = group["lr"], group["betas"], group["weight_decay"]
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            if not weights:
                continue
            momenta, slopes = [self.state[weight]["momentum"] for weight in weights], [each.grad for each in weights]
            shrunk, length = 1 - rate * decay, rate
            if bad is not None:
                # A bad step leaves all as it was; only the device knows whether this is one.
                slopes = [torch.where(bad > 0, old, new) for old, new in zip(momenta, slopes, strict=True)]
                shrunk, length = torch.where(bad > 0, 1.0, shrunk), torch.where(bad > 0, 0.0, rate)
            directions = torch._foreach_lerp(slopes, momenta, fast)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(weights, shrunk)
            torch._foreach_mul_(directions, length)
            torch._foreach_sub_(weights, directions)
            torch._foreach_lerp_(momenta, slopes, 1 - slow)
        return loss
