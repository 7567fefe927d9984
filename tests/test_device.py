"""The one place that chooses a device."""

import pytest
import torch

from pixelwise.device import choose_device
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
