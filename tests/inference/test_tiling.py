from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import card_of, small_network

from pixelwise.geo.raster import Window
from pixelwise.inference.images import ArrayReader
from pixelwise.inference.options import TileOptions
from pixelwise.inference.tiling import predict_strips


def scene(seed: int, bands: int, height: int, width: int) -> ArrayReader:
    """Noise, with a rectangle that holds no data."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (bands, height, width), np.uint8)
    valid = np.ones((height, width), bool)
    valid[: height // 3, width // 2 :] = False
    return ArrayReader(values, valid)


def whole(strips):
    """Join strips, after seeing that they come from top to bottom without gaps."""
    strips = list(strips)
    assert [strip.top for strip in strips] == [0, *np.cumsum([len(strip.labels) for strip in strips])[:-1]]
    labels, valid = (np.concatenate(part) for part in zip(*((s.labels, s.valid) for s in strips), strict=True))
    confidence = [strip.confidence for strip in strips if strip.confidence is not None]
    return labels, np.concatenate(confidence) if confidence else None, valid


def blended_in_one_piece(network, reader, card, *, tile, overlap):
    """Labels, confidence and the lead of the best class: everything in memory at once, in float64."""
    height, width = reader.info.height, reader.info.width
    padded = [-(-side // 32) * 32 for side in (height, width)]
    stride = network.encoder.strides[0]
    mean, std = np.array(card.mean)[:, None, None], np.array(card.std)[:, None, None]
    image = np.where(reader.valid, (reader.values - mean) / std, 0)
    # Beyond its edge the scene is mirrored, as often as it takes.
    there = [np.arange(full) % (2 * side) for full, side in zip(padded, (height, width), strict=True)]
    rows, columns = (np.minimum(i, 2 * side - 1 - i) for i, side in zip(there, (height, width), strict=True))
    image = image[:, rows][:, :, columns]
    sides = [min(tile, side) for side in padded]
    starts = []
    for side, full in zip(sides, padded, strict=True):
        along = [0]
        while along[-1] + side < full:
            along.append(min(along[-1] + tile - overlap, full - side))
        starts.append(along)
    total = np.zeros((len(card.classes), padded[0] // stride, padded[1] // stride))
    weights = np.zeros(total.shape[1:])
    slope = max(1, overlap // stride)
    down, across = (
        np.array([min(1, (min(i, side // stride - 1 - i) + 0.5) / slope) for i in range(side // stride)])
        for side in sides
    )
    for top in starts[0]:
        for left in starts[1]:
            if not reader.valid[top : top + sides[0], left : left + sides[1]].any():
                continue
            part = torch.from_numpy(image[None, :, top : top + sides[0], left : left + sides[1]])
            logits = network.double().decode(part).logits[0].numpy()
            area = np.s_[top // stride : (top + sides[0]) // stride, left // stride : (left + sides[1]) // stride]
            total[:, *area] += logits * np.outer(down, across)
            weights[area] += np.outer(down, across)
    blended = torch.from_numpy(total / np.where(weights > 0, weights, 1))[None]
    full = F.interpolate(blended, size=padded, mode="bilinear", align_corners=False)[0, :, :height, :width]
    best = full.topk(2, dim=0).values
    return full.argmax(0).numpy(), full.softmax(0).amax(0).numpy(), (best[0] - best[1]).numpy()


def test_a_class_that_is_forbidden_by_an_infinite_logit_is_never_chosen():
    network = small_network(classes=4)
    reader = scene(0, 3, 150, 170)
    options = TileOptions(64, 32)
    network.encoder.convolution.bias[2] = -1e4
    expected = whole(predict_strips(network, reader, card_of(network), options, confidence=True))
    network.encoder.convolution.bias[2] = -torch.inf
    found = whole(predict_strips(network, reader, card_of(network), options, confidence=True))
    assert len(np.unique(found[0])) == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(1, 210),
    st.integers(1, 210),
    st.sampled_from([(64, 0), (64, 32), (96, 32), (128, 64)]),
    st.sampled_from([1, 2, 4, 8, 16, 32]),
    st.integers(2, 5),
    st.sampled_from([1, 2000, 1 << 20]),
)
def test_a_map_is_that_of_all_tiles_blended_in_memory_and_upsampled_in_one_piece(
    seed, height, width, grid, stride, classes, strip
):
    tile, overlap = grid
    if max(height, width) <= tile:
        height += tile
    network = small_network(bands=2, classes=classes, stride=stride, seed=seed)
    card, reader = card_of(network), scene(seed, 2, height, width)
    with patch("pixelwise.array_upsampling.STRIP_ELEMENTS", strip):
        strips = predict_strips(network, reader, card, TileOptions(tile, overlap), confidence=True)
        labels, confidence, valid = whole(strips)
    expected, probability, lead = blended_in_one_piece(network, reader, card, tile=tile, overlap=overlap)
    clear = valid & (lead > 1e-5)
    assert labels.shape == (height, width)
    np.testing.assert_array_equal(valid, reader.valid)
    np.testing.assert_array_equal(labels[clear], expected[clear])
    np.testing.assert_allclose(confidence[valid], probability[valid], atol=1e-4)
    assert clear[valid].mean() > 0.99


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 96), st.integers(1, 96), st.sampled_from([2, 4, 8]))
def test_a_raster_within_one_tile_gets_the_labels_of_the_network_on_the_whole_of_it(seed, height, width, stride):
    network = small_network(stride=stride, seed=seed)
    card, reader = card_of(network), scene(seed, 3, height, width)
    labels, _, _ = whole(predict_strips(network, reader, card, TileOptions(96, 32)))
    image = (reader.values - np.array(card.mean)[:, None, None]) / np.array(card.std)[:, None, None]
    image = np.where(reader.valid, image, 0).astype(np.float32)
    image = np.pad(image, ((0, 0), (0, max(0, 32 - height)), (0, max(0, 32 - width))), mode="symmetric")
    decoded = network.decode(torch.from_numpy(image)[None]).logits
    logits = F.interpolate(decoded, size=image.shape[1:], mode="bilinear", align_corners=False)[0, :, :height, :width]
    best = logits.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4).numpy()
    np.testing.assert_array_equal(labels[clear], logits.argmax(0).numpy()[clear])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 5), st.sampled_from([(64, 0), (64, 32), (128, 64)]))
def test_tiles_leave_no_trace_where_the_network_sees_single_cells_only(seed, rows, columns, grid):
    network = small_network(stride=4, reach=0, seed=seed)
    card, reader = card_of(network), scene(seed, 3, 32 * rows, 32 * columns)
    reader.valid[:] = True
    labels, confidence, _ = whole(predict_strips(network, reader, card, TileOptions(*grid), confidence=True))
    same, one_piece, _ = whole(predict_strips(network, reader, card, TileOptions(192, 32), confidence=True))
    assert np.abs(confidence - one_piece).max() < 1e-5
    # A lead is at most the gap between two probabilities; where three classes are near a draw, any may win.
    assert (labels == same)[one_piece > 0.5 + 1e-4].all()
    assert (labels == same).mean() > 0.999


def test_more_than_256_classes_give_uint16_labels_in_one_piece_and_in_tiles():
    network = small_network(classes=300, stride=16)
    for side in (64, 100):
        labels, _, _ = whole(predict_strips(network, scene(0, 3, side, side), card_of(network), TileOptions(64, 32)))
        assert labels.dtype == np.uint16
        assert labels.max() > 255
    network = small_network(classes=256, stride=16)
    labels, _, _ = whole(predict_strips(network, scene(0, 3, 100, 100), card_of(network), TileOptions(64, 32)))
    assert labels.dtype == np.uint8


def test_tiles_without_data_are_read_and_not_predicted():
    network = small_network()
    reader = scene(0, 3, 64 * 4, 64 * 4)
    reader.valid[:] = False
    reader.valid[70, 200] = True
    labels, _, valid = whole(predict_strips(network, reader, card_of(network), TileOptions(64, 0)))
    assert network.encoder.seen.count((1, 3, 64, 64)) == 2, "the probe of the stride, and one tile"
    assert labels.shape == (256, 256)
    assert valid.sum() == 1
    assert valid[70, 200]


def test_every_pixel_is_read_once_where_tiles_do_not_overlap():
    class Counting(ArrayReader):
        def read(self, window: Window):
            counts[window.top : window.top + window.height, window.left : window.left + window.width] += 1
            return super().read(window)

    source = scene(0, 3, 150, 200)
    counts = np.zeros((150, 200), int)
    network = small_network()
    whole(predict_strips(network, Counting(source.values, source.valid), card_of(network), TileOptions(64, 0)))
    # The last column and row of tiles are moved back inside, by 56 and 32 pixels.
    assert counts[:96, :160].max() == counts.min() == 1
    assert counts.max() <= 4


def test_confidence_is_given_only_when_asked_for():
    network, reader = small_network(), scene(0, 3, 100, 100)
    for tile in (64, 128):
        for confidence in (False, True):
            strips = predict_strips(network, reader, card_of(network), TileOptions(tile, 32), confidence=confidence)
            assert all((strip.confidence is not None) == confidence for strip in strips)


@pytest.mark.parametrize("side", [40, 200])
def test_the_share_that_is_done_rises_to_1(side):
    shares: list[float] = []
    network = small_network()
    whole(
        predict_strips(network, scene(0, 3, side, side), card_of(network), TileOptions(64, 32), advance=shares.append)
    )
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert len(shares) == (1 if side == 40 else 36)


@given(st.integers(0, 99), st.integers(40, 100), st.integers(40, 100))
@settings(max_examples=15, deadline=None)
def test_a_mirrored_image_gets_the_mirrored_map_when_flips_are_averaged(seed, height, width):
    width = width // 4 * 4
    network = small_network(seed=seed)
    card, reader = card_of(network), scene(seed, 3, height, width)
    mirrored = ArrayReader(reader.values[:, :, ::-1].copy(), reader.valid[:, ::-1].copy())
    one = whole(predict_strips(network, reader, card, TileOptions(128, 32, flips=True), confidence=True))
    other = whole(predict_strips(network, mirrored, card, TileOptions(128, 32, flips=True), confidence=True))
    np.testing.assert_allclose(one[1], other[1][:, ::-1], atol=1e-5)
    assert (one[0] == other[0][:, ::-1])[one[1] > 1 / 3 + 1e-3].mean() > 0.999
    plain = whole(predict_strips(network, reader, card, TileOptions(128, 32), confidence=True))
    assert np.abs(plain[1] - one[1]).max() > 1e-3


def test_scales_in_any_order_give_the_same_map():
    network, reader = small_network(), scene(0, 3, 100, 130)
    for tile in (64, 160):
        maps = [
            whole(predict_strips(network, reader, card_of(network), TileOptions(tile, 32, scales=s), confidence=True))
            for s in [(0.5, 1.0, 1.5), (1.5, 0.5, 1.0)]
        ]
        np.testing.assert_allclose(maps[0][1], maps[1][1], atol=1e-5)


def test_the_same_map_comes_twice():
    network, reader = small_network(), scene(3, 3, 150, 170)
    first, second = (
        whole(predict_strips(network, reader, card_of(network), TileOptions(64, 32), confidence=True)) for _ in range(2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
