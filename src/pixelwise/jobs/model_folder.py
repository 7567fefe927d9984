"""Moved to `pixelwise.runs.model_folder`."""

from pixelwise.runs.model_folder import ModelCard, load_model, save_model

__all__ = ["ModelCard", "load_model", "save_model"]
