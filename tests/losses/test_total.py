import pytest
import torch
import torch.nn.functional as F

import pixelwise as pw
from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss, total_loss
from pixelwise.models import Decoded


@pytest.fixture
def mask():
    mask = torch.randint(IGNORE, 3, (4, 20, 24), generator=torch.Generator().manual_seed(0))
    mask[1] = mask[1].clamp(max=0)
    mask[2] = IGNORE
    return mask


def test_each_auxiliary_output_adds_its_loss_by_its_weight(mask):
    decoded = Decoded(torch.randn(4, 3, 5, 6), {"early": torch.randn(4, 3, 2, 3), "late": torch.randn(4, 3, 10, 12)})
    loss = total_loss(decoded, mask, LossConfig(), aux_weights={"early": 0.4, "late": 0.2})
    early, late = (segmentation_loss(decoded.aux[name], mask) for name in ("early", "late"))
    torch.testing.assert_close(loss, segmentation_loss(decoded.logits, mask) + 0.4 * early + 0.2 * late)


def test_an_output_without_a_weight_does_not_count(mask):
    logits = torch.randn(4, 3, 5, 6)
    decoded = Decoded(logits, {"more": torch.randn(4, 3, 5, 6)})
    loss = total_loss(decoded, mask, LossConfig(), aux_weights={"early": 1.0})
    torch.testing.assert_close(loss, segmentation_loss(logits, mask))


def test_corners_weights_and_losses_are_those_that_are_given_for_main_and_auxiliary_outputs(mask):
    decoded = Decoded(torch.randn(4, 3, 5, 6), {"early": torch.randn(4, 3, 2, 3)})
    mixed, plain = LossConfig(cross_entropy=0.5, dice=1.0), LossConfig()
    options = {"align_corners": True, "class_weights": torch.tensor([0.5, 1.0, 2.0])}
    main = segmentation_loss(decoded.logits, mask, mixed, **options)
    same = total_loss(decoded, mask, mixed, aux_weights={"early": 0.5}, **options)
    torch.testing.assert_close(same, main + 0.5 * segmentation_loss(decoded.aux["early"], mask, mixed, **options))
    other = total_loss(decoded, mask, mixed, aux_weights={"early": 0.5}, aux_losses=plain, **options)
    torch.testing.assert_close(other, main + 0.5 * segmentation_loss(decoded.aux["early"], mask, plain, **options))


def test_an_output_of_two_numbers_says_whether_an_image_holds_more_than_the_first_class(mask):
    logits, presence = torch.randn(4, 3, 5, 6), torch.randn(4, 2, requires_grad=True)
    loss = total_loss(Decoded(logits, {"presence": presence}), mask, LossConfig(), aux_weights={"presence": 0.7})
    known = [0, 1, 3]
    expected = F.cross_entropy(presence[known], torch.tensor([1, 0, 1]))
    torch.testing.assert_close(loss, segmentation_loss(logits, mask) + 0.7 * expected)
    loss.backward()
    assert presence.grad[known].all()
    assert not presence.grad[2].any()


def test_without_a_valid_pixel_the_whole_loss_and_all_gradients_are_0(mask):
    decoded = Decoded(
        torch.randn(4, 3, 5, 6, requires_grad=True),
        {"early": torch.randn(4, 3, 2, 3, requires_grad=True), "presence": torch.randn(4, 2, requires_grad=True)},
    )
    ignored = torch.full_like(mask, IGNORE)
    loss = total_loss(decoded, ignored, LossConfig(), aux_weights={"early": 0.4, "presence": 1.0})
    loss.backward()
    assert loss == 0
    for output in (decoded.logits, *decoded.aux.values()):
        assert torch.equal(output.grad, torch.zeros_like(output))


def test_region_mutual_information_trains_hierarchical_attention():
    torch.manual_seed(0)
    model = pw.create("hmsa", network="segformer-b0", classes=3, bands=3).train()
    image, mask = torch.randn(2, 3, 96, 96), torch.randint(IGNORE, 3, (2, 96, 96))
    loss = total_loss(
        model.decode(image),
        mask,
        LossConfig(cross_entropy=0.0, binary_cross_entropy=0.5, rmi=0.5),
        aux_weights=model.aux_weights,
        align_corners=model.align_corners,
    )
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 100
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
