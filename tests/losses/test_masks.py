"""The loss of masks and classes: what is ignored, what is matched, and what it agrees with."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from pixelwise.losses import MaskLoss, mask_loss
from pixelwise.models.segmenter import Masks

SETTINGS = MaskLoss(points=600)


def answer(batch=2, queries=5, classes=3, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(batch, queries, size, size, generator=generator)
    return Masks(masks.requires_grad_(), torch.randn(batch, queries, classes + 1, generator=generator).requires_grad_())


def blocks(batch=2, classes=3, size=64, seed=1):
    coarse = torch.randint(0, classes, (batch, 4, 4), generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)


def seeded(answers, mask, settings=SETTINGS, **options):
    torch.manual_seed(3)
    return mask_loss(answers, mask, settings, **options)


def test_a_perfect_answer_has_almost_no_loss_and_a_wrong_one_has_much():
    mask = blocks(batch=1)
    sharp = torch.stack([(mask[0] == k).float() for k in (2, 0, 1)])
    classes = torch.full((1, 4, 4), -20.0)
    for query, k in enumerate((2, 0, 1, 3)):
        classes[0, query, k] = 20
    masks = torch.cat([sharp * 60 - 30, torch.full((1, 64, 64), -30.0)])[None]
    # Points between two pixels have labels between 0 and 1, so at borders some loss is left.
    assert seeded([Masks(masks, classes)], mask) < 4
    assert seeded([Masks(-masks, classes)], mask) > 20


def test_masks_are_matched_at_the_lowest_cost():
    # Exhaustive costs with plain formulas, at the pixels instead of at sampled points.
    one, mask = answer(batch=1, size=64), blocks(batch=1)
    targets = torch.stack([(mask[0] == k).float() for k in range(3)]).flatten(1)
    logits, chances = one.masks[0].flatten(1), one.classes[0].softmax(-1)
    costs = torch.zeros(5, 3)
    for q in range(5):
        for k in range(3):
            entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits[q], targets[k])
            inside = logits[q].sigmoid()
            dice = 1 - (2 * (inside * targets[k]).sum() + 1) / (inside.sum() + targets[k].sum() + 1)
            costs[q, k] = 5 * entropy + 5 * dice - 2 * chances[q, k]
    queries, objects = linear_sum_assignment(costs.detach().numpy())
    expected = torch.full((5,), 3)
    expected[torch.from_numpy(queries)] = torch.from_numpy(objects)
    entropy = torch.nn.functional.cross_entropy(one.classes[0], expected, torch.tensor([1.0, 1, 1, 0.1]))
    seeded([one], mask, MaskLoss(points=40_000)).backward()
    (gradient,) = torch.autograd.grad(2 * entropy, one.classes)
    assert torch.allclose(one.classes.grad, gradient, atol=1e-6)


def test_ignored_pixels_change_neither_loss_nor_gradient():
    one, mask = answer(), blocks()
    mask[:, :, 40:] = -1
    results = []
    for change in (0.0, 7.0):
        masks = one.masks.detach().clone()
        # Cells of the masks that no valid pixel is mixed from.
        masks[..., 12:] += change
        changed = Masks(masks.requires_grad_(), one.classes)
        loss = seeded([changed], mask, MaskLoss(points=600, uncertain=0.0, candidates=1.0))
        results.append((loss, *torch.autograd.grad(loss, masks)))
    (loss, gradient), (other_loss, other_gradient) = results
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)
    assert gradient[..., 12:].abs().max() == 0
    assert gradient[..., :10].abs().max() > 0


def test_an_image_without_a_valid_pixel_changes_nothing_for_the_others():
    one, mask = answer(batch=1), blocks(batch=1)
    alone = seeded([one], mask)
    second = answer(batch=1, seed=9)
    both = Masks(torch.cat([one.masks, second.masks]), torch.cat([one.classes, second.classes]))
    together = seeded([both], torch.cat([mask, torch.full_like(mask, -1)]))
    assert torch.allclose(alone, together)
    together.backward()
    assert second.masks.grad.abs().sum() == 0
    assert second.classes.grad.abs().sum() == 0


def test_a_batch_without_a_valid_pixel_has_the_loss_0_and_a_gradient():
    one = answer()
    loss = seeded([one], torch.full((2, 64, 64), -1))
    loss.backward()
    assert loss == 0
    assert one.masks.grad.abs().sum() == one.classes.grad.abs().sum() == 0


def test_all_depths_are_added():
    first, second, mask = answer(), answer(seed=5), blocks()
    torch.manual_seed(3)
    apart = mask_loss([first], mask, SETTINGS) + mask_loss([second], mask, SETTINGS)
    assert torch.allclose(seeded([first, second], mask), apart)


def test_a_class_weight_makes_its_masks_count_more():
    one, mask = answer(), blocks()
    plain = seeded([one], mask, class_weights=torch.ones(3))
    assert torch.equal(plain, seeded([one], mask))
    heavy = seeded([one], mask, class_weights=torch.tensor([1.0, 5.0, 1.0]))
    assert not torch.allclose(plain, heavy)


def test_half_precision_is_computed_with_in_float32():
    one, mask = answer(), blocks()
    half = Masks(one.masks.bfloat16(), one.classes.bfloat16())
    same = Masks(half.masks.float(), half.classes.float())
    loss = seeded([half], mask)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, seeded([same], mask))


@pytest.mark.parametrize("value", [3, -2])
def test_a_value_that_is_no_class_is_refused(value):
    mask = blocks()
    mask[0, 0, 0] = value
    with pytest.raises(ValueError, match="3 classes"):
        seeded([answer()], mask)
