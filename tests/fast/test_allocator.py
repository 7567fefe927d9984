"""Freed memory stays with the process that asked for it."""

import subprocess
import sys

import pytest

FREED = """
import sys, torch
if "keep" in sys.argv:
    from pixelwise.fast.allocator import keep_freed_memory
    assert keep_freed_memory()
torch.ones(16 << 20)
with open("/proc/self/status") as file:
    print(file.read().split("VmRSS:")[1].split()[0])
"""


def resident_mib(*arguments):
    """Memory of a process after it has freed a tensor of 64 MiB."""
    done = subprocess.run([sys.executable, "-c", FREED, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has this setting")
def test_a_freed_tensor_stays_where_it_was_asked_for_and_goes_back_elsewhere():
    assert resident_mib("keep") - resident_mib() > 48
