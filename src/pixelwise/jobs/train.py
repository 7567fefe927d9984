"""Moved to `pixelwise.training.train` and `pixelwise.data.split`."""

from pixelwise.data.split import open_parts
from pixelwise.training.train import train

__all__ = ["open_parts", "train"]
