"""What a job does: a picture of the scene for the page, the map, the parcels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pixelwise.parcels.polygonize import polygonize
from pixelwise.serve.job import Job, listed_classes, made_files, save_job
from pixelwise.serve.preview import make_preview
from pixelwise.serve.shelf import Shelf
from pixelwise.serve.warned import notes_kept

PICTURE, MAP = 0.02, 0.9
"""Where these stages end, as shares of a job that also draws parcels."""


class JobStoppedError(Exception):
    """A job that was cancelled, or whose server ends."""


@runtime_checkable
class Step(Protocol):
    """Notes something of a job."""

    def __call__(self, job: Job, **changes: Any) -> None:
        """Set attributes of a job."""
        ...


def make(job: Job, scene: Path, folder: Path, shelf: Shelf, step: Step, check: Callable[[], None]) -> None:
    """Do what is left to do of a job.

    Args:
        step: notes how far it is.
        check: raises `JobStoppedError`.

    Raises:
        PixelwiseError, Refusal: it cannot be done.
    """
    model = shelf.find(job.wish.model, job.wish.version)
    predictor, wish, files = model.predictor, job.wish, made_files(folder)
    draws = wish.parcels and job.georeferenced
    end = MAP if draws else 1.0

    def advance(share: float) -> None:
        check()
        step(job, progress=PICTURE + share * (end - PICTURE))

    def draw(stage: str, share: float) -> None:
        check()
        step(job, stage=stage, progress=max(job.progress, end + share * (1 - end) / 2))

    card = predictor.card
    step(job, stage="Reading the scene", classes=listed_classes(card.classes), bands=list(card.bands))
    stretch = make_preview(scene, folder, card.bands, advance=lambda share: check())
    step(job, stretch=stretch, stage="Mapping", progress=PICTURE)
    notes: list[str] = []
    if job.shares is None or not files["map"].is_file():
        with notes_kept() as notes:
            made = predictor.map_scene(
                scene,
                files["map"],
                units=wish.units,
                confidence=wish.confidence,
                cog=True,
                advance=advance,
                say=notes.append,
            )
        step(job, shares=made.shares, notes=list(dict.fromkeys([*job.notes, *notes])))
        save_job(folder, job)
    if draws:
        names = card.classes.names
        drawn = polygonize(
            files["map"],
            files["parcels"],
            minimum_area=wish.minimum_area,
            simplify=wish.simplify,
            instances=instances_of(names),
            classes=parcel_classes(names),
            advance=draw,
        )
        step(job, parcel_count=drawn.parcels)
    elif wish.parcels:
        step(job, notes=[*job.notes, "The scene has no place on the ground, so no parcels are drawn."])


def instances_of(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the classes inside fields and along their boundaries, by their names; None if there are no such."""
    others = [name for name in names if name not in ("background", "boundary")]
    return (others[0], "boundary") if "boundary" in names and len(others) == 1 else None


def parcel_classes(names: Sequence[str]) -> list[str] | None:
    """Return the classes whose parcels are drawn: all but the background; where boundaries are one, what is inside."""
    instances = instances_of(names)
    if instances is not None:
        return [instances[0]]
    return [name for name in names if name != "background"] or None
