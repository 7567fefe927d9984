"""The plain transformer: its maps, its position embeddings, and what cannot be built."""

import pytest
import torch

import pixelwise as pw
from pixelwise.models.vit import Options, heads_for, tapped_blocks, vit


def test_maps_are_taken_where_setr_takes_them():
    assert tapped_blocks(24, "late") == (9, 14, 19, 23)
    assert tapped_blocks(12, "late") == (3, 6, 9, 11)
    assert tapped_blocks(24, "even") == (5, 11, 17, 23)
    assert tapped_blocks(12, "even") == (2, 5, 8, 11)


@pytest.mark.parametrize(
    ("variant", "millions"), [("tiny", 5.526), ("small", 21.67), ("base", 85.80), ("large", 303.3)]
)
def test_variants_have_the_parameters_of_the_papers(variant, millions):
    # Without the classifier; position embeddings of 224x224 pixels.
    with torch.device("meta"):
        encoder = vit(variant, 3, Options(image_size=224))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=1e-3)


def test_there_are_four_maps_of_one_stride_and_the_last_is_normed():
    encoder = vit("tiny", 4, Options(image_size=64)).eval()
    with torch.no_grad():
        maps = encoder(torch.randn(2, 4, 64, 96))
    assert [tuple(one.shape) for one in maps] == [(2, 192, 4, 6)] * 4
    spread = [one.var(dim=1, unbiased=False) for one in maps]
    assert torch.allclose(spread[3], torch.ones_like(spread[3]), atol=0.01)
    assert not torch.allclose(spread[2], torch.ones_like(spread[2]), atol=0.01)


@pytest.mark.parametrize("position_resize", ["bilinear", "bicubic"])
def test_position_embeddings_are_resized_without_the_class_tokens(position_resize):
    encoder = vit("tiny", 3, Options(image_size=64, distilled=True, position_resize=position_resize))
    assert encoder.positions_for(4, 4) is encoder.positions
    resized = encoder.positions_for(4, 8)
    assert resized.shape == (1, 2 + 32, 192)
    assert torch.equal(resized[:, :2], encoder.positions[:, :2])
    rows = resized[:, 2:].unflatten(1, (4, 8)).mean(dim=2)
    assert torch.allclose(rows, encoder.positions[:, 2:].unflatten(1, (4, 4)).mean(dim=2), atol=0.02)


def test_a_dropped_class_token_changes_no_answer_and_a_kept_one_does():
    image = torch.randn(1, 3, 64, 64)
    for kept, changes in (("kept", True), ("dropped", False)):
        encoder = vit("tiny", 3, Options(image_size=64, class_token=kept)).eval()
        with torch.no_grad():
            before = encoder(image)[-1]
            encoder.class_token.add_(5 * torch.randn(1, 1, 192))
            assert torch.equal(before, encoder(image)[-1]) != changes


def test_heads_share_the_channels_evenly():
    assert [heads_for(channels) for channels in (192, 384, 1024, 512, 32, 270)] == [3, 6, 16, 8, 1, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 100}, "multiple of the patch size, 16"),
        ({"drop_path": 1.0}, "below 1"),
        ({"epsilon": 0}, "above 0"),
        ({"taps": "early"}, "late, even"),
        ({"class_token": "none"}, "kept, dropped"),
        ({"position_resize": "nearest"}, "bicubic"),
        ({"depth": 3}, "from 6 on"),
        ({"heads": 5}, "divisor"),
    ],
)
def test_what_cannot_be_built_says_what_can(options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create("segmenter-linear", classes=3, encoder="vit-tiny", **options)
