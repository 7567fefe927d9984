"""A fused network gives the answers of the one that it was made from."""

import copy
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelwise as pw
from pixelwise.fast import segformer as fast_segformer
from pixelwise.mapping.capacity import threads

RELEASES = ["paper", "transformers", "mmsegmentation"]


def trained(release):
    """A network whose every weight and running statistic is away from its fresh value."""
    torch.manual_seed(0)
    model = pw.create("segformer-b0", classes=6, release=release).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.3, 3)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.05)
    return model


PAIRS = {release: (model, pw.fuse(model)) for release in RELEASES for model in [trained(release)]}


@pytest.mark.parametrize("release", RELEASES)
@settings(max_examples=6)
@given(batch=st.integers(1, 2), height=st.integers(32, 130), width=st.integers(32, 130))
def test_any_image_gets_the_same_logits(release, batch, height, width):
    plain, fused = PAIRS[release]
    image = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    with torch.no_grad():
        expected, got = plain.decode(image).logits, fused.decode(image).logits
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_strips_of_any_height_give_the_same_logits(rows, monkeypatch):
    plain, fused = PAIRS["paper"]
    image = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(rows))
    # A row of the widest map, which is the decoder's sum.
    monkeypatch.setattr(fast_segformer, "STRIP_ELEMENTS", rows * 40 * 256)
    with torch.no_grad():
        expected, got = plain.decode(image).logits, fused.decode(image).logits
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("release", RELEASES)
def test_answers_repeat_to_the_bit_and_leave_the_image_alone(release):
    _, fused = PAIRS[release]
    image = torch.randn(1, 3, 64, 64)
    kept = image.clone()
    assert torch.equal(fused(image), fused(image))
    assert torch.equal(image, kept)


@pytest.mark.parametrize("name", ["segformer-b0", "unet3p", "segnext-t", "linknet"])
def test_threads_that_share_a_network_get_the_answers_of_one(name):
    torch.manual_seed(0)
    model, images = pw.create(name, classes=4), torch.randn(4, 1, 3, 32, 32)
    one, shared = pw.fuse(model), pw.fuse(model)

    def decode(image):
        with torch.no_grad():
            return shared.decode(image).logits

    with threads(1), torch.no_grad(), ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        # Also the first call, in which weights are put in order.
        found = list(pool.map(decode, images))
        assert all(torch.equal(got, one.decode(image).logits) for got, image in zip(found, images, strict=True))


@pytest.mark.parametrize("release", RELEASES)
def test_under_autocast_it_answers_in_half_precision(release):
    plain, fused = PAIRS[release]
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, got = plain.decode(image).logits, fused.decode(image).logits
    assert got.dtype == expected.dtype == torch.bfloat16
    assert (got - expected).abs().max() <= 0.05 * expected.abs().max()


def test_fusing_changes_nothing_in_the_network_itself():
    model = trained("paper").train()
    before = copy.deepcopy(model.state_dict())
    fused = pw.fuse(model)
    fused(torch.randn(1, 3, 32, 32))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fusing_twice_is_fusing_once():
    _, fused = PAIRS["paper"]
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(pw.fuse(fused)(image), fused(image))


def test_a_network_fused_in_training_mode_answers_as_in_evaluation():
    plain, _ = PAIRS["paper"]
    image = torch.randn(1, 3, 64, 64)
    fused = pw.fuse(copy.deepcopy(plain).train())
    with torch.no_grad():
        assert (fused(image) - plain(image)).abs().max() <= 1e-5 * plain(image).abs().max()


@pytest.mark.parametrize("name", ["segformer-b0", "linknet"])
def test_training_a_fused_network_is_refused_with_what_to_train_instead(name):
    with pytest.raises(RuntimeError, match="Train the network that it was made from"):
        pw.fuse(pw.create(name, classes=2)).train()


RECORDERS = {
    "jit.trace": torch.jit.trace,
    "export": lambda model, image: torch.export.export(model, (image,)),
    "onnx": lambda model, image: torch.onnx.export(model, (image,), io.BytesIO(), dynamo=False),
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("record", RECORDERS.values(), ids=RECORDERS)
def test_a_fused_network_refuses_to_be_recorded_in_one_sentence(record):
    _, fused = PAIRS["paper"]
    with pytest.raises(pw.PixelwiseError, match="export the network that it was made from") as refused:
        record(fused, torch.randn(1, 3, 64, 64))
    assert str(refused.value).count(".") == 1


def test_fusing_leaves_the_systems_allocator_alone():
    # In a process of its own, in which nobody has asked for it.
    code = (
        "import pixelwise as pw; from pixelwise.fast.allocator import keep_freed_memory as keep;"
        "pw.fuse(pw.create('segformer-b0', classes=2)); print(keep.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "0\n"


@pytest.mark.parametrize(
    ("name", "options"),
    [("hrnet-w18", {"padding": "same"}), ("unet", {"encoder": "efficientnet-lite0"}), ("fchardnet-70", {})],
)
def test_no_batch_norm_is_left(name, options):
    with torch.device("meta"):
        fused = pw.fuse(pw.create(name, classes=3, **options))
    assert [key for key, part in fused.named_modules() if isinstance(part, torch.nn.BatchNorm2d)] == []
