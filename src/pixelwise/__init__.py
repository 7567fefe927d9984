"""A class for every pixel: train, evaluate, map and draw parcels.

Names are imported on first use, so that `import pixelwise` costs next to nothing; torch comes with the first network.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelwise.config import Config, load_config
    from pixelwise.errors import (
        ConfigError,
        DataError,
        MissingExtraError,
        PixelwiseError,
        TrainingStopped,
        WeightsError,
    )
    from pixelwise.evaluation.calibrate import calibrate
    from pixelwise.evaluation.evaluate import evaluate
    from pixelwise.exporting.export import export
    from pixelwise.fast.fuse import fuse
    from pixelwise.models import create, list_models
    from pixelwise.models.cost import cost
    from pixelwise.models.prune import prune
    from pixelwise.parcels.polygonize import polygonize
    from pixelwise.parcels.scores import score_parcels
    from pixelwise.predictor import load
    from pixelwise.profiling.measure import profile
    from pixelwise.training.events import StopTraining
    from pixelwise.training.train import train
    from pixelwise.tuning.tune import tune
    from pixelwise.weights import load_weights, save_weights

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "MissingExtraError",
    "PixelwiseError",
    "StopTraining",
    "TrainingStopped",
    "WeightsError",
    "calibrate",
    "cost",
    "create",
    "evaluate",
    "export",
    "fuse",
    "list_models",
    "load",
    "load_config",
    "load_weights",
    "polygonize",
    "profile",
    "prune",
    "save_weights",
    "score_parcels",
    "train",
    "tune",
]

_HOMES = {
    "Config": "pixelwise.config",
    "ConfigError": "pixelwise.errors",
    "DataError": "pixelwise.errors",
    "MissingExtraError": "pixelwise.errors",
    "PixelwiseError": "pixelwise.errors",
    "StopTraining": "pixelwise.training.events",
    "TrainingStopped": "pixelwise.errors",
    "WeightsError": "pixelwise.errors",
    "calibrate": "pixelwise.evaluation.calibrate",
    "cost": "pixelwise.models.cost",
    "create": "pixelwise.models",
    "evaluate": "pixelwise.evaluation.evaluate",
    "export": "pixelwise.exporting.export",
    "fuse": "pixelwise.fast.fuse",
    "list_models": "pixelwise.models",
    "load": "pixelwise.predictor",
    "load_config": "pixelwise.config",
    "load_weights": "pixelwise.weights",
    "polygonize": "pixelwise.parcels.polygonize",
    "profile": "pixelwise.profiling.measure",
    "prune": "pixelwise.models.prune",
    "save_weights": "pixelwise.weights",
    "score_parcels": "pixelwise.parcels.scores",
    "train": "pixelwise.training.train",
    "tune": "pixelwise.tuning.tune",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelwise' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from pixelwise.optional import torch_missing

        raise torch_missing(error, f"pixelwise.{name}") or error from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
