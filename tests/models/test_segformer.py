"""SegFormer against the recorded outputs of its reference implementations, and against transformers."""

from pathlib import Path

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from meeting import on_the_way, worst_errors
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import pixelwise as pw

GOLDENS = Path(__file__).parent.parent / "goldens"

NAMES = sorted(path.stem for path in GOLDENS.glob("segformer_*.npz"))
TOLERANCE = 5e-6


def outputs(model, image, run):
    features, decoded, full = on_the_way(model, image)
    out = {"logits_s4": decoded.logits, "logits_head": decoded.logits, "encode_decode": full}
    for i, feature in enumerate(features):
        out |= {f"c{i + 1}": feature, f"hidden{i}": feature, f"feat{i}": feature}
    return out


@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_output_of_the_references_is_met(name, form, record_property):
    network = f"segformer-{golden.load(name)['variant'][:2]}"
    worst = worst_errors(name, lambda: pw.create(network, classes=150), outputs, fused=form == "fused")
    record_property(f"{name} {form}", max(worst.values()))
    assert max(worst.values()) <= TOLERANCE


@pytest.mark.parametrize("variant", ["b0", "b1", "b2", "b3", "b4", "b5"])
def test_variants_have_the_parameters_of_transformers(variant):
    shape = {
        "b0": ([32, 64, 160, 256], [2, 2, 2, 2], 256),
        "b1": ([64, 128, 320, 512], [2, 2, 2, 2], 256),
        "b2": ([64, 128, 320, 512], [3, 4, 6, 3], 768),
        "b3": ([64, 128, 320, 512], [3, 4, 18, 3], 768),
        "b4": ([64, 128, 320, 512], [3, 8, 27, 3], 768),
        "b5": ([64, 128, 320, 512], [3, 6, 40, 3], 768),
    }[variant]
    widths, depths, decoder = shape
    with torch.device("meta"):
        config = SegformerConfig(hidden_sizes=widths, depths=depths, decoder_hidden_size=decoder, num_labels=150)
        config.num_attention_heads, config.sr_ratios = [1, 2, 5, 8], [8, 4, 2, 1]
        expected = sum(p.numel() for p in SegformerForSemanticSegmentation(config).parameters())
        model = pw.create(f"segformer-{variant}", classes=150)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_parameter_counts_are_those_recorded_less_the_unused_classifier():
    for name, unused in (("segformer_b0_nvlabs", 128 * 150 + 150), ("segformer_b2_nvlabs", 128 * 150 + 150)):
        spec = golden.load(name, GOLDENS)
        with torch.device("meta"):
            model = pw.create(f"segformer-{spec['variant'][:2]}", classes=150)
        assert sum(p.numel() for p in model.parameters()) == spec["params"] - unused
    spec = golden.load("segformer_b0_mmseg122", GOLDENS)
    model = pw.create("segformer-b0", classes=150, release="mmsegmentation")
    assert sum(p.numel() for p in model.parameters()) == spec["params"]


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 50)])
def test_any_bands_and_sizes_give_full_size_logits_and_labels(bands, size):
    model = pw.create("segformer-b0", classes=5, bands=bands).eval()
    image = torch.randn(2, bands, *size)
    with torch.no_grad():
        logits = model(image)
        labels = model.label_map(image)
    assert logits.shape == (2, 5, *size)
    assert labels.dtype == torch.uint8
    assert (labels == logits.argmax(1)).float().mean() > 0.9999


def test_labels_of_many_classes_are_sixteen_bits():
    assert pw.create("segformer-b0", classes=257).eval().label_map(torch.randn(1, 3, 32, 32)).dtype == torch.uint16


def test_a_batch_gives_the_answers_of_its_single_images():
    model = pw.create("segformer-b0", classes=5).eval()
    images = torch.randn(3, 3, 65, 70)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()


@pytest.mark.parametrize("size", [(31, 64), (64, 16)])
def test_images_below_the_smallest_size_are_refused_with_the_size_that_is_needed(size):
    with pytest.raises(pw.DataError, match="32x32"):
        pw.create("segformer-b0", classes=5)(torch.randn(1, 3, *size))


def test_another_number_of_bands_is_refused():
    with pytest.raises(pw.DataError, match=r"4 bands.*built for 3"):
        pw.create("segformer-b0", classes=5)(torch.randn(1, 4, 64, 64))


def test_the_decoder_has_the_gradients_of_the_papers_formula():
    torch.manual_seed(0)
    decoder = pw.create("segformer-b0", classes=5).decoder.double()
    decoder.dropout.p = 0.0
    features = [
        torch.randn(2, c, 24 // 2**i, 20 // 2**i, dtype=torch.float64) for i, c in enumerate((32, 64, 160, 256))
    ]

    def literal():
        projected = []
        for feature, linear in zip(features, decoder.projections, strict=True):
            part = linear(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            projected.append(F.interpolate(part, size=(24, 20), mode="bilinear", align_corners=False))
        return decoder.classifier(F.relu(decoder.norm(decoder.fuse(torch.cat(projected[::-1], dim=1)))))

    gradients = []
    for form in (lambda: decoder(features).logits, literal):
        decoder.zero_grad()
        (form() ** 3).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in decoder.named_parameters()})
    for name, expected in gradients[1].items():
        assert (gradients[0][name] - expected).abs().max() <= 1e-10 * max(1.0, expected.abs().max()), name


def test_a_branch_is_dropped_for_whole_images_and_kept_in_evaluation():
    torch.manual_seed(0)
    model = pw.create("segformer-b0", classes=5, drop_path=0.5)
    block = model.encoder.stages[3][-1]
    assert block.drop_path.chance == 0.5
    ones = torch.ones(400, 1, 1, 256)
    dropped = block.train().drop_path(10 * ones, ones)
    per_image = dropped.flatten(1)
    assert set(per_image.unique().tolist()) == {10.0, 12.0}
    assert (per_image == per_image[:, :1]).all()
    assert 0.4 < (per_image[:, 0] == 10).float().mean() < 0.6
    assert torch.equal(block.eval().drop_path(10 * ones, ones), 11 * ones)


def test_drop_path_grows_linearly_from_nought():
    model = pw.create("segformer-b1", classes=5, drop_path=0.1)
    chances = [block.drop_path.chance for stage in model.encoder.stages for block in stage]
    assert np.allclose(chances, np.linspace(0, 0.1, 8))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("segformer-b9", {}, "Did you mean"),
        ("segformer-b0", {"drop_pth": 0.1}, "drop_path"),
        ("segformer-b0", {"drop_path": 1.5}, "below 1"),
        ("segformer-b0", {"release": "mmseg"}, "mmsegmentation"),
    ],
)
def test_what_cannot_be_built_says_what_can(name, options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create(name, classes=5, **options)


def test_a_fused_network_takes_no_gradient_and_leaves_the_first_one_alone():
    model = pw.create("segformer-b0", classes=5).train()
    fused = pw.fuse(model)
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert model.training
    assert not fused.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_cost_counts_parameters_and_less_work_when_fused():
    model = pw.create("segformer-b0", classes=150)
    plain, fused = pw.cost(model, size=(128, 128)), pw.cost(pw.fuse(model), size=(128, 128))
    assert plain.parameters == 3_752_694
    assert 0 < fused.flops < plain.flops
    # The logits alone are this large.
    assert plain.activation_bytes > 150 * 32 * 32 * 4
    assert plain.traffic_bytes > plain.activation_bytes + plain.parameters * 4
    assert model.training
