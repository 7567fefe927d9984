"""Encoders that transformers builds, against what transformers' own classes answer."""

import copy
import json
import math
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_backbones import fill_cache, write_backbone
from transformers import AutoConfig, ViTConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

import pixelwise as pw
from pixelwise.labels import make_classes
from pixelwise.models import rebuilt
from pixelwise.models.library_encoder import chosen_maps, in_windows, joined_windows
from pixelwise.models.library_recipe import card_licence
from pixelwise.runs.model_folder import ModelCard, load_model, save_model
from pixelwise.training.checkpointing import recompute_blocks
from pixelwise.training.optimizer import layer_factors, parameter_groups
from pixelwise.weights import save_weights

FIT = {
    # channels and strides, as the configurations in small_backbones have them
    "dino": ((16,) * 4, (14,) * 4),
    "convnext": ((8, 12, 16, 20), (4, 8, 16, 32)),
    "swin": ((12, 24, 48, 96), (4, 8, 16, 32)),
    "hiera": ((8, 16, 32, 64), (4, 8, 16, 32)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("backbones")
    return {kind: write_backbone(kind, place / kind) for kind in FIT}


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def named(folder):
    return f"transformers:{folder}"


def model_of(folder, decoder="segmenter-linear", **options):
    return pw.create("segmenter-linear", classes=3, encoder=named(folder), decoder=decoder, **options)


def theirs(folder, indices):
    config = AutoConfig.from_pretrained(folder)
    config.out_indices = indices
    return MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(folder, config=config).eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FIT)
def test_channels_and_strides_are_found_and_the_maps_are_the_librarys(folders, kind):
    encoder = model_of(folders[kind], pretrained=True).eval().encoder
    assert (encoder.channels, encoder.strides) == FIT[kind]
    side = 64 if kind == "hiera" else 2 * encoder.multiple
    image = noise(2, 3, side, side)
    with torch.no_grad():
        found, wanted = encoder(image), theirs(folders[kind], [1, 2, 3, 4])(image).feature_maps
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_maps_are_those_that_are_asked_for_and_others_are_refused(folders):
    encoder = model_of(folders["dino"], pretrained=True, out_indices=[2, 4]).eval().encoder
    image = noise(1, 3, 28, 42)
    with torch.no_grad():
        for one, other in zip(encoder(image), theirs(folders["dino"], [2, 4])(image).feature_maps, strict=True):
            assert torch.equal(one, other)
    for wrong in ([5], [3, 1], [2, 2]):
        with pytest.raises(pw.ConfigError, match=r"out_indices = .* do not fit. It has the maps 0 to 4"):
            model_of(folders["dino"], out_indices=wrong)


def test_maps_are_chosen_by_their_strides():
    assert chosen_maps([4, 4, 8, 16, 32], stems=1) == [1, 2, 3, 4]
    assert chosen_maps([2, 4, 8, 8, 16], stems=0) == [0, 1, 3, 4]
    assert chosen_maps([1, 4, 8, 16, 32], stems=1) == [1, 2, 3, 4]
    assert chosen_maps([14] * 13, stems=1) == [3, 6, 9, 12]
    assert chosen_maps([16] * 24, stems=0) == [5, 11, 17, 23]
    assert chosen_maps([16] * 3, stems=0) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["dino", "convnext"])
def test_weights_of_three_bands_serve_other_numbers_of_bands(folders, kind):
    image = noise(1, 5, 56, 64)
    three, five, one = (model_of(folders[kind], bands=n, pretrained=True).eval().encoder for n in (3, 5, 1))
    side = (56, 56) if kind == "dino" else (32, 64)
    image = image[..., : side[0], : side[1]]
    with torch.no_grad():
        wanted, grey = three(image[:, :3]), three(image[:, :1].expand(-1, 3, -1, -1))
        for found, expected in ((five(image), wanted), (one(image[:, :1]), grey)):
            for each, other in zip(found, expected, strict=True):
                torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "decoder"), [("dino", "unet"), ("dino", "linknet"), ("swin", "setr-mla")])
def test_a_decoder_that_does_not_fit_says_why(folders, kind, decoder):
    with pytest.raises(pw.ConfigError, match="stride"):
        model_of(folders[kind], decoder)


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [("dino", "setr-mla"), ("dino", "segmenter-mask"), ("dino", "all-mlp"), ("convnext", "unet"), ("swin", "ham")],
)
def test_a_pair_trains_at_an_odd_size_and_is_fused_to_the_same_function(folders, kind, decoder):
    torch.manual_seed(0)
    model = model_of(folders[kind], decoder).train()
    logits = model(noise(2, 3, 45, 71))
    assert logits.shape == (2, 3, 45, 71)
    logits.square().mean().backward()
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.encoder.parameters()]
    assert sum(reached) > 0.7 * len(reached)
    model.eval()
    image = noise(1, 3, 77, 50)
    with torch.no_grad():
        exact, fused = model(image), pw.fuse(model)(image)
    assert (fused - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_a_network_of_one_image_size_sees_a_larger_image_window_by_window(folders):
    encoder = model_of(folders["hiera"], pretrained=True).eval().encoder
    assert (encoder.window, encoder.multiple) == (64, 64)
    image = noise(2, 3, 64, 192)
    with torch.no_grad():
        whole = encoder(image)
        parts = [encoder(image[..., left : left + 64]) for left in (0, 64, 128)]
    for i, each in enumerate(whole):
        torch.testing.assert_close(each, torch.cat([part[i] for part in parts], dim=3), rtol=1e-5, atol=1e-5)


def test_windows_are_put_together_as_they_were_cut():
    image = noise(2, 3, 12, 20)
    cut = in_windows(image, (3, 5))
    assert cut.shape == (2 * 15, 3, 4, 4)
    assert torch.equal(cut[6], image[0, :, 4:8, 4:8])
    assert torch.equal(joined_windows(cut, 2, (3, 5)), image)


def card(model):
    return ModelCard(model.architecture, make_classes(["a", "b", "c"]), (1, 2, 3), "uint8", (0.0,) * 3, (1.0,) * 3)


def test_a_saved_model_needs_neither_the_folder_nor_a_network(folders, tmp_path, offline):
    folder = shutil.copytree(folders["convnext"], tmp_path / "theirs")
    model = model_of(folder, "all-mlp", pretrained=True).eval()
    assert "pretrained" not in model.architecture.options
    save_model(tmp_path / "model", model, card(model))
    save_weights(model, tmp_path / "alone.safetensors")
    shutil.rmtree(folder)
    loaded, _, _ = load_model(tmp_path / "model")
    image = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))
        other = rebuilt(model.architecture, {}).eval()
        assert not torch.equal(other(image), model(image))
        report = pw.load_weights(other, tmp_path / "alone.safetensors")
        assert (report.layout, report.missing) == ("pixelwise", ())
        assert torch.equal(other(image), model(image))
    with pytest.raises(pw.ConfigError, match="is not there"):
        model_of(folder)


def test_names_that_have_changed_are_answered_with_both_versions(folders, tmp_path):
    model = model_of(folders["dino"])
    options = dict(model.architecture.options)
    options["library_config"] = options["library_config"].replace(model.encoder.recipe.version, "5.0.1")
    older = rebuilt(model.architecture, options)
    assert older.encoder.recipe.version == "5.0.1"
    # As if that version had called the norm otherwise.
    older.encoder.backbone.final_norm = older.encoder.backbone.layernorm
    del older.encoder.backbone.layernorm
    save_model(tmp_path / "model", older, card(older))
    with pytest.raises(pw.WeightsError, match=r"layernorm.* saved with 5\.0\.1.*install transformers==5\.0\.1"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is damaged"),
        ('{"encoder": "timm:x"}', "is damaged"),
        (json.dumps({"encoder": "timm:x", "version": "1", "about": {}, "side": 224}), "library_config is of 'timm:x'"),
    ],
)
def test_a_recipe_that_is_damaged_or_of_another_encoder_is_refused(folders, text, words):
    with pytest.raises(pw.ConfigError, match=words):
        model_of(folders["dino"], library_config=text)


def test_names_on_the_hub_come_from_the_cache_with_the_licence_of_their_card(folders, tmp_path, monkeypatch, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fill_cache(tmp_path, "someone/tiny-dino", folders["dino"])
    model = pw.create("setr-naive", classes=3, encoder="transformers:someone/tiny-dino", pretrained=True).eval()
    image = noise(1, 3, 56, 56)
    with torch.no_grad():
        assert torch.equal(model.encoder(image)[-1], theirs(folders["dino"], [4])(image).feature_maps[0])
    assert model.encoder.recipe.licence == "apache-2.0"
    with pytest.raises(pw.ConfigError, match=r"someone/else.*hf download someone/else"):
        pw.create("setr-naive", classes=3, encoder="transformers:someone/else")


def test_the_configuration_of_the_page_is_a_network(folders, tmp_path, monkeypatch, offline):
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
    table = tomllib.loads(page.split("```toml\n")[1].split("```")[0])["model"]
    name = table["options"]["encoder"].removeprefix("transformers:")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fill_cache(tmp_path, name, folders["dino"])
    model = pw.create(table["name"], classes=3, **table["options"]).eval()
    assert model.encoder.recipe.licence == "apache-2.0"
    assert model(noise(1, 3, 64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("No card.\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_licence_is_named_as_the_card_names_it_or_unknown(folders, tmp_path, text, licence):
    folder = shutil.copytree(folders["dino"], tmp_path / "theirs")
    (folder / "README.md").unlink() if text is None else (folder / "README.md").write_text(text)
    assert model_of(folder, pretrained=True).encoder.recipe.licence == licence
    assert model_of(folder).encoder.recipe.licence is None


@pytest.mark.parametrize(
    ("head", "licence"), [("license: other", None), ("license:\n- mit\n- cc-by-nc-4.0", "mit, cc-by-nc-4.0")]
)
def test_of_several_licences_all_are_named_and_of_another_one_its_name(tmp_path, head, licence):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    assert card_licence(str(tmp_path)) == licence


def test_a_network_without_a_backbone_is_refused_with_those_that_have_one(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(pw.ConfigError, match=r"of the type 'vit', of which .* has no backbone. It has .*dinov2"):
        model_of(tmp_path)


def test_weights_that_are_not_there_or_of_another_network_are_refused(folders, tmp_path):
    bare = shutil.copytree(folders["dino"], tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(pw.WeightsError, match="does not find the weights"):
        model_of(bare, pretrained=True)
    shutil.copy(folders["swin"] / "model.safetensors", bare)
    with pytest.raises(pw.WeightsError, match=r"lack \d+ tensors of its backbone"):
        model_of(bare, pretrained=True)


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(pw.MissingExtraError, match=r"pip install 'pixelwise\[transformers\]'"):
        pw.create("setr-naive", classes=3, encoder="transformers:facebook/dinov2-base")


def test_options_of_the_library_are_checked_by_name(folders):
    with pytest.raises(pw.ConfigError, match="drop_path is a chance"):
        model_of(folders["dino"], drop_path=1.5)
    with pytest.raises(pw.ConfigError, match="pretrained is true or false"):
        model_of(folders["dino"], pretrained="yes")
    with pytest.raises(pw.ConfigError, match="no option 'patch'"):
        model_of(folders["dino"], patch=8)
    chances = model_of(folders["convnext"], drop_path=0.4).encoder.recipe.about["drop_path_rate"]
    assert chances == 0.4


@pytest.mark.parametrize("kind", FIT)
def test_only_matrices_decay_and_early_layers_learn_more_slowly(folders, kind):
    model = model_of(folders[kind])
    groups = parameter_groups(model, rate=1.0, decoder_lr_mult=10.0, weight_decay=0.05)
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        # A matrix mixes channels or pixels; what acts on each channel by itself, or is added, has one axis at most.
        spread = sum(side > 1 for side in parameter.shape)
        special = any(word in name for word in ("position", "cls_token", "mask_token", "bias"))
        assert (id(parameter) in decaying) == (spread > 1 and not special), name
    factors = layer_factors(model, 0.1)
    assert set(factors) == {name for name, _ in model.encoder.named_parameters()}
    assert min(factors.values()) == pytest.approx(0.1)
    assert max(factors.values()) == 1
    first = [name for name, factor in factors.items() if math.isclose(factor, 0.1)]
    assert all("embed" in name for name in first), first


@pytest.mark.parametrize("kind", ["dino", "swin", "convnext"])
def test_recomputed_blocks_give_the_same_gradients(folders, kind):
    torch.manual_seed(0)
    model = model_of(folders[kind], pretrained=True).train()
    again = copy.deepcopy(model)
    assert recompute_blocks(again.encoder) > 0
    image = noise(2, 3, 64, 64)
    for each in (model, again):
        torch.manual_seed(1)  # of blocks that are left out by chance
        each.decode(image).logits.square().mean().backward()
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_cost_counts_a_librarys_encoder(folders):
    found = pw.cost(model_of(folders["convnext"]), size=(64, 96))
    encoder = model_of(folders["convnext"]).encoder
    assert found.parameters > sum(p.numel() for p in encoder.parameters())
    # Its first layer alone: 8 channels of 4x4 patches of 3 bands, two operations each.
    assert found.flops > 2 * 8 * 48 * (64 // 4) * (96 // 4)


def test_hmsa_stands_around_a_librarys_encoder(folders):
    model = pw.create("hmsa", classes=3, network="segformer-b0", encoder=named(folders["convnext"]), pretrained=True)
    again = rebuilt(model.architecture, {})
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    weights = theirs(folders["convnext"], [1, 2, 3, 4]).state_dict()
    found = model.encoder.network.backbone.state_dict()
    assert torch.equal(found["embeddings.patch_embeddings.weight"], weights["embeddings.patch_embeddings.weight"])


def test_the_linear_decoder_says_of_each_patch_what_the_librarys_map_holds(folders):
    """An independent way from an image to logits: the library's map, a product, and a resize."""
    model = model_of(folders["dino"], pretrained=True).eval()
    image = noise(1, 3, 60, 75)
    padded = F.pad(image, (0, 9, 0, 10))
    weight, bias = model.decoder.classifier.weight[:, :, 0, 0], model.decoder.classifier.bias
    with torch.no_grad():
        last = theirs(folders["dino"], [4])(padded).feature_maps[0]
        logits = torch.einsum("bchw,kc->bkhw", last, weight) + bias[:, None, None]
        wanted = F.interpolate(logits, size=(70, 84), mode="bilinear")[..., :60, :75]
        torch.testing.assert_close(model(image), wanted, rtol=1e-4, atol=1e-5)
