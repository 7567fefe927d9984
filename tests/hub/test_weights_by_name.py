"""[model].weights by name, for a network of each layout: fetched from loopback, then read offline."""

import hashlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import golden
import pytest
import tomli_w
import torch
from click.testing import CliRunner
from safetensors.torch import save
from small_hub import serving

import pixelwise as pw
from pixelwise.cli import commands
from pixelwise.config import Config, ModelConfig, load_config
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.hub import hub_files, ledger
from pixelwise.hub.addresses import Network
from pixelwise.hub.download import NotKeptError
from pixelwise.hub.licences import GIVEN_BY_PATH
from pixelwise.hub.named_weights import Asked, fetch, require_allowed, row_of
from pixelwise.training.first_weights import first_weights
from pixelwise.training.model_check import check_model
from pixelwise.training.network import require_encoder
from pixelwise.weights import save_weights

GOLDENS = Path(__file__).parent.parent / "goldens"
NVIDIA = "NVIDIA-SegFormer"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "theirs"))


@pytest.fixture
def hub(monkeypatch):
    """A server for every host of the ledger, whose rows accept the small files of the tests."""
    licences, rows = ledger._table()
    small = tuple(replace(row, sha256="" if not row.package else row.sha256, size="") for row in rows)
    monkeypatch.setattr(ledger, "_table", lambda: (licences, small))
    with serving() as hub:
        yield hub


def mirrors(hub):
    hosts = {urlsplit(row.url).hostname for row in ledger.rows() if row.url} | {"huggingface.co"}
    return dict.fromkeys(hosts, hub.address)


def recorded(name, prefix="", strip=""):
    """Tensors of a recorded network's names and shapes. They share one storage, so that files are small."""
    wanted = [entry[:2] for entry in golden.load(name, GOLDENS)["state_dict"] if entry[0].startswith(prefix)]
    numbers = torch.full((max(math.prod(shape) for _, shape in wanted),), 0.5)
    return {key.removeprefix(strip): numbers[: math.prod(shape)].view(shape) for key, shape in wanted}


def offer(hub, name, state):
    """Serve a state dict as the file of a row of the ledger."""
    row = ledger.by_name(name)
    if (row.file or row.url).endswith(".safetensors"):
        contents = save({key: value.clone() for key, value in state.items()})
    else:
        file = io.BytesIO()
        torch.save(state, file)
        contents = file.getvalue()
    if row.file:
        hub.put(row.name, row.file, contents, row.revision)
    else:
        hub.files[urlsplit(row.url).path] = contents


NETWORKS = {
    # name: (what a user writes, network, options, recorded names, beginning of those in the file, what is cut off)
    "nvidia/mit-b0": ("imagenet", "segformer-b0", {}, ("segformer_b0_hf", "segformer.")),
    "nvidia/segformer-b0-finetuned-ade-512-512": ("ade20k", "segformer-b0", {}, ("segformer_b0_hf",)),
    "openmmlab/segformer-b0-ade20k": ("", "segformer-b0", {}, ("segformer_b0_mmseg122",)),
    "torchvision/resnet50": (
        "imagenet",
        "deeplabv3",
        {},
        ("deeplabv3_resnet50_os8_torchvision", "backbone.", "backbone."),
    ),
    "torchvision/deeplabv3-resnet50": ("coco", "deeplabv3", {}, ("deeplabv3_resnet50_os8_torchvision",)),
    "openmmlab/deeplabv3-resnet50-ade20k": ("ade20k", "deeplabv3", {}, ("deeplabv3_r50d8_mmseg122",)),
    "openmmlab/pspnet-resnet50-cityscapes": ("cityscapes", "pspnet", {}, ("pspnet_r50d8_mmseg122",)),
    "openmmlab/mscan-t": ("imagenet", "segnext-t", {}, ("segnext_t_mmseg122", "backbone.", "backbone.")),
    "openmmlab/segnext-t-ade20k": ("ade20k", "segnext-t", {}, ("segnext_t_mmseg122",)),
    "openmmlab/hrnet-w18": ("imagenet", "unet3p", {"encoder": "hrnet-w18"}, ("hrnetv2_w18_mmseg122", "backbone.")),
    "openmmlab/hrnet-w18-ade20k": ("ade20k", "hrnet-w18", {}, ("hrnetv2_w18_mmseg122",)),
    "openmmlab/hrnet-w18-ocr-cityscapes": ("cityscapes", "hrnet-w18-ocr", {}, ("hrnetocr_w18_mmseg122",)),
    "deit/deit-tiny": (
        "imagenet",
        "setr-naive",
        {"encoder": "vit-tiny"},
        ("segmenter_tiny_mask", "encoder.", "encoder."),
    ),
    "segmenter/tiny-mask-ade20k": ("ade20k", "segmenter-mask", {"encoder": "vit-tiny"}, ("segmenter_tiny_mask",)),
    "openmmlab/segmenter-mask-tiny-ade20k": (
        "",
        "segmenter-mask",
        {"encoder": "vit-tiny"},
        ("segmenter_t_mask_mmseg122",),
    ),
    "fchardnet/fchardnet-70-cityscapes": ("cityscapes", "fchardnet-70", {}, ("fchardnet_70",)),
    "milesial/unet-carvana": ("carvana", "unet", {}, ("unet_milesial_bilinear",)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_each_layout_begins_with_weights_by_name_and_again_offline(hub, monkeypatch, name):
    short, network, options, file = NETWORKS[name]
    offer(hub, name, recorded(*file))
    settings = ModelConfig(
        name=network, weights=short or name, options=options, accept_licence=NVIDIA, mirrors=mirrors(hub)
    )
    start = first_weights(settings)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.asked)
    assert first_weights(settings) == start
    assert len(hub.asked) == asked
    (origin,) = start.origins
    row = ledger.by_name(name)
    assert (origin.name, origin.licence, origin.commercial) == (name, row.licence, row.commercial)
    model = pw.create(network, classes=2, **options)
    report = pw.load_weights(model, start.path, partial=True)
    assert report.layout.startswith(row.layout.removesuffix(" (encoder only)").partition(",")[0].split()[0])
    assert report.encoder_complete
    require_encoder(model, Config.model_validate({"data": DATA, "model": settings}), report.missing)


DATA = {"images": "images", "labels": "masks", "classes": ["a", "b"]}


def test_weights_that_come_as_a_package_need_no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = ModelConfig(name="linknet", weights="imagenet", options={"encoder": "efficientnet-lite0"})
    start = first_weights(settings)
    report = pw.load_weights(pw.create("linknet", classes=2, encoder="efficientnet-lite0"), start.path, partial=True)
    assert report.encoder_complete
    assert start.origins[0].licence == "Apache-2.0"
    # The file is the recorded one: 57934424 is the beginning of its SHA-256, which its maker put into its name.
    assert start.origins[0].sha256.startswith("57934424")


def test_weights_under_another_licence_are_refused_before_anything_is_asked(hub):
    settings = ModelConfig(name="segformer-b0", weights="imagenet", mirrors=mirrors(hub))
    with pytest.raises(WeightsError) as raised:
        first_weights(settings)
    said = str(raised.value)
    assert all(part in said for part in ("nvidia/mit-b0", "research and evaluation", "NVlabs/SegFormer", "--accept"))
    assert f'accept_licence = "{NVIDIA}"' in said
    assert hub.asked == []
    # Another licence is no consent; the same one in other letters is.
    with pytest.raises(WeightsError, match="is under the licence"):
        require_allowed(Asked("nvidia/mit-b0", accepted=("MIT",)))
    assert require_allowed(Asked("nvidia/mit-b0", accepted=("nvidia-segformer",))).commercial == "no"


def test_every_row_that_is_not_free_to_use_asks_for_consent_and_every_other_one_does_not():
    for row in ledger.rows():
        if row.loaded or not (row.url or row.file or row.package):
            continue
        if row.commercial == "yes":
            assert require_allowed(Asked(row.name)).licence == row.licence
        else:
            with pytest.raises(WeightsError, match="accept_licence"):
                require_allowed(Asked(row.name))
            assert require_allowed(Asked(row.name, accepted=(row.licence,))).licence == row.licence


@pytest.mark.parametrize(
    ("weights", "network", "words"),
    [
        ("imagenet", "unet", r"No weights 'imagenet' are known for unet .*It has 'carvana'"),
        ("cityscapes", "linknet", r"are known for linknet with the encoder resnet18\. It has 'imagenet'"),
        ("nvidia/mit-b00", "segformer-b0", r"Did you mean 'nvidia/mit-b0'\? .*'hf:nvidia/mit-b00'"),
        ("mit_b0.pth", "segformer-b0", "no such file or folder"),
        ("setr/setr-pup-ade20k", "setr-pup", r"no address of its own.*by hand from https://github\.com/fudan-zvg/SETR"),
        ("timm/convnext_tiny.fb_in22k", "unet", r"encoder = 'timm:convnext_tiny\.fb_in22k'"),
        ("https://example.org/w.pth", "unet", r'accept_licence = "unknown"'),
        ("hf:nothing", "unet", "names no repository of the hub"),
    ],
)
def test_what_cannot_be_loaded_by_name_says_what_can(weights, network, words):
    with pytest.raises(WeightsError, match=words):
        first_weights(ModelConfig(name=network, weights=weights))


def test_an_unencrypted_address_and_an_unknown_network_are_refused():
    with pytest.raises(ConfigError, match="begins with https"):
        first_weights(ModelConfig(name="unet", weights="http://example.org/w.pth", accept_licence="unknown"))
    with pytest.raises(ConfigError, match="No network is called 'segfrmer-b0'"):
        first_weights(ModelConfig(name="segfrmer-b0", weights="imagenet"))


def test_an_address_is_remembered_without_its_secrets(hub):
    hub.files["/w.pth?key=secret"] = b"weights"
    address = hub.address.replace("//", "//user:secret@")
    asked = Asked(f"{hub.address}/w.pth?key=secret", accepted=("unknown",))
    _, origin = fetch(asked)
    assert (origin.name, origin.source, origin.licence) == ("w.pth", f"{hub.address}/w.pth", "unknown")
    with pytest.raises(WeightsError) as raised:
        require_allowed(Asked(f"{address}/w.pth"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize(
    ("card", "licence", "commercial"),
    [
        ("---\nlicense: apache-2.0\n---\n# A card", "Apache-2.0", "yes"),
        ("---\ntags: [a]\nlicense: cc-by-nc-4.0\n---\n", "CC-BY-NC-4.0", "no"),
        ("---\nlicense: other\nlicense_name: house-rules\n---\n", "house-rules", "unknown"),
        ("---\nlicense: other\n---\nlicense: mit\n", "unknown", "unknown"),
        ("# no head\nlicense: mit\n", "unknown", "unknown"),
        ("# no head\n---\nlicense: mit\n---\n", "unknown", "unknown"),
        ("---\nlicense:\ntags:\n- a\n---\n", "unknown", "unknown"),
        ("---\nlicense:\n- 'mit'  # free\n---\n", "MIT", "yes"),
        ("---\nlicense: [apache-2.0, cc-by-nc-4.0]\n---\n", "apache-2.0, cc-by-nc-4.0", "unknown"),
        ("---\nlicense: cc-by-nc-sa-4.0\n---\n", "CC-BY-NC-SA-4.0", "no"),
        (None, "unknown", "unknown"),
    ],
)
def test_a_repository_that_the_ledger_lacks_has_the_licence_of_its_card(
    hub, monkeypatch, card, licence, commercial, client
):
    monkeypatch.setattr(hub_files, "has_client", lambda: client)
    if card is not None:
        hub.put("owner/name", "README.md", card.encode())
    else:
        hub.faults["/owner/name/resolve/main/README.md"] = [{"status": 404, "X-Error-Code": "EntryNotFound"}] * 3
    hub.put("owner/name", "pytorch_model.bin", b"weights")
    missing = {"status": 404, "X-Error-Code": "EntryNotFound"}
    hub.faults["/owner/name/resolve/main/model.safetensors"] = [dict(missing) for _ in range(3)]
    through = Network({"huggingface.co": hub.address})
    asked = Asked("hf:owner/name", through=through, accepted=(licence,))
    path, origin = fetch(asked)
    assert path.read_bytes() == b"weights"
    assert (origin.name, origin.licence, origin.commercial) == ("hf:owner/name", licence, commercial)
    if commercial != "yes":
        with pytest.raises(WeightsError, match=f'accept_licence = "{licence}"'):
            fetch(replace(asked, accepted=()))


def test_a_revision_and_a_file_of_a_repository_can_be_named(hub):
    hub.put("owner/name", "README.md", b"---\nlicense: mit\n---\n", "v2")
    hub.put("owner/name", "deep/weights.pth", b"second", "v2")
    asked = Asked("hf:owner/name@v2/deep/weights.pth", through=Network({"huggingface.co": hub.address}))
    assert fetch(asked)[0].read_bytes() == b"second"


def test_the_address_of_a_file_of_the_hub_is_its_name(hub):
    hub.put("owner/name", "README.md", b"---\nlicense: mit\n---\n")
    hub.put("owner/name", "deep/weights.pth", b"weights")
    address = "https://huggingface.co/owner/name/blob/main/deep/weights.pth?download=true"
    path, origin = fetch(Asked(address, through=Network({"huggingface.co": hub.address})))
    assert (path.read_bytes(), origin.licence) == (b"weights", "MIT")
    row = ledger.by_name("nvidia/mit-b0")
    assert row_of(Asked(f"https://huggingface.co/nvidia/mit-b0/resolve/main/{row.file}")) == row
    # Another file of a repository of the ledger is under the licence of that, and not even its card is fetched.
    asked = len(hub.asked)
    with pytest.raises(WeightsError, match=f'accept_licence = "{NVIDIA}"'):
        fetch(Asked("hf:nvidia/mit-b0/tf_model.h5", through=Network({"huggingface.co": hub.address})))
    assert len(hub.asked) == asked


def test_offline_without_the_file_is_said_in_a_sentence_and_a_check_goes_on(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = ModelConfig(name="hrnet-w18", weights="ade20k")
    with pytest.raises(NotKeptError, match=r"openmmlab/hrnet-w18-ade20k is not kept .*--download.*copy it to"):
        first_weights(settings)
    config = Config.model_validate({"data": DATA, "model": settings})
    assert check_model(config, bands=3) == []


def test_a_check_fetches_nothing_and_names_a_licence(hub):
    config = Config.model_validate({"data": DATA, "model": {"weights": "imagenet", "mirrors": mirrors(hub)}})
    (problem,) = check_model(config, bands=3)
    assert NVIDIA in problem
    assert hub.asked == []


def test_a_users_own_file_is_taken_without_a_word_and_noted(tmp_path):
    model = pw.create("unet", classes=2, filters=[4, 8])
    save_weights(model, tmp_path / "mine.safetensors")
    start = first_weights(ModelConfig(name="unet", weights=tmp_path / "mine.safetensors"))
    (origin,) = start.origins
    assert (origin.name, origin.licence, len(origin.sha256)) == ("mine.safetensors", GIVEN_BY_PATH, 64)


def test_a_file_by_path_is_recognised_by_its_digest(tmp_path, monkeypatch):
    (tmp_path / "b0.pth").write_bytes(b"weights")
    licences, rows = ledger._table()
    known = tuple(
        replace(row, sha256=hashlib.sha256(b"weights").hexdigest()) if row.name == "nvidia/mit-b0" else row
        for row in rows
    )
    monkeypatch.setattr(ledger, "_table", lambda: (licences, known))
    with pytest.raises(WeightsError, match="nvidia/mit-b0 is under the licence"):
        first_weights(ModelConfig(weights=tmp_path / "b0.pth"))
    start = first_weights(ModelConfig(weights=tmp_path / "b0.pth", accept_licence=NVIDIA))
    assert start.origins[0].name == "nvidia/mit-b0"


def test_the_command_fetches_a_file_and_prints_where_it_is(hub):
    offer(hub, "openmmlab/mscan-t", {"a": torch.zeros(1)})
    mirror = f"download.openmmlab.com={hub.address}"
    command = ["weights", "imagenet", "--network", "segnext-t", "--download", "--mirror", mirror]
    result = CliRunner().invoke(commands, command)
    assert result.exit_code == 0, result.output
    assert torch.load(result.stdout.strip())["a"].shape == (1,)
    assert "openmmlab/mscan-t: Apache-2.0, from https://download.openmmlab.com" in result.stderr
    told = json.loads(CliRunner().invoke(commands, [*command, "--json"]).stdout)
    assert (told["path"], told["licence"]) == (result.stdout.strip(), "Apache-2.0")


def test_a_licence_is_accepted_on_the_command_line_of_training_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "a.toml").write_text(tomli_w.dumps({"data": DATA, "model": {"weights": "imagenet"}}))
    refused = CliRunner().invoke(commands, ["train", str(tmp_path / "a.toml")])
    assert "accept_licence" in str(refused.exception)
    accepted = CliRunner().invoke(
        commands, ["train", str(tmp_path / "a.toml"), "--no-check", "--accept-licence", NVIDIA]
    )
    assert isinstance(accepted.exception, NotKeptError)


def test_what_is_a_name_and_what_is_a_path_in_a_configuration(tmp_path):
    for folder in ("imagenet", "nvidia/mit-b0", "pretrained"):
        (tmp_path / folder).mkdir(parents=True)

    def weights(value):
        (tmp_path / "a.toml").write_text(tomli_w.dumps({"data": DATA, "model": {"weights": value}}))
        return load_config(tmp_path / "a.toml").model.weights

    names = ["imagenet", "torchvision/resnet50", "hf:owner/name@v1/w.pth", "https://example.org/w.pth", "unknown"]
    assert [weights(name) for name in names] == names
    # A data set may have a folder of a short name; a copy of a repository may have the repository's name.
    for path in ("./imagenet", "nvidia/mit-b0", "pretrained", "w.pth", "runs/first.safetensors", "../other"):
        assert weights(path) == (tmp_path / path).resolve()
