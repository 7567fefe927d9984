"""A program of torch.export, for C++ and for servers that have torch; compiled by AOTInductor, if that is asked for."""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.exported.options import ExportOptions
from pixelwise.exported.torch_program import MADE_FOR, METADATA, own_warnings_ignored, processor


def torch_program(
    network: nn.Module, example: Shaped[Tensor, "B _ _ _"], options: ExportOptions
) -> torch.export.ExportedProgram:
    """Return a network as torch.export records it.

    Args:
        example: an image of at least 2 in its batch; height and width are the example's own, if the options have a
            size.
    """
    any_size = torch.export.Dim.DYNAMIC
    rows, columns = (2, 3) if options.layout == "nchw" else (1, 2)
    axes = {0: any_size} if options.size is not None else {0: any_size, rows: any_size, columns: any_size}
    with torch.no_grad(), own_warnings_ignored():
        return torch.export.export(network, (example,), dynamic_shapes=(axes,), strict=False)


def machine_code(program: torch.export.ExportedProgram) -> bytes:
    """Return a package of machine code for this processor, which needs no Python: C++ loads it too.

    Raises:
        ConfigError: this machine has no compiler that works.
    """
    try:
        from torch._inductor import aoti_compile_and_package

        with tempfile.TemporaryDirectory() as folder, own_warnings_ignored():
            path = Path(folder) / "program.pt2"
            # The number of threads is that of the process that runs it.
            aoti_compile_and_package(program, package_path=str(path), inductor_configs={"cpp.dynamic_threads": True})
            return path.read_bytes()
    except Exception as error:  # of torch's compiler and the system's
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"The network could not be compiled ({reason[:200].rstrip('.')}). That needs a compiler that works here "
            "(g++ or clang++). Install one, or export without --compile."
        ) from None


def save_torch_program(
    program: torch.export.ExportedProgram | bytes,
    path: Path,
    metadata: Mapping[str, str],
    *,
    names: Sequence[str],
    shape: Sequence[int | None],
) -> None:
    """Write a program with its metadata.

    Args:
        program: or what `machine_code` made of it.
        names: of its outputs.
        shape: of the image; None where any size will do.
    """
    told = {"texts": dict(metadata), "names": list(names), "shape": list(shape)}
    if not isinstance(program, bytes):
        # On a full disk torch would end the process.
        content = io.BytesIO()
        with own_warnings_ignored():
            torch.export.save(program, content, extra_files={"metadata": json.dumps(told)})
        path.write_bytes(content.getvalue())
        return
    path.write_bytes(program)
    with ZipFile(path, "a") as file:
        # Where torch.export.save has it.
        top = file.namelist()[0].partition("/")[0]
        file.writestr(f"{top}/{METADATA}", json.dumps({**told, MADE_FOR: processor()}))
