"""timm for tests, also where torchvision is missing: timm imports it for data sets and does without it for networks.

torchvision's wheels on PyPI need a GPU build of torch, so the tests install timm alone (see the Makefile).
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

import pytest

STAND_IN = "torchvision"


class Anything(type):
    """A class whose attributes are classes of the same kind."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and all its modules; they hold anything, and do nothing."""

    def find_spec(self, fullname, path=None, target=None):
        mine = fullname.split(".")[0] == STAND_IN
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if mine else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(Anything(spec.name, (), {}), name)
        return module

    def exec_module(self, module):
        pass


def import_timm():
    """Return timm, or skip the test where it is not installed.

    The stand-in is gone afterwards: transformers looks for torchvision too.
    """
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed; the Makefile installs it without torchvision")
    if importlib.util.find_spec(STAND_IN) is not None:
        return importlib.import_module("timm")
    finder = StandIn()
    sys.meta_path.append(finder)
    try:
        return importlib.import_module("timm")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == STAND_IN]:
            del sys.modules[name]
