"""numpy's way from logits to classes is torch's, but where two logits are equal to rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise import array_upsampling as arrays
from pixelwise import upsampling as tensors

SIDES = st.integers(1, 9)
NEAR = 1e-5
"""Logits here are near 1, so this is far above rounding, and few pixels are nearer to a tie."""


def logits(classes, height, width, seed=0, batch=1):
    return np.random.default_rng(seed).standard_normal((batch, classes, height, width)).astype(np.float32)


def same_but_ties(found, wanted, full):
    """Compare labels and confidence; ``full`` are the logits of all pixels."""
    (labels, shares), (their_labels, their_shares) = found, wanted
    two = np.sort(full, axis=1)[:, -2:]
    apart = two[:, 1] - two[:, 0] > NEAR if full.shape[1] > 1 else np.ones(labels.shape, bool)
    assert labels.dtype == their_labels.numpy().dtype
    np.testing.assert_array_equal(labels[apart], their_labels.numpy()[apart])
    np.testing.assert_allclose(shares, their_shares.numpy(), atol=2e-6)


@given(SIDES, SIDES, st.integers(1, 4), st.sampled_from([1, 2, 5, 40, 300]), st.integers(0, 9))
def test_whole_factors_are_decided_as_torch_decides_them(height, width, stride, classes, seed):
    coarse = logits(classes, height + 2, width + 2, seed)
    found = arrays.decide_cells(coarse, stride, confidence=True)
    wanted = tensors.decide_cells(torch.from_numpy(coarse), stride, confidence=True)
    # The outermost cells are neighbours: an image of all cells, without a cell's width on each side.
    whole = tensors.upsample(torch.from_numpy(coarse), (stride * (height + 2), stride * (width + 2))).numpy()
    same_but_ties(found, wanted, whole[..., stride : stride * (height + 1), stride : stride * (width + 1)])


@given(
    SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 5, 40]), st.booleans(), st.integers(0, 9)
)
def test_any_size_is_decided_as_torch_decides_it(height, width, rows, columns, classes, align, seed):
    coarse = logits(classes, height, width, seed, batch=2)
    size = (rows, columns)
    found = arrays.argmax_upsampled(coarse, size, confidence=True, align_corners=align)
    tensor = torch.from_numpy(coarse)
    wanted = tensors.argmax_upsampled(tensor, size, confidence=True, align_corners=align)
    same_but_ties(found, wanted, tensors.upsample(tensor, size, align_corners=align).numpy())


@given(SIDES, SIDES, st.integers(1, 30), st.integers(1, 30), st.booleans(), st.integers(0, 9))
def test_resizing_gives_what_torchs_interpolation_gives(height, width, rows, columns, align, seed):
    coarse = logits(3, height, width, seed)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), size=(rows, columns), mode="bilinear", align_corners=align
    )
    np.testing.assert_allclose(arrays.upsample(coarse, (rows, columns), align_corners=align), wanted.numpy(), atol=1e-5)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 5), st.integers(0, 7), st.booleans(), st.integers(0, 9))
def test_parts_and_centres_are_resampled_as_torch_resamples_them(height, width, stride, short, align, seed):
    coarse, size = logits(3, height, width, seed), (height * stride, width * stride)
    part, cells = (size[0] - min(short, size[0] - 2), size[1]), (height + 1, width)
    tensor = torch.from_numpy(coarse)
    np.testing.assert_allclose(
        arrays.resampled_part(coarse, size, part, cells, align_corners=align),
        tensors.resampled_part(tensor, size, part, cells, align_corners=align).numpy(),
        atol=1e-4,
    )
    np.testing.assert_allclose(arrays.recentred(coarse, size), tensors.recentred(tensor, size).numpy(), atol=1e-4)


@given(st.sampled_from([2, 7, 40]), st.integers(0, 9))
def test_the_first_of_equal_classes_is_taken(classes, seed):
    coarse = np.random.default_rng(seed).integers(0, 2, (1, classes, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(arrays.decide(coarse)[0], coarse.argmax(axis=1))


def test_infinite_logits_give_no_nan():
    coarse = logits(3, 4, 4)
    coarse[0, 1] = np.inf
    coarse[0, 2] = -np.inf
    labels, shares = arrays.argmax_upsampled(coarse, (16, 16), confidence=True)
    assert (labels == 1).all()
    assert (shares == 1).all()


@pytest.mark.parametrize("strip", [1, 40, 1 << 20])
def test_strips_and_blocks_change_nothing(monkeypatch, strip):
    coarse = logits(5, 6, 7)
    wanted = [arrays.argmax_upsampled(coarse, size, confidence=True) for size in ((24, 28), (25, 29))]
    monkeypatch.setattr(arrays, "STRIP_ELEMENTS", strip)
    monkeypatch.setattr(arrays, "DECIDED_ELEMENTS", strip)
    for size, (labels, shares) in zip(((24, 28), (25, 29)), wanted, strict=True):
        found = arrays.argmax_upsampled(coarse, size, confidence=True)
        np.testing.assert_array_equal(found[0], labels)
        np.testing.assert_array_equal(found[1], shares)


def test_probabilities_are_those_of_softmax():
    one = 50 * logits(4, 3, 5)[0]
    np.testing.assert_allclose(arrays.softmax(one), torch.from_numpy(one).softmax(dim=0).numpy(), atol=1e-6)


@given(st.sampled_from([2, 40]), st.floats(0.2, 5), st.sampled_from([(6, 7), (12, 14), (11, 9)]))
def test_a_temperature_changes_confidence_alone(classes, temperature, size):
    coarse = logits(classes, 6, 7)
    labels, shares = arrays.argmax_upsampled(coarse, size, confidence=True, temperature=temperature)
    np.testing.assert_array_equal(labels, arrays.argmax_upsampled(coarse, size)[0])
    full = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear")
    wanted = (full / temperature).softmax(dim=1).amax(dim=1)
    np.testing.assert_allclose(shares, wanted.numpy(), atol=1e-5)
