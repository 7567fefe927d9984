"""What a network does with a whole batch at once, where processes share it: norms, and what is left out at random."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import DataError
from pixelwise.models import Segmenter
from pixelwise.models.library_encoder import LibraryEncoder
from pixelwise.processes import all_sum, own_share, rank, world


def see_whole_batch(model: nn.Module) -> None:
    """Put modules that take statistics or draws over the whole batch in the place of those that take a share's."""
    for name, child in model.named_children():
        other = of_whole_batch(child)
        if other is None:
            see_whole_batch(child)
        else:
            setattr(model, name, other)


def of_whole_batch(module: nn.Module) -> nn.Module | None:
    """Return what takes a module's place where processes share a batch; None: nothing."""
    if type(module) is nn.Dropout2d:
        return _ChannelDropout(module.p)
    return _SharedNorm(module) if isinstance(module, nn.BatchNorm2d) else None


def step_seed(model: Segmenter, seed: int, step: int) -> int:
    """Return the seed of a step's draws: one for all processes, unless a network draws something value by value."""
    own = rank() * 7_919 if world() > 1 and _draws_alone(model) else 0
    return seed * 1_000_003 + step + own * 1_000_003_000


def _draws_alone(model: Segmenter) -> bool:
    if isinstance(model.encoder, LibraryEncoder) or hasattr(model.decoder, "within"):
        return True
    return any(type(each) is nn.Dropout and each.p > 0 for each in model.modules())


class _ChannelDropout(nn.Module):
    """`nn.Dropout2d` whose draws are those for the whole batch."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        if not self.training or self.chance == 0:
            return image
        ones = image.new_ones(world() * len(image), image.shape[1], 1, 1)
        return image * own_share(F.dropout2d(ones, self.chance))


class _SharedNorm(nn.BatchNorm2d):
    """A batch norm with the mean and variance of the whole batch. It holds the parameters of the one it replaces.

    torch has one for GPUs alone (`nn.SyncBatchNorm`).
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        # timm's norms end with an activation.
        after = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
        self.after = nn.Sequential(*after) if after else None
        self.train(norm.training)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        of_batch = self.training or self.running_mean is None
        normed = self._normed(input) if of_batch else super().forward(input)
        return normed if self.after is None else self.after(normed)

    def _normed(self, image: Tensor) -> Tensor:
        wide = image.detach().to(torch.promote_types(image.dtype, torch.float32))
        count = world() * (image.numel() // image.shape[1])
        if count == 1:
            raise DataError(
                "A batch norm needs more than one value per channel. Raise [train].batch_size.", code="PW609"
            )
        # Shares are of one size, so the variance is the mean of their variances and the variance of their means.
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        whole_mean = all_sum(mean) / world()
        whole_variance = all_sum(variance + (mean - whole_mean) ** 2) / world()
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            factor = self.momentum
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                factor = 1 / float(self.num_batches_tracked) if factor is None else factor
            self.running_mean.lerp_(whole_mean.to(self.running_mean), factor or 0.0)
            unbiased = whole_variance * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var), factor or 0.0)
        normed = _Normed.apply(image, self.weight, self.bias, whole_mean, whole_variance, self.eps, count)
        assert isinstance(normed, Tensor), "apply has no type"
        return normed


class _Normed(torch.autograd.Function):
    """A normalised map, whose statistics depend on the maps of all processes (Ioffe and Szegedy 2015, section 3)."""

    @staticmethod
    def forward(ctx, image: Tensor, weight, bias, mean: Tensor, variance: Tensor, epsilon: float, count: int) -> Tensor:
        ctx.save_for_backward(image, weight, mean, variance)
        ctx.epsilon, ctx.count = epsilon, count
        return F.batch_norm(image, mean, variance, weight, bias, False, 0.0, epsilon)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, mean, variance = ctx.saved_tensors
        slope = grad_outputs[0].to(mean.dtype)
        scale = (variance + ctx.epsilon).rsqrt()[:, None, None]
        normed = (image.to(mean.dtype) - mean[:, None, None]) * scale
        sums = torch.stack([slope.sum(dim=(0, 2, 3)), (slope * normed).sum(dim=(0, 2, 3))])
        along, across = (all_sum(sums) / ctx.count)[:, :, None, None]
        by_image = (slope - along - normed * across) * scale
        if weight is None:
            return by_image.to(image.dtype), None, None, None, None, None, None
        by_image = by_image * weight.to(mean.dtype)[:, None, None]
        return by_image.to(image.dtype), sums[1].to(weight), sums[0].to(weight), None, None, None, None
