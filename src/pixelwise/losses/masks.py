"""The loss of a network that answers with masks and their classes, instead of a class for each pixel.

Each class that an image holds is one mask. They are matched with the network's masks one to one, and each pair is
compared at sampled points: Cheng et al., Masked-attention Mask Transformer for Universal Image Segmentation, CVPR 2022
(arXiv 2112.01527), sections 3.2 and 3.3; the matching is of Carion et al., 2020 (arXiv 2005.12872), the sampling of
Kirillov et al., PointRend, 2020 (arXiv 1912.08193). EoMT takes this loss over.

The papers count an ignored pixel as outside of all masks. Here it counts nowhere: a point's weight is the share of
valid pixels among those that it is sampled from. Where all pixels are valid, the loss is the papers'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.losses.segmentation import require_class_indices
from pixelwise.models.segmenter import Masks
from pixelwise.optional import optional_module
from pixelwise.processes import all_mean, mean_count

ROUNDING = 1e-3
"""A point that is sampled from valid pixels to a smaller share has none."""


@dataclass(frozen=True)
class MaskLoss:
    """The weights of the three losses, and how points are sampled; the defaults are those of both papers."""

    mask: float = 5.0
    """Of the binary cross-entropy of matched masks."""
    dice: float = 5.0
    """Of their Dice loss."""
    classes: float = 2.0
    """Of the cross-entropy of all masks' classes."""
    none: float = 0.1
    """How much a mask counts in that which matches nothing, and so has no class."""
    points: int = 12544
    """At so many points a pair of masks is compared."""
    candidates: float = 3.0
    """Points that are drawn at first, as a multiple."""
    uncertain: float = 0.75
    """Share of the points that are the candidates of which the network is least certain; the rest is random."""


@dataclass(frozen=True)
class Target:
    """What an image holds."""

    classes: Int[Tensor, " n"]
    masks: Float[Tensor, "n H W"]
    """1 where a pixel is of the class, else 0."""
    ignored: Float[Tensor, "1 H W"]
    """1 where a pixel counts nowhere, else 0."""

    @staticmethod
    def of(mask: Integer[Tensor, "H W"], dtype: torch.dtype) -> "Target":
        """Return the target of one image's class indices."""
        known = mask[mask != IGNORE]
        classes = known.unique().long()
        masks = (mask[None] == classes[:, None, None]).to(dtype)
        return Target(classes, masks, (mask == IGNORE).to(dtype)[None])


def mask_loss(
    answers: Sequence[Masks],
    mask: Integer[Tensor, "B H W"],
    settings: MaskLoss = MaskLoss(),
    *,
    class_weights: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, ""]:
    """Return the sum of the losses of all answers.

    Points are drawn from torch's own generator, so a step that is seeded draws the same again.

    Args:
        answers: of one depth of the network each.
        mask: class indices and `IGNORE`, of the size that the masks stand for.
        class_weights: how much a mask counts in the cross-entropy of classes, by the class that it matches.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`.
        MissingExtraError: SciPy is not installed.
    """
    require_class_indices(mask, answers[0].classes.shape[-1] - 1)
    device = answers[0].masks.device
    with torch.autocast(device.type, enabled=False):
        dtype = torch.promote_types(answers[0].masks.dtype, torch.float32)
        targets = [Target.of(one, dtype) for one in mask]
        losses = [
            _answer_loss(Masks(each.masks.to(dtype), each.classes.to(dtype)), targets, settings, class_weights)
            for each in answers
        ]
    return torch.stack(losses).sum()


def _answer_loss(
    answer: Masks, targets: Sequence[Target], settings: MaskLoss, class_weights: Tensor | None
) -> Float[Tensor, ""]:
    matches = [
        _matched(answer.masks[i], answer.classes[i], target, settings) if len(target.classes) else None
        for i, target in enumerate(targets)
    ]
    loss = settings.classes * _class_loss(answer.classes, targets, matches, settings, class_weights)
    pairs = [(i, *match) for i, match in enumerate(matches) if match is not None]
    count = mean_count(answer.classes.new_tensor(sum(len(queries) for _, queries, _ in pairs)))
    if not pairs:
        # An image without a valid pixel changes nothing, and a batch of such has the loss 0.
        return loss + 0 * answer.masks.sum()
    predicted = torch.cat([answer.masks[i][queries] for i, queries, _ in pairs])
    wanted = torch.cat([targets[i].masks[objects] for i, _, objects in pairs])
    ignored = torch.cat([targets[i].ignored.expand(len(queries), -1, -1) for i, queries, _ in pairs])
    points = _uncertain_points(predicted.detach(), ignored, settings)
    logits = _at(predicted, points)
    labels, weights = _labels_at(wanted, ignored, points)
    entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    entropy = (entropy * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-6)
    inside = logits.sigmoid() * weights
    overlap, sizes = (inside * labels).sum(dim=1), inside.sum(dim=1) + (labels * weights).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    return loss + (settings.mask * entropy.sum() + settings.dice * dice.sum()) / count


def _class_loss(
    logits: Float[Tensor, "B Q C"],
    targets: Sequence[Target],
    matches: Sequence[tuple[Tensor, Tensor] | None],
    settings: MaskLoss,
    class_weights: Tensor | None,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of all masks' classes, those of images without a valid pixel aside."""
    none = logits.shape[-1] - 1
    weights = logits.new_ones(none + 1)
    if class_weights is not None:
        weights[:none] = class_weights
    weights[none] = settings.none
    wanted = torch.full(logits.shape[:2], none, device=logits.device)
    for i, match in enumerate(matches):
        if match is None:
            wanted[i] = IGNORE
        else:
            queries, objects = match
            wanted[i, queries] = targets[i].classes[objects]
    total = all_mean(weights[wanted[wanted != IGNORE]].sum())
    loss = F.cross_entropy(logits.transpose(1, 2), wanted, weights, ignore_index=IGNORE, reduction="sum")
    return loss / torch.where(total > 0, total, 1)


@torch.no_grad()
def _matched(
    masks: Float[Tensor, "Q h w"], classes: Float[Tensor, "Q C"], target: Target, settings: MaskLoss
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return which masks are matched with which objects of an image, so that the sum of all costs is the lowest."""
    optimize = optional_module("scipy.optimize", what="Training EoMT", extra="eomt")
    points = torch.rand(1, settings.points, 2, device=masks.device)
    logits = _at(masks, points)
    labels, weights = _labels_at(target.masks, target.ignored, points)
    total = weights.sum().clamp(min=1e-6)
    # The cross-entropy of label y is softplus(x) - x y; pairs differ in the second term alone.
    entropy = (F.softplus(logits) @ weights.T - (logits * weights) @ labels.T) / total
    inside = logits.sigmoid() * weights
    sizes = inside.sum(dim=1)[:, None] + (labels * weights).sum(dim=1)[None]
    dice = 1 - (2 * inside @ labels.T + 1) / (sizes + 1)
    chance = classes.softmax(dim=-1)[:, target.classes]
    costs = settings.mask * entropy + settings.dice * dice - settings.classes * chance
    # Where the network gave no number, the loss has none either, and training stops with its own message.
    costs = costs.nan_to_num(nan=0.0, posinf=1e10, neginf=-1e10)
    queries, objects = optimize.linear_sum_assignment(costs.cpu().numpy())
    return torch.from_numpy(queries).to(masks.device), torch.from_numpy(objects).to(masks.device)


@torch.no_grad()
def _uncertain_points(
    logits: Float[Tensor, "n h w"], ignored: Float[Tensor, "n H W"], settings: MaskLoss
) -> Float[Tensor, "n P 2"]:
    """Return points, x and y from 0 to 1: many where a mask is uncertain, and a random rest (PointRend, section 3.1).

    Points of ignored pixels are taken last.
    """
    count = int(settings.uncertain * settings.points)
    candidates = torch.rand(len(logits), int(settings.points * settings.candidates), 2, device=logits.device)
    certainty = _at(logits, candidates).abs()
    certainty = certainty.masked_fill(_at(ignored, candidates, beyond="border") >= 1 - ROUNDING, torch.inf)
    chosen = (-certainty).topk(count, dim=1).indices
    points = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    rest = settings.points - count
    if rest <= 0:
        return points
    return torch.cat([points, torch.rand(len(logits), rest, 2, device=logits.device)], dim=1)


def _labels_at(
    masks: Float[Tensor, "n H W"], ignored: Float[Tensor, "m H W"], points: Float[Tensor, "m P 2"]
) -> tuple[Float[Tensor, "n P"], Float[Tensor, "m P"]]:
    """Return the share of each mask in what is not ignored around a point, and how much is not."""
    weights = F.threshold(1 - _at(ignored, points, beyond="border"), ROUNDING, 0)
    return _at(masks, points) / weights.clamp(min=1e-6), weights


def _at(maps: Float[Tensor, "n h w"], points: Float[Tensor, "m P 2"], *, beyond: str = "zeros") -> Float[Tensor, "n P"]:
    """Return the values of maps at points, bilinear; one row of points serves all maps.

    Args:
        beyond: what lies beyond the edge: "zeros", or the values at the "border".
    """
    shared, grid = len(points) == 1, 2 * points[:, None] - 1
    # As channels of one image, maps share what the points cost.
    image = maps[None] if shared else maps[:, None]
    values = F.grid_sample(image, grid, mode="bilinear", padding_mode=beyond, align_corners=False)[:, :, 0]
    return values[0] if shared else values[:, 0]
