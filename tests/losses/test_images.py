"""Losses of whole images: Lovász-softmax, MS-SSIM, region mutual information, boundary F1."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate1d, maximum_filter
from sklearn.metrics import jaccard_score

from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss
from pixelwise.losses.boundary import boundary_loss
from pixelwise.losses.lovasz import jaccard_steps, lovasz_softmax
from pixelwise.losses.ms_ssim import EXPONENTS, combined, ms_ssim_loss, similarity_levels
from pixelwise.losses.rmi import mutual_information_loss


def drawn(seed, classes, *size, lowest=IGNORE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(classes, *size, dtype=dtype, generator=generator)
    return logits, torch.randint(lowest, classes, size, generator=generator)


def blobs(seed, classes, *size):
    """A mask of squares of 6 pixels, so that there is something to be similar to."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, classes, [-(-side // 6) for side in size])
    return torch.from_numpy(np.kron(coarse, np.ones((6, 6), int))[: size[0], : size[1]])


def hard_logits(labels, classes):
    return 1e4 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 0).double()


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_on_hard_predictions_lovasz_is_1_minus_the_jaccard_index(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randint(0, classes, (6, 7), generator=generator)
    mask = torch.randint(IGNORE, classes, (6, 7), generator=generator)
    mask[0, 0] = 0
    valid = mask != IGNORE
    held = mask[valid].unique().numpy()
    expected = jaccard_score(mask[valid], guess[valid], labels=held, average=None, zero_division=1)
    assert lovasz_softmax(hard_logits(guess, classes), mask).item() == pytest.approx(1 - expected.mean())


@given(st.integers(0, 10**6), st.lists(st.booleans(), min_size=1, max_size=5))
def test_lovasz_is_the_largest_of_all_orders_as_the_extension_of_a_submodular_function_is(seed, own):
    # Edmonds' greedy theorem: of all orders in which pixels may become wrong, the sorted one gives the maximum.
    errors = np.random.default_rng(seed).random(len(own))
    own = np.array(own)

    def jaccard_loss(wrong):
        union = (own | wrong).sum()
        return 1 - (own & ~wrong).sum() / union if union else 0.0

    values = []
    for order in permutations(range(len(own))):
        wrong, value, before = np.zeros(len(own), bool), 0.0, 0.0
        for pixel in order:
            wrong[pixel] = True
            after = jaccard_loss(wrong)
            value, before = value + errors[pixel] * (after - before), after
        values.append(value)
    by_size = np.argsort(-errors)
    steps = jaccard_steps(torch.from_numpy(own[by_size])).numpy()
    if own.any():
        assert errors[by_size] @ steps == pytest.approx(max(values))


def similarity_formula(one, other):
    """SSIM and contrast of two images, windows that lie inside, from the paper."""
    side = min(11, *one.shape)
    window = np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blurred(image):
        for axis in (0, 1):
            image = correlate1d(image, window, axis=axis, mode="constant")
        inside = [slice(side // 2, length - (side - 1 - side // 2)) for length in image.shape]
        return image[tuple(inside)]

    mean, mean_other = blurred(one), blurred(other)
    variance, variance_other = blurred(one**2) - mean**2, blurred(other**2) - mean_other**2
    covariance = blurred(one * other) - mean * mean_other
    contrast = (2 * covariance + 0.0009) / (variance + variance_other + 0.0009)
    return (contrast * (2 * mean * mean_other + 0.0001) / (mean**2 + mean_other**2 + 0.0001)).mean(), contrast.mean()


def halved(image):
    height, width = (side // 2 * 2 for side in image.shape)
    return image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


@pytest.mark.parametrize("size", [(33, 40), (176, 181), (16, 21)])
def test_ms_ssim_is_that_of_a_plain_formula(size):
    logits, _ = drawn(0, 3, *size)
    mask = blobs(1, 3, *size)
    similarities = []
    for k in mask.unique().tolist():
        one, other = logits.softmax(dim=0)[k].numpy(), (mask == k).double().numpy()
        product = 1.0
        for level, exponent in enumerate(EXPONENTS):
            if level:
                one, other = halved(one), halved(other)
            structure, contrast = similarity_formula(one, other)
            product *= (((structure if level == 4 else contrast) + 1) / 2) ** exponent
        similarities.append(product)
    assert ms_ssim_loss(logits, mask).item() == pytest.approx(1 - np.mean(similarities), rel=1e-9)
    if len(similarities) > 1:
        foreground = ms_ssim_loss(logits, mask, foreground_only=True)
        assert foreground.item() == pytest.approx(1 - np.mean(similarities[1:]), rel=1e-9)


def test_ms_ssim_of_a_mask_with_itself_is_1_also_where_pixels_are_ignored():
    mask = blobs(2, 3, 40, 50)
    mask[5:20, 30:] = IGNORE
    logits = hard_logits(mask.clamp(min=0), 3)
    assert ms_ssim_loss(logits, mask).item() == pytest.approx(0, abs=1e-12)
    assert ms_ssim_loss(-logits, mask).item() > 0.3


def test_windows_of_ignored_pixels_do_not_count_in_ms_ssim():
    # A frame of 16 pixels is a whole number of cells at every level; windows beyond the image see less of it.
    logits, _ = drawn(3, 2, 200, 200)
    mask = blobs(3, 2, 200, 200)
    wide = torch.nn.functional.pad(mask, (0, 400, 0, 400), value=IGNORE)
    there = torch.nn.functional.pad(logits, (0, 400, 0, 400))
    assert ms_ssim_loss(there, wide).item() == pytest.approx(ms_ssim_loss(logits, mask).item(), rel=0.05)


def test_the_products_of_the_levels_are_the_papers_and_the_releases():
    structure, contrast = torch.rand(5, 4).double(), torch.rand(5, 4).double()
    paper = ((structure[4] + 1) / 2) ** EXPONENTS[4]
    for level in range(4):
        paper = paper * ((contrast[level] + 1) / 2) ** EXPONENTS[level]
    torch.testing.assert_close(combined(structure, contrast, product="paper"), paper)
    release = paper * ((structure[4] + 1) / 2) ** (3 * EXPONENTS[4])
    torch.testing.assert_close(combined(structure, contrast, product="unet3p"), release)


def test_similarities_lie_between_minus_1_and_1_and_opposites_are_below_0():
    probability = torch.rand(3, 40, 40)
    structure, contrast = similarity_levels(probability, probability < 0.5, torch.ones(40, 40, dtype=torch.bool))
    assert structure.abs().max() <= 1
    assert contrast[0].max() < -0.5


@pytest.mark.parametrize(("radius", "size"), [(3, (16, 22)), (3, (9, 41)), (2, (30, 17)), (1, (12, 12))])
def test_region_mutual_information_is_that_of_a_plain_formula(radius, size):
    logits, mask = drawn(4, 2, *size)
    total = 0.0
    for k in range(2):
        maps = []
        for image in ((mask == k).double().numpy(), (logits[k].sigmoid() * (mask != IGNORE) + 1e-6).numpy()):
            padded = np.pad(image, 2)
            rows, columns = (side // 4 + 1 for side in size)
            pooled = np.array(
                [[padded[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].sum() / 16 for j in range(columns)] for i in range(rows)]
            )
            points = [
                pooled[i : i + radius, j : j + radius].flatten()
                for i in range(rows - radius + 1)
                for j in range(columns - radius + 1)
            ]
            maps.append(np.array(points) - np.mean(points, axis=0))
        target, predicted = maps
        steady = 5e-4 * np.eye(radius**2)
        mixed = target.T @ predicted
        rest = target.T @ target - mixed @ np.linalg.inv(predicted.T @ predicted + steady) @ mixed.T + steady
        total += 0.5 * np.linalg.slogdet(rest)[1] / radius**2
    # The release's 1e-8 inside the logarithm is left out here.
    assert mutual_information_loss(logits, mask, radius=radius).item() == pytest.approx(total, rel=1e-5)


def test_region_mutual_information_is_least_for_a_right_prediction():
    mask = blobs(5, 3, 48, 48)
    right = mutual_information_loss(hard_logits(mask, 3) - 5e3, mask)
    other = mutual_information_loss(hard_logits(blobs(6, 3, 48, 48), 3) - 5e3, mask)
    nothing = mutual_information_loss(torch.zeros(3, 48, 48), mask)
    assert right < min(other.item(), nothing.item()) - 5


@pytest.mark.parametrize("tolerance", [1, 3, 5, 7])
def test_the_boundary_loss_is_that_of_a_plain_formula(tolerance):
    logits, _ = drawn(7, 3, 20, 26)
    mask = blobs(7, 3, 20, 26)

    def boundary(region):
        outside = 1 - region
        return maximum_filter(outside, 3, mode="constant", cval=0) - outside

    losses = []
    for k in mask.unique().tolist():
        target, predicted = boundary((mask == k).double().numpy()), boundary(logits.softmax(dim=0)[k].numpy())
        target_near, predicted_near = (maximum_filter(b, tolerance, mode="constant") for b in (target, predicted))
        precision = (predicted * target_near).sum() / predicted.sum()
        recall = (target * predicted_near).sum() / target.sum()
        losses.append(1 - 2 * precision * recall / (precision + recall))
    assert boundary_loss(logits, mask, tolerance=tolerance).item() == pytest.approx(np.mean(losses))


def test_a_boundary_that_is_off_by_less_than_the_tolerance_costs_nothing():
    mask = torch.zeros(20, 20, dtype=torch.long)
    mask[:, 10:] = 1
    for shift, least, most in ((0, 0, 1e-9), (2, 0, 1e-9), (4, 0.9, 1)):
        loss = boundary_loss(
            hard_logits(mask.roll(-shift, dims=1).index_fill(1, torch.arange(20 - shift, 20), 1), 2), mask
        )
        assert least <= loss.item() <= most


def test_an_image_of_one_class_has_no_boundary_and_loss_0():
    logits, mask = drawn(8, 2, 12, 12, lowest=0)
    assert boundary_loss(logits, torch.zeros_like(mask)) == 0


@pytest.mark.parametrize(("name", "size", "least"), [("ms_ssim", 15, "16x16"), ("rmi", 7, "at least 8")])
def test_a_mask_that_is_too_small_is_named_with_the_fix(name, size, least):
    logits, mask = torch.randn(1, 2, 4, 4), torch.zeros(1, size, 20, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"20x{size} pixels.*{least}.*{name} = 0"):
        segmentation_loss(logits, mask, LossConfig(**{name: 1.0}))
