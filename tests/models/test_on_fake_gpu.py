"""All networks on a GPU that is none: torch's fake tensors know shapes, types and devices, and refuse to be asked.

So these tests find tensors that are made on the wrong device, and questions to a device that would make it wait. What
they do not see are backward passes: those ask for a real GPU's streams.
"""

from contextlib import contextmanager

import pytest
import torch
from fake_gpu import fake_gpu
from test_every_network import LIGHTER
from torch._subclasses.fake_tensor import DataDependentOutputException

import pixelwise as pw
from pixelwise.labels import IGNORE
from pixelwise.loss_config import LossConfig
from pixelwise.losses import segmentation_loss, total_loss
from pixelwise.training.lion import Lion
from pixelwise.training.optimizer import MovingAverage
from pixelwise.training.teaching import wrong_shares
from pixelwise.upsampling import argmax_upsampled, decide_cells, recentred

FAMILIES = (
    *("segformer-b0", "segnext-t", "hrnet-w18-ocr", "deeplabv3plus", "linknet", "fchardnet-70", "unet3p", "setr-pup"),
    "segmenter-mask",
)
"""One of each: fake tensors take seconds for a network. All of them: `NAMES` of test_every_network."""


@pytest.fixture
def gpu():
    with fake_gpu() as device:
        yield device


@contextmanager
def moved(*models):
    """Give networks of the meta device memory on a fake GPU."""
    with fake_gpu() as device:
        for model in models:
            model.to_empty(device=device)
        yield device


def on_gpu(*tensors):
    return all(each.device.type == "cuda" for each in tensors)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_its_loss_and_its_class_map_stay_on_the_gpu(name):
    with torch.device("meta"):
        model = pw.create(name, classes=3, **LIGHTER.get(name, {}))
    with moved(model) as gpu:
        checks(model, gpu)


def checks(model, gpu):
    image = torch.empty(2, 3, 64, 64, device=gpu)
    decoded = model.train().decode(image)
    assert on_gpu(decoded.logits, *decoded.aux.values())
    rows, columns = model.padded_size((64, 64))
    mask = torch.empty(2, rows, columns, dtype=torch.long, device=gpu)
    loss = total_loss(decoded, mask, aux_weights=model.aux_weights, align_corners=model.align_corners)
    assert on_gpu(loss)
    assert loss.shape == ()
    model.eval().requires_grad_(False)
    logits = model.decode(image).logits
    labels, share = argmax_upsampled(logits, (rows, columns), confidence=True, align_corners=model.align_corners)
    assert on_gpu(labels, share)
    assert labels.shape == (2, rows, columns)
    assert labels.dtype == torch.uint8
    if model.align_corners:
        assert on_gpu(recentred(logits, (rows, columns)))
    assert on_gpu(pw.fuse(model).decode(image).logits)


def test_eomt_is_the_only_network_that_asks():
    # How likely masked attention is lies in a buffer, which it reads.
    with torch.device("meta"):
        model = pw.create("eomt-s", classes=3, **LIGHTER["eomt-s"])
    with moved(model) as gpu, pytest.raises(DataDependentOutputException):
        model.decode(torch.empty(1, 3, 64, 64, device=gpu))


WITHOUT_QUESTIONS = [
    LossConfig(),
    LossConfig(focal=1.0, label_smoothing=0.1),
    LossConfig(dice=1.0, soft_iou=1.0),
]


@pytest.mark.parametrize("losses", WITHOUT_QUESTIONS, ids=["cross-entropy", "focal", "sums"])
@pytest.mark.parametrize(("size", "aligned"), [((32, 32), False), ((30, 33), True)])
def test_the_usual_losses_ask_the_gpu_nothing(gpu, losses, size, aligned):
    logits = torch.empty(2, 5, 8, 8, device=gpu, requires_grad=not losses.dice)
    mask = torch.empty(2, *size, dtype=torch.long, device=gpu)
    weights = torch.empty(5, device=gpu)
    loss = segmentation_loss(logits, mask, losses, class_weights=weights, align_corners=aligned)
    assert on_gpu(loss)


def test_losses_that_choose_pixels_ask_and_this_would_show_it(gpu):
    logits, mask = torch.empty(2, 5, 8, 8, device=gpu), torch.empty(2, 32, 32, dtype=torch.long, device=gpu)
    with pytest.raises(DataDependentOutputException):
        segmentation_loss(logits, mask, LossConfig(lovasz=1.0))


def test_what_a_step_does_besides_asks_the_gpu_nothing():
    with torch.device("meta"):
        model, other = (pw.create("unet", classes=3, filters=[4, 8]) for _ in range(2))
    with moved(model, other) as gpu:
        MovingAverage(model, other, 0.9).update(3)
        logits, mask = torch.empty(2, 3, 8, 8, device=gpu), torch.full((2, 32, 32), IGNORE, device=gpu)
        assert on_gpu(wrong_shares(logits, mask))
        weights = list(model.parameters())
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        assert on_gpu(torch.nn.utils.clip_grad_norm_(weights, 1.0))
        for optimizer in (torch.optim.AdamW(weights, fused=True), Lion(weights)):
            optimizer.found_inf = torch.zeros((), device=gpu)
            optimizer.step()
            held = [each for state in optimizer.state.values() for each in state.values()]
            assert on_gpu(*held)
        assert on_gpu(*decide_cells(torch.empty(1, 3, 6, 7, device=gpu), 4, confidence=True))
