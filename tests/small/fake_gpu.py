"""A GPU that is none: fake tensors, which have a shape, a type and a device, and no values."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses import FakeTensorMode

CUDA, META = 1, 14
"""Numbers of torch's kinds of device (c10/core/DeviceType.h)."""


def lend_device_guard() -> None:
    """Let a torch that was built for CPUs name a GPU: it gets the guard of the meta device, which does nothing."""
    library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libc10.so"))
    guards = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[CUDA] = guards[CUDA] or guards[META]


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Make all tensors of a block fake, on any device; skip the test where this torch cannot."""
    try:
        lend_device_guard()
    except (OSError, ValueError):
        pytest.skip("this torch has no table of device guards")
    # Parameters become fake tensors, instead of holding fake data.
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield torch.device("cuda")
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
