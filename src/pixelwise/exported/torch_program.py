"""A program of torch.export, or machine code that AOTInductor made of one: the exported files that need torch."""

import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from pixelwise.device import choose_device
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.exported.runtimes import Arrays, Files, damage_named

MACHINE_CODE, METADATA = "data/aotinductor/", "extra/metadata"
"""In a file: where machine code lies, and what the file says of itself; both below a folder that has any name."""
MADE_FOR = "made_for"
"""In the metadata of machine code: what `processor` was where it was made."""
INSTRUCTIONS = ("DEFAULT", "AVX2", "AVX512")
"""Of processors, by torch's names; each can do what those before it can."""


def processor() -> str:
    """Return which instructions torch makes code for here."""
    return torch.backends.cpu.get_cpu_capability()


@contextmanager
def own_warnings_ignored() -> Iterator[None]:
    """Ignore what torch.export warns of in its own code, which users cannot change, and what it logs of errors."""
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)


class TorchProgram:
    """A program of torch.export, compiled or not."""

    def __init__(self, path: Path, device: str = "auto", files: Files | None = None) -> None:
        self.path, self.device, self.files = path, device, files or Files((path,))
        content = self.files.read()[0]
        with damage_named(path), ZipFile(io.BytesIO(content)) as file:
            names = file.namelist()
            self.compiled = any(MACHINE_CODE in name for name in names)
            told = json.loads(next((file.read(name) for name in names if name.endswith(METADATA)), b"{}"))
        if not isinstance(told, dict) or not {"texts", "names", "shape"} <= set(told):
            raise WeightsError(
                f"{path} is no program that pixelwise exported, and of .pt2 files only those are loaded. A network of "
                "others is taken as .onnx.",
                code="PW513",
            )
        self.metadata: Mapping[str, str] = told["texts"]
        self.names, self.shape = told["names"], tuple(told["shape"])
        self.on, self.version = choose_device(device), f"torch {torch.__version__}"
        self.program: Any
        """Takes an image; a module of operations, unless it is machine code."""
        if self.compiled:
            _require_like_machine(path, self.on, told.get(MADE_FOR, INSTRUCTIONS[0]))
            self.version += ", compiled by AOTInductor"
            self.program = _machine_code(path, content, _other_torch(self.metadata))
            return
        with damage_named(path, _other_torch(self.metadata)), own_warnings_ignored():
            program = torch.export.load(io.BytesIO(content))
        # Guards hold for shortcuts of memory that the example allowed; what it computes holds for other sizes, which
        # the certificate has checked.
        with own_warnings_ignored():
            self.program = program.module(check_guards=False).to(self.on)

    def run(self, image: Shaped[np.ndarray, "B _ _ _"]) -> Arrays:
        """Return all outputs by name."""
        with torch.no_grad():
            found = self.program(torch.from_numpy(image).to(self.on))
        return {name: array.cpu().numpy() for name, array in zip(self.names, found, strict=True)}

    def __reduce__(self) -> tuple:
        return TorchProgram, (self.path, self.device, self.files)


def _other_torch(metadata: Mapping[str, str]) -> str:
    """Return a sentence if a file was made with another torch than this one."""
    try:
        made = json.loads(metadata["certificate"])["runtime"].split(",")[0]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    here = f"torch {torch.__version__}"
    return "" if made == here else f"It was made with {made}, and this is {here}, which may be the reason. "


def _machine_code(path: Path, content: bytes, hint: str) -> Callable[[Tensor], Any]:
    from torch._inductor import aoti_load_package

    # It reads files alone, and unpacks them into a folder of its own.
    with damage_named(path, hint), tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "program.pt2"
        copy.write_bytes(content)
        return aoti_load_package(str(copy))


def _require_like_machine(path: Path, on: torch.device, made_for: str) -> None:
    """Check that this machine can run code, which would else end the process.

    Raises:
        ConfigError: it is for processors, and a GPU was chosen.
        WeightsError: the processor does not have the instructions.
    """
    if on.type != "cpu":
        raise ConfigError(f"{path} is machine code for processors. Take --device cpu, or export it without --compile.")
    here = processor()
    known = made_for in INSTRUCTIONS and here in INSTRUCTIONS
    if made_for != here and not (known and INSTRUCTIONS.index(made_for) <= INSTRUCTIONS.index(here)):
        raise WeightsError(
            f"{path} is machine code for processors with {made_for}, and this one has {here}. Export the run with "
            "--compile on a machine like this one, or without --compile."
        )
