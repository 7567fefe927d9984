import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import pytest

import pixelwise as pw


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


HEAVY = "*sorted({'torch', 'numpy', 'rasterio', 'pydantic', 'PIL'} & set(sys.modules))"


def test_importing_pixelwise_imports_nothing_heavy():
    assert run_python(f"import sys, pixelwise; print({HEAVY})") == ""


def test_listing_and_completing_names_imports_nothing_heavy():
    assert run_python(f"import sys, pixelwise; dir(pixelwise); pixelwise.PixelwiseError; print({HEAVY})") == ""


def test_a_help_page_imports_neither_torch_nor_numpy():
    code = f"""
import sys
from pixelwise.cli import main
for arguments in (["--help"], ["train", "--help"], ["predict", "--help"]):
    sys.argv = ["pixelwise", *arguments]
    try:
        main()
    except SystemExit as left:
        assert not left.code
print('heavy:', {HEAVY})
"""
    assert run_python(code).splitlines()[-1] == "heavy:"


def test_importing_pixelwise_imports_the_standard_library_and_nothing_else():
    code = """
import sys
before = set(sys.modules)
import pixelwise
names = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(names - set(sys.stdlib_module_names)))
"""
    assert run_python(code) == "['pixelwise']"


@pytest.mark.parametrize("name", pw.__all__)
def test_a_public_name_is_the_thing_itself_and_never_a_module(name):
    thing = getattr(pw, name)
    assert callable(thing)
    assert not isinstance(thing, ModuleType)
    assert thing.__name__ == name
    assert name in dir(pw)


def test_train_stays_the_function_after_its_module_is_imported():
    import_module("pixelwise.training.train")
    assert callable(pw.train)
    assert pw.train is import_module("pixelwise.training.train").train


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = pw.trian


def test_the_version_is_the_one_that_was_installed():
    try:
        installed = version("pixelwise")
    except PackageNotFoundError:
        pytest.skip("pixelwise runs from its sources here and is not installed")
    assert installed == pw.__version__
