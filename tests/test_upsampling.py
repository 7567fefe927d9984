"""Strips of upsampled logits are those of torch's own upsampling in one piece."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pixelwise import array_upsampling, upsampling

sides = st.integers(1, 20)


@given(sides, sides, st.integers(1, 90), st.integers(1, 90), st.data())
def test_any_rows_are_those_of_the_whole(h, w, height, width, data):
    logits = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(h * 7 + w))
    whole = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    top = data.draw(st.integers(0, height - 1))
    bottom = data.draw(st.integers(top + 1, height))
    rows = upsampling.upsample_rows(logits, (height, width), top, bottom)
    assert rows.shape == whole[:, :, top:bottom].shape
    assert (rows - whole[:, :, top:bottom]).abs().max() <= 2e-5


@given(st.integers(2, 12), st.integers(2, 8), st.data())
def test_a_part_of_the_coarse_rows_is_enough(h, stride, data):
    logits = torch.randn(1, 2, h, 5)
    first = data.draw(st.integers(0, h - 2))
    whole = upsampling.upsample_rows(logits, (h * stride, 20), 0, h * stride)
    top, bottom = first * stride + stride, (h - 1) * stride
    if top < bottom:
        part = upsampling.upsample_rows(logits[:, :, first:], (h * stride, 20), top, bottom, first=first, coarse=h)
        assert torch.equal(part, whole[:, :, top:bottom])


@given(sides, sides, st.integers(1, 70), st.integers(1, 70), st.integers(1, 5000))
def test_labels_and_confidence_by_strips_are_those_of_the_whole(h, w, height, width, elements):
    logits = torch.randn(2, 4, h, w) * 3
    kept, array_upsampling.STRIP_ELEMENTS = array_upsampling.STRIP_ELEMENTS, elements
    try:
        labels, confidence = upsampling.argmax_upsampled(logits, (height, width), confidence=True)
    finally:
        array_upsampling.STRIP_ELEMENTS = kept
    whole = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    best = whole.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-4
    assert (labels[clear] == whole.argmax(1)[clear]).all()
    assert torch.allclose(confidence, whole.softmax(1).amax(1), atol=1e-4)


def test_ties_go_to_the_lower_class():
    assert upsampling.argmax_upsampled(torch.zeros(1, 5, 4, 4), (16, 16))[0].max() == 0


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (4, 4)])
def test_a_class_that_is_forbidden_by_an_infinite_logit_is_never_chosen(size):
    logits = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    without = upsampling.argmax_upsampled(logits[:, [0, 1, 3, 4]], size)[0].long()
    logits[:, 2] = -torch.inf
    assert torch.equal(upsampling.argmax_upsampled(logits, size)[0].long(), torch.tensor([0, 1, 3, 4])[without])


def test_logits_of_full_size_are_decided_as_they_are(monkeypatch):
    monkeypatch.setattr(array_upsampling, "STRIP_ELEMENTS", 100)
    logits = torch.randn(2, 7, 9, 11, generator=torch.Generator().manual_seed(0))
    labels, confidence = upsampling.argmax_upsampled(logits, (9, 11), confidence=True)
    assert torch.equal(labels, logits.argmax(1).to(torch.uint8))
    torch.testing.assert_close(confidence, logits.softmax(1).amax(1))
