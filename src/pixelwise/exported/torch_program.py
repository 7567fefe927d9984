"""A program of torch.export, opened: the one kind of exported file that needs torch."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped

from pixelwise.device import choose_device
from pixelwise.exported.runtimes import Arrays, Files, damage_named


class TorchProgram:
    """A program of torch.export."""

    def __init__(self, path: Path, device: str = "auto", files: Files | None = None) -> None:
        self.path, self.device, self.files = path, device, files or Files((path,))
        extra = {"metadata": ""}
        with damage_named(path):
            program = torch.export.load(io.BytesIO(self.files.read()[0]), extra_files=extra)
            told = json.loads(extra["metadata"] or "{}")
        self.metadata: Mapping[str, str] = told.get("texts", {})
        self.names, self.shape = told.get("names", ["logits"]), tuple(told.get("shape", (None,) * 4))
        self.on, self.version = choose_device(device), f"torch {torch.__version__}"
        # Guards hold for shortcuts of memory that the example allowed; what it computes holds for other sizes, which
        # the certificate has checked.
        self.program = program.module(check_guards=False).to(self.on)

    def run(self, image: Shaped[np.ndarray, "B _ _ _"]) -> Arrays:
        """Return all outputs by name."""
        with torch.no_grad():
            found = self.program(torch.from_numpy(image).to(self.on))
        return {name: array.cpu().numpy() for name, array in zip(self.names, found, strict=True)}

    def __reduce__(self) -> tuple:
        return TorchProgram, (self.path, self.device, self.files)
