"""DeepLabV3, V3+, PSPNet and LinkNet on ResNet, against the recorded outputs of the reference implementations."""

import golden
import pytest
import torch
from meeting import on_the_way, worst_errors
from unfilled import unfilled

import pixelwise as pw
from pixelwise.upsampling import upsample

NETWORKS = {
    "deeplabv3_r50d8_mmseg122": ("deeplabv3", 19),
    "deeplabv3_resnet50_os16_vainf": ("deeplabv3", 21),
    "deeplabv3_resnet50_os8_torchvision": ("deeplabv3", 21),
    "deeplabv3plus_resnet50_os16_vainf": ("deeplabv3plus", 21),
    "deeplabv3_cascade_resnet50_os16_paper": ("deeplabv3-cascade", 21),
    "pspnet_resnet50": ("pspnet", 19),
    "pspnet_resnet50_eps": ("pspnet", 19),
    "pspnet_r50d8_mmseg122": ("pspnet", 19),
    "linknet_resnet18": ("linknet", 19),
    "linknet_resnet18_eps": ("linknet", 19),
}


def outputs(model, image, run):
    maps, decoded, full = on_the_way(model, image)
    found = {"logits": full, "out": full, "log_softmax": full.log_softmax(dim=1)}
    found |= dict.fromkeys(("logits_head", "logits_s8", "logits_low"), decoded.logits)
    found |= {f"feat{i}": one for i, one in enumerate(maps[1:])}
    for aux in decoded.aux.values():
        found |= {"aux0": aux, "aux_s8": aux, "aux": upsample(aux, image.shape[-2:])}
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_recorded_output_of_the_references_is_met(name, record_property):
    network, classes = NETWORKS[name]
    errors = worst_errors(name, lambda: pw.create(network, classes=classes), outputs)
    record_property(f"{name} plain", max(errors.values()))
    assert max(errors.values()) <= 5e-6


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("_eps")])
def test_the_fused_network_meets_the_recorded_logits_with_the_recorded_parameters(name, record_property):
    network, classes = NETWORKS[name]
    spec = golden.load(name)
    with unfilled():
        model = pw.create(network, classes=classes).eval()
    pw.load_weights(model, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()})
    assert sum(p.numel() for p in model.parameters()) == spec["params"]
    with torch.no_grad():
        found = outputs(pw.fuse(model), torch.from_numpy(golden.inputs(spec, "ns")), "eval")
    logits = next(key for key in spec["outputs"] if key.startswith("w1/eval/ns/logits") or key == "w1/eval/ns/out")
    error = golden.compare(spec, logits, found[logits.rpartition("/")[2]].numpy())
    record_property(f"{name} fused", float(error))
    assert error <= 5e-6
