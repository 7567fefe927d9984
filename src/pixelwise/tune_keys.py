"""Keys of [tune]: what `pixelwise tune` tries, and how long."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pixelwise.config_table import ConfigTable


class TuneConfig(ConfigTable):
    """A search for better values of other keys. Training takes no notice of it."""

    trials: int = Field(default=20, ge=1, description="trials of the search in all")
    minutes: float | None = Field(default=None, gt=0, description="no trial begins after so many minutes of a start")
    pruner: Literal["median", "hyperband", "none"] = Field(
        default="median",
        description="ends trials early: those below the median at the same step, or by Hyperband's rule",
    )
    seed: int = Field(default=0, ge=0, description="of what is tried; each trial trains with [train].seed")
    folder: Path | None = Field(default=None, description="the search's folder; default: runs/NAME-tune")
    space: dict[str, Any] = Field(
        default={},
        description='what is tried, by key: "train.learning_rate" = {low = 1e-4, high = 3e-3, log = true}, '
        '"model.name" = ["unet", "segformer-b0"]',
    )
