"""The one place that chooses a device."""

import contextlib

import pytest
import torch

from pixelwise.device import channels_last, choose_device, choose_devices, has_bfloat16, practice, upload
from pixelwise.errors import ConfigError


def test_the_cpu_is_there_and_auto_takes_a_gpu_if_there_is_one():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    "name", ["", "abacus", "CPU", "meta", "cuda:", "cuda:x", "cuda:77", "cuda:-1", "cpu:1:2", "mps:99"]
)
def test_a_device_that_does_not_work_is_one_paragraph_that_names_those_that_may(name):
    with pytest.raises(ConfigError, match="Use 'auto' or one of cpu, cuda, mps, xpu") as caught:
        choose_device(name)
    assert f"The device {name!r} does not work" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_devices_that_share_work_are_of_one_kind_and_each_gpu_is_named_once(monkeypatch):
    assert choose_devices("cpu") == (torch.device("cpu"),)
    assert choose_devices("cpu, cpu") == (torch.device("cpu"),) * 2
    monkeypatch.setattr("pixelwise.device.choose_device", torch.device)
    assert choose_devices("cuda:0,cuda:1") == (torch.device("cuda", 0), torch.device("cuda", 1))
    for names in ("cuda:0,cuda:0", "cpu,cuda:0"):
        with pytest.raises(ConfigError, match="do not work together"):
            choose_devices(names)


@pytest.mark.parametrize(
    ("kind", "native", "precision", "half"),
    [
        ("cpu", True, "auto", None),
        ("mps", True, "auto", None),
        ("cuda", True, "auto", torch.bfloat16),
        ("cuda", False, "auto", torch.float16),
        ("cuda", False, "bf16", torch.bfloat16),
        ("cuda", True, "fp32", None),
        ("cpu", True, "fp16", torch.float16),
    ],
)
def test_auto_takes_the_half_precision_that_the_hardware_has(monkeypatch, kind, native, precision, half):
    monkeypatch.setattr("pixelwise.device.has_bfloat16", lambda device: native)
    found = practice(torch.device(kind), precision)
    assert found.half == half
    assert found.scaled == (half is torch.float16), "float16 alone needs its loss scaled"
    assert found.log_every == (10 if kind == "cuda" else 1)
    assert practice(torch.device(kind), precision, 3).log_every == 3


def test_imitated_bfloat16_does_not_count(monkeypatch):
    asked = {}

    def supported(including_emulation=True):
        asked["emulated"] = including_emulation
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    has_bfloat16.cache_clear()
    assert not has_bfloat16(torch.device("cuda", 5))
    assert asked == {"emulated": False}


def test_channels_come_last_for_convolutions_on_a_gpu_alone():
    unet, vit = (torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, width)) for width in (2, 900))
    assert channels_last(unet, torch.device("cuda"))
    assert not channels_last(vit, torch.device("cuda"))
    assert not channels_last(unet, torch.device("cpu"))


def test_an_upload_to_the_cpu_is_the_tensor_itself():
    tensor = torch.ones(2)
    (there,) = upload([tensor], torch.device("cpu")).arrived()
    assert there is tensor
