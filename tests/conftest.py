"""Shapes in signatures are checked in every test."""

import jaxtyping
import torch
from hypothesis import settings

# An int where a float is annotated is no mistake (PEP 484).
checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook("pixelwise", checker)

torch.set_num_threads(1)
settings.register_profile("pixelwise", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("pixelwise")
