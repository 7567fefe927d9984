"""From other weights to one's own data: other classes, other bands."""

import pytest
import torch

import pixelwise as pw


def encoder_answers(model, image):
    with torch.no_grad():
        return model.eval().encoder(image)


VIT = {"encoder": "vit-tiny", "image_size": 64}
NETWORKS = {
    "segformer-b0": {},
    "pspnet": {"encoder": "resnet18"},
    "unet": {},
    "hrnet-w18": {},
    "segnext-t": {},
    "fchardnet-70": {},
    "segmenter-linear": VIT,
    "linknet": {"encoder": "efficientnet-lite0"},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bands", [4, 13])
def test_new_bands_change_nothing_at_first(name, bands):
    torch.manual_seed(0)
    old = pw.create(name, classes=3, **NETWORKS[name])
    new = pw.create(name, classes=3, bands=bands, **NETWORKS[name])
    report = pw.load_weights(new, old.state_dict(), partial=True)
    image = torch.randn(1, bands, 64, 64)
    assert report.widened.startswith("encoder.")
    assert not report.missing
    with torch.no_grad():
        expected = old.eval()(image[:, :3])
        assert (new.eval()(image) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_single_band_is_answered_as_its_three_copies_were():
    torch.manual_seed(0)
    old, new = pw.create("segformer-b0", classes=3), pw.create("segformer-b0", classes=3, bands=1)
    pw.load_weights(new, old.state_dict(), partial=True)
    grey = torch.randn(1, 1, 64, 64)
    for mine, theirs in zip(encoder_answers(new, grey), encoder_answers(old, grey.expand(-1, 3, -1, -1)), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_other_classes_start_the_classifier_fresh_and_keep_the_rest():
    old, new = pw.create("segformer-b0", classes=3), pw.create("segformer-b0", classes=7)
    report = pw.load_weights(new, old.state_dict(), partial=True)
    assert set(report.missing) == {"decoder.classifier.weight", "decoder.classifier.bias"}
    assert report.widened == ""


def test_other_bands_are_refused_unless_a_part_is_asked_for():
    old, new = pw.create("segformer-b0", classes=3), pw.create("segformer-b0", classes=3, bands=4)
    with pytest.raises(pw.WeightsError, match="partial=True"):
        pw.load_weights(new, old.state_dict())


VIT = {"encoder": "vit-tiny", "dim": 32, "depth": 6, "heads": 2, "image_size": 64}
COUNTED = {
    "linknet": {},
    "unet": {"filters": [4, 8]},
    "unetpp": {"filters": [4, 8, 8]},
    "unet3p": {"filters": [4, 8, 8], "level": 2, "decoder_channels": 4},
    "segmenter-mask": VIT,
    "eomt-s": {"dim": 32, "depth": 6, "heads": 2, "image_size": 64},
}


@pytest.mark.parametrize(("name", "options"), COUNTED.items(), ids=list(COUNTED))
def test_other_classes_and_bands_are_told_with_the_numbers_of_the_weights(name, options):
    weights = pw.create(name, classes=3, bands=2, **options).state_dict()
    for given, told in (((3, 4), "bands=2"), ((6, 2), "classes=3"), ((6, 4), "bands=2 and classes=3")):
        model = pw.create(name, classes=given[0], bands=given[1], **options)
        with pytest.raises(pw.WeightsError, match=f"Fix: create the model with {told}, or"):
            pw.load_weights(model, weights)
