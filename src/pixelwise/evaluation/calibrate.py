"""A run's best model gets the temperature that its validation part asks for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.config import PredictConfig
from pixelwise.data.scenes import Scene
from pixelwise.data.split import open_split
from pixelwise.device import choose_device
from pixelwise.errors import ConfigError
from pixelwise.evaluation.calibration import FITTED_ON, Fit, fit_temperature
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.evaluation.pixel_sample import PixelSample
from pixelwise.fast.fuse import fuse
from pixelwise.files import locked_folder
from pixelwise.runs.model_folder import load_model, replace_card
from pixelwise.runs.run_folder import open_finished_run


def calibrate(run: str | Path, *, report: Callable[[str], None] | None = None) -> Fit:
    """Fit the temperature of a run's best model to its validation part, and keep it with the model.

    No class of any pixel changes, only confidence and probabilities do.

    Args:
        run: the run's folder.
        report: called with sentences on what was found.

    Raises:
        ConfigError: no such run, no validation part, or another process works on the run.
        WeightsError: the run has no model yet.
    """
    kept, settings = open_finished_run(run)
    scenes = open_split(settings, kept=kept.split)[1].validation
    if not scenes:
        raise ConfigError(
            f"{kept.folder} kept no scenes for validation, and a temperature that was fitted to what the network "
            "learned from would say nothing. Train with a validation part.",
            code="PW613",
        )
    with locked_folder(kept.folder, work=f"is at work in {kept.folder}", instead="another moment"):
        return calibrate_model(kept.folder, scenes, settings.predict, report=report)


def calibrate_model(
    folder: Path,
    scenes: Sequence[Scene],
    settings: PredictConfig,
    *,
    device: str = "auto",
    report: Callable[[str], None] | None = None,
) -> Fit:
    """Fit the temperature of a run's best model to scenes, and keep it with the model.

    Args:
        folder: of the run; no other process may be at work there.
        settings: how scenes are predicted.
        device: as `choose_device` takes it.
    """
    model, card, _ = load_model(folder)
    model = model.to(choose_device(device))
    sample = PixelSample(len(card.classes))
    evaluate_scenes(fuse(model), scenes, card, settings, sample=sample)
    fit = fit_temperature(sample.pixels())
    drawn = f"{fit.pixels:,} of {fit.labelled:,} labelled pixels of the validation part"
    told = f"{drawn}, with {fit.classes} of {len(card.classes)} classes"
    fitted = {FITTED_ON: " ".join([f"{told}.", *fit.notes])} if fit.pixels else {}
    others = {key: value for key, value in card.provenance.items() if key != FITTED_ON}
    replace_card(folder, replace(card, temperature=fit.temperature, provenance={**others, **fitted}))
    if report:
        report(" ".join([f"Calibrated: temperature {fit.temperature:.3f}, from {told}.", *fit.notes]))
    return fit
