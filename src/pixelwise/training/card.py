"""The card of a run's models: what they take and give, and where they come from."""

from datetime import date

from pixelwise import __version__
from pixelwise.config import Config, as_places
from pixelwise.data.contract import contract_of
from pixelwise.errors import ConfigError
from pixelwise.geo.colours import ColourReader
from pixelwise.hub.licences import Origin, origins_from
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard
from pixelwise.runs.run_folder import Run
from pixelwise.training.first_weights import FirstWeights
from pixelwise.training.training_data import TrainingData


def first_origins(start: FirstWeights | None, state: dict | None, run: Run) -> tuple[Origin, ...] | None:
    """Return what the model descends from; of a run that goes on, as its state says.

    Returns:
        None for a run of an early version, which did not keep it.

    Raises:
        ConfigError: a damaged state.
    """
    if state is None:
        return () if start is None else start.origins
    try:
        return origins_from(state["origins"]) if "origins" in state else None
    except ValueError as error:
        raise ConfigError(
            f"{run.folder / 'last'} holds a damaged state ({error}). Restore it from a copy.", code="PW605"
        ) from None


def model_card(config: Config, data: TrainingData, model: Segmenter, origins: tuple[Origin, ...] | None) -> ModelCard:
    """Return the card of the models that a run keeps."""
    scene, without = data.training[0], config.data.unlabelled
    return ModelCard(
        architecture=model.architecture,
        classes=data.classes,
        bands=scene.reader.bands,
        dtype=scene.info.dtype,
        mean=data.mean,
        std=data.std,
        nodata=config.data.nodata,
        file_bands=len(scene.info.data_bands(scene.reader.bands)),
        grey_too=any(isinstance(each.reader, ColourReader) and each.reader.grey for each in data.training),
        contract=contract_of(data.training),
        tile=config.predict.tile,
        overlap=config.predict.overlap,
        provenance={
            "pixelwise": __version__,
            "images": ", ".join(place.name for place in as_places(config.data.images)),
            "labels": ", ".join(place.name for place in config.data.label_places),
            "date": date.today().isoformat(),
            **({} if config.train.teacher is None else {"teacher": config.train.teacher.name}),
            **({} if without is None else {"unlabelled": ", ".join(place.name for place in as_places(without))}),
        },
        origins=origins,
    )
