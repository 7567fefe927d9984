"""U-Net, UNet++ and UNet 3+, against the recorded outputs of their reference implementations."""

import golden
import pytest
import torch
from meeting import on_the_way, worst_errors
from unfilled import unfilled

import pixelwise as pw
from pixelwise.models.prune import prune
from pixelwise.upsampling import upsample

NETWORKS = {
    "unet_milesial_bilinear": ("unet", 19),
    "unet_vggblock": ("unet", 19),
    "unet_vggblock_eps": ("unet", 19),
    "unet_keras2018": ("unet", 5),
    "unetpp_nested_ds": ("unetpp", 19),
    "unetpp_nested_ds_eps": ("unetpp", 19),
    "unetpp_keras2018": ("unetpp", 5),
    "unet3p_deepsup": ("unet3p", 1),
    "unet3p_deepsup_cgm": ("unet3p", 1),
}


def outputs(model, image, run):
    levels = []
    if model.architecture.name == "unet3p":
        model.decoder.levels = lambda maps: levels.append(type(model.decoder).levels(model.decoder, maps)) or levels[0]
    _, decoded, _ = on_the_way(model, image)
    found = {"logits": decoded.logits}
    heads = {1: decoded.logits}
    heads |= {int(name[-1]): aux for name, aux in decoded.aux.items() if name.startswith("level")}
    if model.architecture.name == "unet":
        found["output_1"] = decoded.logits.sigmoid()
    elif model.architecture.name == "unetpp":
        heads[4] = decoded.logits
        heads[1] = decoded.aux.get("level 1", decoded.logits)
        for i, head in heads.items():
            found |= {f"L{i}": head, f"output_{i}": head.sigmoid()}
    else:
        del model.decoder.levels
        for i, head in heads.items():
            raw = model.decoder.heads[i - 1](levels[0][i - 1])
            found[f"d{i}"] = upsample(head, image.shape[-2:]).sigmoid()
            found[f"raw_outconv{i}"] = raw
            found[f"raw_upscore{i}"] = upsample(raw, image.shape[-2:])
        if "classification" in decoded.aux:
            found["raw_cls"] = decoded.aux["classification"][..., None, None].sigmoid()
    return found


def mended(state, run):
    if run == "eval_clsbias_m10_p10":  # the run that opens the gate
        state["cls.1.bias"] = torch.tensor([-10.0, 10.0])
    return state


@pytest.mark.parametrize("name", NETWORKS)
def test_every_recorded_output_of_the_references_is_met(name, record_property):
    network, classes = NETWORKS[name]
    errors = worst_errors(name, lambda: pw.create(network, classes=classes), outputs, mended=mended)
    record_property(f"{name} plain", max(errors.values()))
    assert max(errors.values()) <= 5e-6


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("_eps")])
def test_the_fused_network_meets_the_plain_one_with_the_recorded_parameters(name, record_property):
    network, classes = NETWORKS[name]
    spec = golden.load(name)
    with unfilled():
        model = pw.create(network, classes=classes).eval()
    pw.load_weights(model, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()})
    assert sum(p.numel() for p in model.parameters()) == spec["params"]
    image = torch.from_numpy(golden.inputs(spec, "sq"))
    with torch.no_grad():
        plain, fused = model.decode(image).logits, pw.fuse(model).decode(image)
    assert fused.aux == {}
    error = (plain - fused.logits).abs().max() / plain.abs().max().clamp(min=1e-12)
    record_property(f"{name} fused", float(error))
    assert error <= 5e-6


@pytest.mark.parametrize("release", ["nested", "keras2018"])
def test_a_pruned_network_is_its_head_of_the_whole_to_the_bit_and_costs_less(release):
    torch.manual_seed(0)
    model = pw.create("unetpp", classes=3, release=release).eval()
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        decoded = model.decode(image)
        heads = {**decoded.aux, "level 4": decoded.logits}
        flops = []
        for level in range(1, 5):
            smaller = prune(model, level)
            assert torch.equal(smaller.decode(image).logits, heads[f"level {level}"])
            flops.append(pw.cost(smaller, size=(64, 64)).flops)
    assert flops == sorted(flops)
    assert flops[0] < 0.4 * flops[3]


def test_only_a_unetpp_with_heads_can_be_pruned():
    with pytest.raises(pw.ConfigError, match=r"UNet\+\+"):
        prune(pw.create("unet", classes=3), 1)
    with pytest.raises(pw.ConfigError, match="nothing to prune"):
        prune(pw.create("unetpp", classes=3, deep_supervision=False), 1)


@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_upsampling_and_batch_norm_are_choices(upsampling, batch_norm):
    model = pw.create("unet", classes=3, upsampling=upsampling, batch_norm=batch_norm)
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    transposed = sum(isinstance(module, torch.nn.ConvTranspose2d) for module in model.modules())
    assert (norms > 0) == batch_norm
    assert transposed == (4 if upsampling == "transposed" else 0)
    assert model.eval()(torch.randn(1, 3, 77, 53)).shape == (1, 3, 77, 53)


def test_a_guided_network_shuts_images_of_background_alone():
    model = pw.create("unet3p", classes=3, guided=True, filters=[4, 8, 8, 8, 8], decoder_channels=4).eval()
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        model.decoder.guide[1].bias.copy_(torch.tensor([100.0, -100.0]))
        assert (model.label_map(image) == 0).all()
        model.decoder.guide[1].bias.copy_(torch.tensor([-100.0, 100.0]))
        assert model(image).abs().max() > 0
