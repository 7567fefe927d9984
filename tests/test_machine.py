"""What this machine is, and how threads wait."""

import os
from types import SimpleNamespace

import pytest

from pixelwise import machine


@pytest.fixture
def no_choice(monkeypatch):
    """A process in which torch is not imported and the user said nothing."""
    for name in machine.WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "sys", SimpleNamespace(modules={}))


def test_threads_wait_calmly_if_torch_has_not_started_them(no_choice, monkeypatch):
    machine.share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == machine.SPINS
    monkeypatch.delenv("GOMP_SPINCOUNT")
    machine.sys.modules["torch"] = object()
    machine.share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("name", machine.WAITING)
def test_what_the_user_said_of_waiting_stays(no_choice, monkeypatch, name):
    monkeypatch.setenv(name, "7")
    machine.share_cores()
    assert {each: os.environ[each] for each in machine.WAITING if each in os.environ} == {name: "7"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n", "AMX-INT8, AVX512-VNNI"),
        ("flags\t\t: fpu sse2 avx2\n", "AVX2, none for 8 or 16 bits"),
        ("Features\t: fp asimd asimddp\n", "dot product"),
        ("nothing\n", "not known"),
    ],
)
def test_instructions_are_read_from_the_systems_flags(monkeypatch, lines, said):
    monkeypatch.setattr(machine.Path, "read_text", lambda path, encoding: lines)
    assert machine.instructions().startswith(said)
