"""Shapes in signatures are checked in every test."""

import torch
from checked_types import check_types
from hypothesis import settings

check_types()
torch.set_num_threads(1)
settings.register_profile("pixelwise", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("pixelwise")
