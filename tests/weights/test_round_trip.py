"""Every layout: its names in, our file out, our file in again."""

import golden
import pytest
import torch
from unfilled import unfilled

import pixelwise as pw

NETWORKS = {
    "segformer_b0": ("segformer-b0", {}),
    "segformer_b2": ("segformer-b2", {}),
    "segnext_t": ("segnext-t", {}),
    "hrnetv2_": ("hrnet-w18", {}),
    "hrnetv1_w32": ("hrnetv1-w32", {}),
    "hrnetv2p_w18": ("hrnetv2p-w18", {}),
    "hrnetocr_w18": ("hrnet-w18-ocr", {}),
    "hmsa_": ("hmsa", {}),
    "pspnet_": ("pspnet", {}),
    "deeplabv3_cascade": ("deeplabv3-cascade", {}),
    "deeplabv3plus": ("deeplabv3plus", {}),
    "deeplabv3_": ("deeplabv3", {}),
    "linknet": ("linknet", {}),
    "unet3p": ("unet3p", {}),
    "unetpp": ("unetpp", {}),
    "unet_": ("unet", {}),
    "fchardnet": ("fchardnet-70", {}),
    "setr_naive": ("setr-naive", {"encoder": "vit-tiny"}),
    "setr_pup": ("setr-pup", {"encoder": "vit-tiny"}),
    "setr_mla": ("setr-mla", {"encoder": "vit-tiny"}),
    "segmenter_tiny_linear": ("segmenter-linear", {"encoder": "vit-tiny"}),
    "segmenter_": ("segmenter-mask", {"encoder": "vit-tiny"}),
    "depict_sa": ("depict-sa", {"encoder": "vit-tiny"}),
    "depict_ca": ("depict-ca", {"encoder": "vit-tiny"}),
}
"""Beginning of a recording's name -> the network that it is of."""
RECORDINGS = sorted(path.stem for path in golden.HERE.glob("*.npz") if not path.stem.endswith("_eps"))


def fresh(recording, classes):
    beginning = next(known for known in NETWORKS if recording.startswith(known))
    name, options = NETWORKS[beginning]
    return pw.create(name, classes=classes, **options).eval()


def class_count(state):
    """Return the classes of the recorded network, by the sizes that references were recorded with."""
    lengths = {len(value) for value in state.values() if value.ndim}
    return next((n for n in (19, 21, 150, 17, 5, 1) if n in lengths), 3)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_official_names_survive_our_own_file(recording, tmp_path):
    spec = golden.load(recording)
    state = {key: torch.from_numpy(value) for key, value in golden.weights(spec, spec["rules"][0]).items()}
    classes = class_count(state)
    with unfilled():
        first = fresh(recording, classes)
    again = fresh(recording, classes)
    # HRNetV2p's reference is a pyramid without a classifier.
    bare = "v2p" in recording
    report = pw.load_weights(first, state, partial=bare)
    assert (bool(report.missing), report.unexpected) == (bare, ())
    pw.save_weights(first, tmp_path / "ours.safetensors")
    report = pw.load_weights(again, tmp_path / "ours.safetensors")
    assert (report.layout, report.missing, report.unexpected) == ("pixelwise", (), ())
    assert again.architecture.options == first.architecture.options
    ours, theirs = again.state_dict(), first.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    image = torch.from_numpy(golden.inputs(spec, "sq"))[:1, :, :64, :64]
    with torch.no_grad():
        assert torch.equal(again(image), first(image))


REARRANGED = ("segformer", "segnext", "hmsa")
"""Computed otherwise than recorded (see their pages), or for other scales."""
COUNTED = [name for name in RECORDINGS if not name.startswith(REARRANGED) and "flops_2mac" in golden.load(name)]


@pytest.mark.parametrize("recording", COUNTED)
def test_the_network_that_a_layout_asks_for_costs_what_was_recorded(recording):
    spec = golden.load(recording)
    state = {key: torch.zeros(shape) for key, shape, _ in spec["state_dict"]}
    classes = class_count(state)
    with unfilled():
        model = fresh(recording, classes)
    bare = "v2p" in recording
    pw.load_weights(model, state, partial=bare)
    # mmsegmentation's auxiliary heads are modules of their own, and PSPNet's works in training alone.
    model.decoder.with_aux = "mmseg" not in recording and "pspnet" not in recording
    for side, recorded in spec["flops_2mac"].items():
        classifier = 2 * 256 * classes * (int(side) // 4) ** 2 if bare else 0
        assert pw.cost(model.to("meta"), size=(int(side), int(side))).flops == recorded + classifier
