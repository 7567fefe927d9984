"""A program of torch.export, for C++ and for servers that have torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from pixelwise.exported.options import ExportOptions


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
    with torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=(axes,), strict=False)


def save_torch_program(
    program: torch.export.ExportedProgram,
    path: Path,
    metadata: Mapping[str, str],
    *,
    names: Sequence[str],
    shape: Sequence[int | None],
) -> None:
    """Write a program with its metadata.

    Args:
        names: of its outputs.
        shape: of the image; None where any size will do.
    """
    told = {"texts": dict(metadata), "names": list(names), "shape": list(shape)}
    torch.export.save(program, path, extra_files={"metadata": json.dumps(told)})
