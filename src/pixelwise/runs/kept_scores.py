"""Check the contents of ``metrics.json``: what an evaluation keeps, as `Evaluation.to_dict` gives it."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 62)]


class _ClassScores(BaseModel):
    model_config = ConfigDict(extra="allow")

    IoU: float | None = None
    precision: float | None = None
    recall: float | None = None
    F1: float | None = None
    pixels: _Count = 0


class _Bins(BaseModel):
    pixels: list[_Count]
    confidence: list[float | None]
    accuracy: list[float | None]


class _CalibrationScores(BaseModel):
    temperature: float
    ece: float | None
    adaptive_ece: float | None
    nll: float | None
    brier: float | None
    aurc: float | None
    bins: _Bins
    risk: list[float]


class _Calibration(BaseModel):
    before: _CalibrationScores
    after: _CalibrationScores
    pixels: _Count
    labelled: _Count
    fitted_on: str
    fitted_here: bool


class _Scores(BaseModel):
    model_config = ConfigDict(extra="allow")

    mIoU: float | None = None  # noqa: N815 - a key of the file
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    frequency_weighted_IoU: float | None = None  # noqa: N815 - a key of the file
    kappa: float | None = None
    pixels: _Count = 0
    absent: list[str] = []
    classes: dict[str, _ClassScores]
    confusion: list[list[_Count]]
    scenes: dict[str, float | None] = {}
    learned: list[str] = []
    calibration: _Calibration | None = None
    about: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_row_for_each_class(self) -> "_Scores":
        if any(len(row) != len(self.classes) for row in self.confusion) or len(self.confusion) != len(self.classes):
            raise ValueError("the confusion matrix has another size than the list of classes")
        return self


_FILE = TypeAdapter(dict[str, _Scores])


def scores_from(text: str) -> dict:
    """Read the scores of a run's evaluations: name -> scores.

    Raises:
        ValueError: it holds something else; the message says where.
    """
    found = json.loads(text)
    try:
        _FILE.validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    return found
