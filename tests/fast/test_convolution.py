"""A convolution with its activation and its shortcut inside, against torch's own functions one by one."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pixelwise as pw
from pixelwise.fast import convolution
from pixelwise.fast.convolution import FEWEST_CHANNELS, KEPT, FusedConvolution

MANY = FEWEST_CHANNELS


@pytest.fixture(autouse=True, scope="module")
def small_maps_by_rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "LEAST_PRODUCTS", 0)
        yield


def frozen(inputs, outputs, kernel, activation=None, **options):
    torch.manual_seed(0)
    return FusedConvolution(nn.Conv2d(inputs, outputs, kernel, **options).requires_grad_(False), activation)


def expected(layer, image, shortcut=None):
    """Answers in float64, where nothing is fused."""
    result = copy.deepcopy(layer).double().to(torch.float64)
    plain = F.conv2d(
        image.double(), result.weight, result.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return layer.activation(plain if shortcut is None else plain + shortcut.double())


def assert_close(found, exact):
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= 3e-6 * exact.abs().max()


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 40),
    dilation=st.integers(1, 5),
    images=st.integers(1, 2),
    bias=st.booleans(),
    shortcut=st.booleans(),
    activation=st.sampled_from([None, nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.Sigmoid()]),
)
def test_a_3x3_convolution_of_many_channels(height, width, dilation, images, bias, shortcut, activation):
    layer = frozen(MANY, MANY + 2, 3, activation, padding=dilation, dilation=dilation, bias=bias)
    image = torch.randn(images, MANY, height, width)
    beside = torch.randn(images, MANY + 2, height, width) if shortcut else None
    assert_close(layer(image, beside), expected(layer, image, beside))


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "options"),
    [
        (3, 8, 7, {"stride": 2, "padding": 3}),
        (12, 12, 5, {"padding": 2, "groups": 12}),
        (12, 6, (1, 7), {"padding": (0, 3), "groups": 3}),
        (5, 9, 1, {"bias": False}),
        (MANY, MANY, 3, {"stride": 2, "padding": 1}),
        (MANY, MANY, 3, {}),
    ],
)
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.GELU(approximate="tanh")])
def test_other_convolutions(inputs, outputs, kernel, options, activation):
    layer = frozen(inputs, outputs, kernel, activation, **options)
    image = torch.randn(2, inputs, 33, 21)
    exact = expected(layer, image)
    assert_close(layer(image), exact)
    beside = torch.randn(exact.shape)
    assert_close(layer(image, beside), expected(layer, image, beside))


def test_strips_meet_without_a_seam(monkeypatch):
    layer, image = frozen(MANY, MANY, 3, padding=1), torch.randn(1, MANY, 64, 20)
    whole = layer(image)
    monkeypatch.setattr("pixelwise.fast.winograd.STRIP_ELEMENTS", 1)
    assert_close(layer(image), whole)


def test_the_shortcut_stays_unless_it_may_be_overwritten():
    layer, image = frozen(8, 8, 1, nn.ReLU()), torch.randn(1, 8, 9, 9)
    beside = torch.randn(1, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    kept = beside.clone()
    found = layer(image, beside)
    assert torch.equal(beside, kept)
    assert torch.equal(layer(image, beside, overwrite=True), found)


def test_every_size_gets_its_own_answers_and_few_are_remembered():
    layer = frozen(MANY, MANY, 3, padding=1)
    for side in (16, 20, 24, 28, 32, 16):
        image = torch.randn(1, MANY, side, side)
        assert_close(layer(image), expected(layer, image))
    assert len(layer.made) == KEPT


@given(st.lists(st.tuples(st.sampled_from([1, 2, 7, 8, 16]), st.sampled_from([5, 8])), min_size=2, max_size=6))
def test_sizes_may_follow_each_other_in_any_order(sizes):
    layer = frozen(MANY, MANY, 3, padding=1)
    for size in sizes:
        image = torch.randn(1, MANY, *size)
        assert_close(layer(image), expected(layer, image))


def test_nothing_made_from_weights_outlives_their_cast():
    # Cast back, they may lie at the old place.
    layer, image = frozen(MANY, MANY, 3, padding=1), torch.randn(1, MANY, 16, 16)
    layer(image)
    assert not layer.bfloat16().made
    assert_close(layer.float()(image), expected(layer, image))


def test_a_used_one_can_be_copied_and_pickled():
    layer, image = frozen(MANY, MANY, 3, padding=1), torch.randn(1, MANY, 16, 16)
    found = layer(image)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(image), found)


def test_gradients_of_the_image_still_flow():
    layer = frozen(MANY, MANY, 3, nn.ReLU(), padding=1)
    image = torch.randn(1, MANY, 16, 16, requires_grad=True)
    layer(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_gradients_of_the_image_still_flow_after_a_call_in_inference_mode():
    model = pw.fuse(pw.create("deeplabv3plus", classes=3, encoder="resnet18"))
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model(image)
    model(image.requires_grad_()).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_a_batch_gives_the_answers_of_its_single_images():
    layer, images = frozen(MANY, MANY, 3, padding=1), torch.randn(3, MANY, 16, 24)
    assert torch.equal(layer(images), torch.cat([layer(image[None]) for image in images]))
