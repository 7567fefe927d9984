"""Names of DINOv2 and EoMT: in Meta's, timm's and the authors' files, and in those of transformers."""

import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    EomtConfig,
    EomtForUniversalSegmentation,
)

import pixelwise as pw
from pixelwise.weights import save_weights

SIZES = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 3}
BLOCKS = (
    (r"(\d+)\.norm(\d)", r"blocks.\1.norm\2"),
    (r"(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"(\d+)\.attention\.(?:o_proj|out_proj)", r"blocks.\1.attn.proj"),
    (r"(\d+)\.attention\.qkv", r"blocks.\1.attn.qkv"),
    (r"(\d+)\.mlp", r"blocks.\1.mlp"),
)
HEADS = (
    (r"query\.weight", "q.weight"),
    (r"class_predictor", "class_head"),
    (r"upscale_block\.block\.(\d)\.layernorm2d", r"upscale.\1.norm"),
    (r"upscale_block\.block\.(\d)", r"upscale.\1"),
    (r"mask_head\.fc1", "mask_head.0"),
    (r"mask_head\.fc2", "mask_head.2"),
    (r"mask_head\.fc3", "mask_head.4"),
)
"""transformers' names -> those of the release, as transformers' script of conversion has them."""


def random(network):
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def joined(state):
    """Join queries, keys and values, and the halves of gated layers, as all but transformers keep them."""
    state = dict(state)
    for name in [name for name in state if ".attention.q_proj." in name]:
        parts = [state.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        state[name.replace("q_proj", "qkv")] = torch.cat(parts)
    for name in [name for name in state if ".mlp.gate_proj." in name]:
        gate, up = state.pop(name), state.pop(name.replace("gate", "up"))
        state[name.replace("gate_proj", "fc1")] = torch.cat([gate, up])
        state[name.replace("gate_proj", "fc2")] = state.pop(name.replace("gate", "down"))
    return state


def renamed(state, rules):
    found = {}
    for name, value in state.items():
        rule = next(((a, b) for a, b in rules if re.match(a, name)), None)
        found[name if rule is None else re.sub(rule[0], rule[1], name, count=1)] = value
    return found


def timm_names(state, layers, registers="reg_token"):
    rules = [(layers + a, b) for a, b in BLOCKS]
    rules += [
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.register_tokens", registers),
        (r"embeddings\.position_embeddings(\.weight)?", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"embeddings\.mask_token", "mask_token"),
        (r"layernorm", "norm"),
    ]
    return renamed(joined(state), rules)


def release_names(state):
    """Return EoMT's state as its training module saves it."""
    rest = {name: value for name, value in state.items() if name.startswith("criterion.")}
    inner = timm_names({k: v for k, v in state.items() if k not in rest}, r"layers\.")
    found = {}
    for name, value in renamed(inner, HEADS).items():
        own = name.startswith(("q.", "class_head.", "upscale.", "mask_head.", "attn_mask_probs"))
        found[f"network.{'' if own else 'encoder.backbone.'}{name}"] = value
    found["network.encoder.backbone.pos_embed"] = found["network.encoder.backbone.pos_embed"][None]
    pixel = {"network.encoder.pixel_mean": torch.zeros(1, 3, 1, 1), "network.encoder.pixel_std": torch.ones(1, 3, 1, 1)}
    return {**found, **pixel, **rest}


def eomt(gated=False):
    config = EomtConfig(
        **SIZES, image_size=64, patch_size=16, num_blocks=2, num_queries=7, num_labels=5, use_swiglu_ffn=gated
    )
    return random(EomtForUniversalSegmentation(config))


@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_eomt_of_its_release_and_of_transformers_is_one_network_and_survives_our_file(tmp_path, gated):
    network = eomt(gated)
    network.attn_mask_probs.copy_(torch.tensor([0.0, 0.25]))
    state, image = network.state_dict(), torch.randn(1, 3, 64, 64)
    network.save_pretrained(tmp_path / "theirs")
    sources = {
        "EoMT, transformers": load_file(tmp_path / "theirs" / "model.safetensors"),
        "EoMT, the paper's release": release_names(state),
    }
    answers = []
    for layout, source in sources.items():
        model = pw.create("eomt-s", classes=5, heads=3).eval()
        report = pw.load_weights(model, {"state_dict": source})
        assert (report.layout, report.missing, report.unexpected) == (layout, (), ())
        assert all(re.search("criterion|pixel_", name) for name in report.unused)
        assert torch.equal(model.decoder.mask_chances, network.attn_mask_probs)
        about = model.architecture.options
        assert (about["queries"], about["query_blocks"], about["registers"], about["patch"]) == (7, 2, 4, 16)
        save_weights(model, tmp_path / "ours.safetensors")
        again = pw.create("eomt-s", classes=5, **{k: v for k, v in about.items() if k != "decoder"}).eval()
        assert pw.load_weights(again, tmp_path / "ours.safetensors").layout == "pixelwise"
        answers += [model(image), again(image)]
    assert all(torch.equal(answers[0], other) for other in answers[1:])


def test_eomt_of_other_classes_loads_all_but_the_classifier():
    model = pw.create("eomt-s", classes=3)
    with pytest.raises(pw.WeightsError, match="classes=5"):
        pw.load_weights(model, eomt().state_dict())
    report = pw.load_weights(model, eomt().state_dict(), partial=True)
    assert report.missing == ("decoder.classifier.weight", "decoder.classifier.bias")


def dinov2(registers, gated=False):
    sizes = {**SIZES, "image_size": 70, "patch_size": 14, "use_swiglu_ffn": gated}
    if registers:
        return random(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=4)))
    return random(Dinov2Model(Dinov2Config(**sizes)))


def meta_names(network):
    found = timm_names(network.state_dict(), r"encoder\.layer\.", "register_tokens")
    gated = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"} if network.config.use_swiglu_ffn else {}
    return renamed(found, [(rf"(.*)\.{theirs}", rf"\1.{meta}") for theirs, meta in gated.items()])


def timm_state(network):
    """Return DINOv2 as timm keeps it: with registers the class token's position is added to the token."""
    found = timm_names(network.state_dict(), r"encoder\.layer\.")
    del found["mask_token"]
    if "reg_token" in found:
        positions = found["pos_embed"]
        found |= {"cls_token": found["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    return found


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("registers", [False, True])
@torch.no_grad()
def test_dinov2_of_meta_timm_and_transformers_is_one_encoder(tmp_path, registers, gated):
    network = dinov2(registers, gated)
    network.save_pretrained(tmp_path)
    sources = {
        "DINOv2, transformers": (load_file(tmp_path / "model.safetensors"), "antialias" if registers else "bicubic"),
        "DINOv2, Meta's release": (meta_names(network), "antialias" if registers else "offset"),
        "ViT with layer scales (DINOv2), timm": (timm_state(network), "antialias"),
    }
    image = torch.randn(1, 3, 70, 70)
    expected = network(image).last_hidden_state
    for layout, (state, resize) in sources.items():
        for name in ("dinov2-small", "vit-small"):
            model = pw.create("segmenter-linear", classes=3, encoder=name, dim=48, depth=6, heads=3).eval()
            report = pw.load_weights(model, state)
            assert report.layout == f"{layout} (encoder only)"
            assert report.unexpected == ()
            assert set(report.unused) <= {"mask_token", "embeddings.mask_token"}
            assert all(key.startswith("decoder.") for key in report.missing)
            assert model.architecture.options["position_resize"] == resize
            assert torch.allclose(model.encoder.tokens(image)[-1], expected, atol=1e-5)


@torch.no_grad()
def test_eomt_starts_from_dinov2_and_keeps_its_own_patches_and_image_size():
    network = dinov2(registers=True)
    model = pw.create("eomt-s", classes=3, dim=48, depth=6, heads=3).eval()
    report = pw.load_weights(model, timm_state(network))
    assert all(name.startswith("decoder.") for name in report.missing)
    assert report.unexpected == ()
    options = model.architecture.options
    assert (options["patch"], options["image_size"], options["registers"]) == (16, 512, 4)
    assert model.encoder.positions.shape == (1, 1 + 32 * 32, 48)
    # Patches of 16 pixels see in an enlarged image what those of 14 see in the image.
    image = torch.randn(1, 3, 14, 14)
    enlarged = torch.nn.functional.interpolate(image, (16, 16), mode="bicubic", antialias=True)
    weight = network.embeddings.patch_embeddings.projection.weight
    expected = torch.nn.functional.conv2d(image, weight, stride=14)
    found = torch.nn.functional.conv2d(enlarged, model.encoder.patches.weight, stride=16)
    assert torch.allclose(found, expected, atol=1e-4)
