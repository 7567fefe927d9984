"""Lion, an optimiser that moves each weight by the sign of its momentum."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, arXiv 2302.06675, algorithm 2).

    Each step is as long as the rate, whatever the gradient. So the paper takes a rate 3 to 10 times smaller than
    AdamW's, and a weight decay as many times larger. It keeps one number per weight; AdamW keeps two.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]] | Iterable[Tensor],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]  typed as torch's own are
        """Move all weights that have a gradient; return what ``closure`` does, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, (fast, slow), decay = group["lr"], group["betas"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
                momentum = self.state[weight]["momentum"]
                direction = torch.lerp(weight.grad, momentum, fast).sign_()
                weight.mul_(1 - rate * decay).sub_(direction, alpha=rate)
                momentum.lerp_(weight.grad, 1 - slow)
        return loss
