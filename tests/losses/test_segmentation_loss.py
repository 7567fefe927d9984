import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from pixelwise import array_upsampling
from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss


@st.composite
def cases(draw):
    """Draw logits at any stride, a mask of odd size with ignored pixels, and options."""
    batch, classes = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    small = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    size = draw(st.integers(1, 29)), draw(st.integers(1, 29))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = torch.randn(batch, classes, *small, generator=generator) * draw(st.sampled_from([0.1, 2.0, 8.0]))
    lowest = draw(st.sampled_from([IGNORE, 0]))
    mask = torch.randint(lowest, draw(st.integers(1, classes)), (batch, *size), generator=generator)
    options = {
        "cross_entropy": draw(st.sampled_from([0.0, 0.7, 1.0])),
        "focal": draw(st.sampled_from([0.0, 0.0, 0.8])),
        "focal_gamma": draw(st.sampled_from([0.0, 0.5, 2.0])),
        "dice": draw(st.sampled_from([0.0, 0.5, 2.0])),
        "soft_iou": draw(st.sampled_from([0.0, 0.0, 0.6])),
        "foreground_only": draw(st.booleans()),
        "align_corners": draw(st.booleans()),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1])),
        "class_weights": draw(st.sampled_from([None, torch.rand(classes, generator=generator) + 0.1])),
    }
    return logits, mask, options


def formula(logits, mask, *, cross_entropy=1.0, focal=0.0, dice=0.0, soft_iou=0.0, **settings):
    """The whole thing at full size, in float64, over the valid pixels alone."""
    classes, first = logits.shape[1], int(settings.get("foreground_only", False))
    corners = settings.get("align_corners", False)
    full = F.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=corners)
    inside = mask != IGNORE
    pixels, target = full.permute(0, 2, 3, 1)[inside], mask[inside]
    if len(target) == 0:
        return logits.sum() * 0
    weights = settings.get("class_weights")
    weights = (torch.ones(classes) if weights is None else weights).to(logits.dtype)
    smoothing = settings.get("label_smoothing", 0.0)
    loss = cross_entropy * F.cross_entropy(pixels, target, weights, label_smoothing=smoothing)
    probability = pixels.softmax(dim=1)
    right = pixels.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    # Bounded from below, where the slope of a root has no end.
    easy = (-torch.expm1(right)).clamp(min=1e-300) ** settings.get("focal_gamma", 2.0)
    loss = loss + focal * (weights[target] * easy * -right).sum() / weights[target].sum()
    held = [k for k in target.unique().tolist() if k >= first]
    if held:
        overlaps = [2 * probability[target == k, k].sum() + 1 for k in held]
        sizes = [probability[:, k].sum() + (target == k).sum() + 1 for k in held]
        loss = loss + dice * (1 - torch.stack(overlaps) / torch.stack(sizes)).mean()
        loss = loss + soft_iou * iou_formula(full.softmax(dim=1), mask, first)
    return loss


def iou_formula(probability, mask, first):
    by_image = []
    for own, own_mask in zip(probability, mask, strict=True):
        losses = []
        for k in range(first, len(own)):
            there, inside = own_mask == k, own_mask != IGNORE
            if there.any():
                overlap = own[k][there].sum()
                losses.append(1 - overlap / (own[k][inside].sum() + there.sum() - overlap))
        by_image += [torch.stack(losses).mean()] if losses else []
    return torch.stack(by_image).mean()


def of_options(logits, mask, *, class_weights=None, align_corners=False, **losses):
    """`segmentation_loss` of one dictionary of options, as `formula` takes them."""
    return segmentation_loss(
        logits, mask, LossConfig(**losses), class_weights=class_weights, align_corners=align_corners
    )


def loss_and_gradient(function, logits, mask, options):
    logits = logits.clone().requires_grad_()
    loss = function(logits, mask, **options)
    loss.backward()
    return loss.detach(), logits.grad


@given(cases())
def test_the_loss_and_its_gradient_are_those_of_the_plain_formula_at_full_size(case):
    logits, mask, options = case
    loss, gradient = loss_and_gradient(of_options, logits, mask, options)
    expected, slope = loss_and_gradient(formula, logits.double(), mask, options)
    assert loss.double() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    # With one class the true gradient is 0, and what is left is the rounding of terms that cancel.
    assert (gradient - slope).abs().max() <= 5e-6 * slope.abs().max() + torch.finfo(torch.float32).eps


@given(cases())
def test_in_float64_the_loss_and_its_gradient_are_those_of_the_plain_formula_to_12_digits(case):
    logits, mask, options = case
    loss, gradient = loss_and_gradient(of_options, logits.double(), mask, options)
    expected, slope = loss_and_gradient(formula, logits.double(), mask, options)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cross_entropy": 0.0, "dice": 1.0},
        {"dice": 0.5, "label_smoothing": 0.2},
        {"cross_entropy": 0.0, "focal": 1.0, "soft_iou": 0.5},
        {"cross_entropy": 0.0, "ohem": 1.0, "ohem_min_kept": 20, "ohem_threshold": 0.2},
        {"bootstrapped": 1.0, "bootstrapped_min_kept": 20, "bootstrapped_threshold": 1.5, "align_corners": True},
    ],
)
def test_the_gradient_is_that_of_finite_differences(options):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.randint(IGNORE, 3, (2, 7, 10), generator=generator)
    assert torch.autograd.gradcheck(lambda x: of_options(x, mask, **options), logits)


@pytest.mark.parametrize("size", [(90, 155), (23, 39), (47, 77), (12, 20)])
def test_a_scale_that_is_no_whole_number_is_as_exact_as_any(size):
    generator = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(2, 4, 23, 39, generator=generator)
    mask = torch.randint(IGNORE, 4, (2, *size), generator=generator)
    options = {"dice": 0.5, "label_smoothing": 0.1, "class_weights": torch.tensor([1.0, 0.2, 3.0, 0.0])}
    loss, gradient = loss_and_gradient(of_options, logits, mask, options)
    expected, slope = loss_and_gradient(formula, logits.double(), mask, options)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - slope).abs().max() <= 5e-6 * slope.abs().max()


@pytest.mark.parametrize("steepness", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("stride", [2, 3, 4, 7, 16, 32])
def test_a_whole_scale_is_as_exact_as_any_however_steep_the_logits(stride, steepness):
    generator = torch.Generator().manual_seed(3)
    logits = steepness * torch.randn(2, 5, 4, 6, generator=generator)
    mask = torch.randint(IGNORE, 5, (2, 4 * stride, 6 * stride), generator=generator)
    smooth = {"dice": 0.5, "label_smoothing": 0.1, "focal": 0.5}
    loss, gradient = loss_and_gradient(of_options, logits, mask, smooth)
    expected, slope = loss_and_gradient(formula, logits.double(), mask, smooth)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - slope).abs().max() <= 5e-6 * slope.abs().max()
    worst = {"bootstrapped": 1.0, "bootstrapped_min_kept": 40}
    loss, gradient = loss_and_gradient(of_options, logits, mask, worst)
    expected, slope = loss_and_gradient(of_options, logits.double(), mask, worst)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - slope).abs().max() <= 5e-6 * slope.abs().max()


def test_sums_over_hundreds_of_thousands_of_pixels_keep_their_digits():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 2, 64, 64, generator=generator)
    mask = torch.randint(IGNORE, 2, (1, 640, 640), generator=generator)
    options = {"dice": 1.0}
    loss = of_options(logits, mask, **options)
    assert loss.item() == pytest.approx(formula(logits.double(), mask, **options).item(), rel=5e-7)


@given(cases(), st.data())
def test_logits_that_only_ignored_pixels_see_change_neither_loss_nor_gradient(case, data):
    logits, _, options = case
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    # At the mask's own size each pixel sees one logit, so those under ignored pixels are seen by no other.
    mask = torch.randint(IGNORE, logits.shape[1], (len(logits), *logits.shape[-2:]), generator=generator)
    changed = torch.where(mask[:, None] == IGNORE, torch.randn(logits.shape, generator=generator) * 9, logits)
    loss, gradient = loss_and_gradient(of_options, logits, mask, options)
    other_loss, other = loss_and_gradient(of_options, changed, mask, options)
    assert other_loss == loss
    assert torch.equal(other, gradient)
    assert not gradient.movedim(1, -1)[mask == IGNORE].any()


@given(cases(), st.integers(1, 400))
def test_the_size_of_the_strips_does_not_matter(case, elements):
    logits, mask, options = case
    whole = loss_and_gradient(of_options, logits, mask, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_upsampling, "STRIP_ELEMENTS", elements)
        cut = loss_and_gradient(of_options, logits, mask, options)
    torch.testing.assert_close(cut[0], whole[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cut[1], whole[1], rtol=1e-4, atol=1e-6)


@given(cases())
def test_a_batch_without_a_valid_pixel_has_loss_0_and_gradient_0(case):
    logits, mask, options = case
    loss, gradient = loss_and_gradient(of_options, logits, torch.full_like(mask, IGNORE), options)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


@given(cases())
def test_an_image_that_is_ignored_whole_changes_nothing_for_the_others(case):
    logits, mask, options = case
    loss, gradient = loss_and_gradient(of_options, logits, mask, options)
    both, more = torch.cat([logits, logits + 3]), torch.cat([mask, torch.full_like(mask, IGNORE)])
    padded_loss, padded = loss_and_gradient(of_options, both, more, options)
    torch.testing.assert_close(padded_loss, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(padded[: len(logits)], gradient, rtol=1e-4, atol=1e-6)
    assert torch.equal(padded[len(logits) :], torch.zeros_like(logits))


@given(cases(), st.floats(-3, 3))
def test_a_factor_in_front_of_the_loss_multiplies_the_gradient(case, factor):
    logits, mask, options = case
    _, gradient = loss_and_gradient(of_options, logits, mask, options)
    scaled = logits.clone().requires_grad_()
    (of_options(scaled, mask, **options) * factor).backward()
    torch.testing.assert_close(scaled.grad, gradient * factor)


def test_half_precision_logits_get_a_gradient_of_their_own_type_and_a_loss_in_float32():
    logits = torch.randn(1, 3, 4, 4, dtype=torch.bfloat16)
    loss, gradient = loss_and_gradient(of_options, logits, torch.randint(0, 3, (1, 16, 16)), {"dice": 1.0})
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_with_in_float32(dtype):
    logits, mask = torch.randn(2, 3, 6, 7).to(dtype), torch.randint(-1, 3, (2, 25, 30))
    loss, gradient = loss_and_gradient(of_options, logits, mask, {"dice": 1.0})
    expected, slope = loss_and_gradient(of_options, logits.float(), mask, {"dice": 1.0})
    assert loss == expected
    assert torch.equal(gradient, slope.to(dtype))


def test_under_autocast_the_loss_and_its_gradient_are_the_same():
    logits, mask = torch.randn(2, 3, 6, 7), torch.randint(-1, 3, (2, 25, 30))
    loss, gradient = loss_and_gradient(of_options, logits, mask, {"dice": 1.0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other_loss, other = loss_and_gradient(of_options, logits, mask, {"dice": 1.0})
    assert other_loss == loss
    assert torch.equal(other, gradient)


def test_logits_of_hundreds_neither_overflow_nor_lose_the_loss():
    logits = torch.tensor([500.0, -500.0, 0.0]).reshape(1, 3, 1, 1)
    loss, gradient = loss_and_gradient(of_options, logits, torch.ones(1, 4, 4, dtype=torch.long), {})
    assert loss == 1000
    torch.testing.assert_close(gradient.flatten(), torch.tensor([1.0, -1.0, 0.0]))


def test_channels_last_logits_get_a_channels_last_gradient():
    logits = torch.randn(2, 3, 6, 7).to(memory_format=torch.channels_last)
    _, gradient = loss_and_gradient(of_options, logits, torch.randint(-1, 3, (2, 25, 30)), {"dice": 1.0})
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_second_derivative_is_refused_rather_than_wrong():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(1, 6, 6, dtype=torch.long))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_without_gradients_the_loss_is_the_same():
    logits, mask = torch.randn(2, 3, 4, 4), torch.randint(-1, 3, (2, 15, 17))
    options = {"dice": 1.0, "label_smoothing": 0.1}
    loss, _ = loss_and_gradient(of_options, logits, mask, options)
    with torch.no_grad():
        assert of_options(logits, mask, **options) == loss


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor holds."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_tensor_is_as_large_as_the_full_size_logits(monkeypatch):
    monkeypatch.setattr(array_upsampling, "STRIP_ELEMENTS", 3000)
    logits, mask = torch.randn(2, 6, 24, 24), torch.randint(-1, 6, (2, 96, 96))
    with Largest() as largest:
        options = {"dice": 1.0, "label_smoothing": 0.1, "focal": 1.0, "soft_iou": 1.0, "ohem": 1.0, "bootstrapped": 1.0}
        loss_and_gradient(of_options, logits, mask, options)
    # One more per image stands for what lies outside of it.
    assert largest.elements <= max(mask.numel() + len(mask), logits.numel())
    with Largest() as largest:
        loss_and_gradient(formula, logits, mask, {"dice": 1.0})
    assert largest.elements >= mask.numel() * 6, "the measurement sees large tensors"


@pytest.mark.parametrize("value", [-2, 3, 255])
def test_a_mask_value_that_is_no_class_raises_and_is_named(value):
    mask = torch.zeros(1, 8, 8, dtype=torch.long)
    mask[0, 3, 4] = value
    with pytest.raises(ValueError, match=f"{value}.*3 classes"):
        segmentation_loss(torch.zeros(1, 3, 2, 2), mask)


@pytest.mark.parametrize(("dtype", "classes"), [(torch.uint8, 3), (torch.uint8, 256), (torch.int8, 128)])
def test_masks_of_small_types_hold_what_fits_into_them(dtype, classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 4, 4, generator=generator)
    mask = torch.randint(0, classes, (2, 16, 16), generator=generator)
    mask[0, 0, 0] = classes - 1
    losses = LossConfig(dice=1.0)
    expected = segmentation_loss(logits, mask, losses)
    assert segmentation_loss(logits, mask.to(dtype), losses) == expected
