"""Shapes in signatures are checked in every test."""

import jaxtyping

jaxtyping.install_import_hook("pixelwise", "beartype.beartype")

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("pixelwise", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("pixelwise")
