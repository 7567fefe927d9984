"""One job: a scene that becomes a map, and what is on disk of it.

The folder of a job holds ``job.json``, the scene if it was sent, and what is made of it. A job is on disk before it is
promised to anybody, so a server that was killed finds it again, and the map's own journal has its finished pieces.
"""

import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.files import replacing
from pixelwise.geo.label_map import confidence_path
from pixelwise.labels import Classes, make_classes

RECORD = "job.json"
NUMBER = re.compile("[0-9a-f]{16}")
"""Of a job: nobody guesses it, and it leads nowhere."""
FILES = {"map": "map.tif", "confidence": "confidence.tif", "parcels": "parcels.gpkg"}
"""What a job makes -> its name in addresses."""
OPEN_STATES, CLOSED_STATES = ("waiting", "running"), ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Wish:
    """What a client asked for."""

    model: str
    version: str
    scene: str
    """The file's own name, for people."""
    sent: str | None
    """Name in the job's folder of a scene that was sent."""
    path: str | None
    """Of a scene below a folder that the operator allowed, relative to it."""
    parcels: bool = True
    confidence: bool = True
    minimum_area: float = 0.0
    """In square metres, of parcels."""
    simplify: float = 0.0
    """In metres, of outlines."""
    units: str = "refuse"


@dataclass
class Job:
    """A job as it stands."""

    id: str
    wish: Wish
    width: int
    height: int
    georeferenced: bool
    state: str = "waiting"
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    created: float = 0.0
    """Seconds since 1970."""
    classes: list[dict[str, str]] = field(default_factory=list)
    """Name and colour of each class of the map, whatever model is served later."""
    bands: list[int] = field(default_factory=list)
    """Of the scene, that the model takes."""
    shares: dict[str, float] | None = None
    """Class -> share of the pixels; known once the map is made."""
    parcel_count: int | None = None
    stretch: list[list[float]] | None = None
    """Of each band that is shown, the values that are black and white; None: 8-bit values as they are."""
    progress: float = 0.0
    stage: str = ""
    began: float | None = None
    """When this server began with it, by its own clock; and at which progress."""
    began_at: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long it will still take, by what was done so far."""
        if self.state != "running" or self.began is None or self.progress <= self.began_at:
            return None
        passed = time.monotonic() - self.began
        return passed / (self.progress - self.began_at) * (1 - self.progress)


PASSING = ("progress", "stage", "began", "began_at")
"""What is not kept on disk."""


def save_job(folder: Path, job: Job) -> None:
    """Write a job's record."""
    table = {key: value for key, value in asdict(job).items() if key not in PASSING}
    with replacing(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(table, indent=1), encoding="utf-8")


def read_job(folder: Path) -> Job:
    """Read a job's record.

    Raises:
        ValueError, KeyError, TypeError, OSError: there is none, or a damaged one.
    """
    table = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    job = Job(**{**table, "wish": Wish(**table["wish"])})
    if job.id != folder.name or job.state not in (*OPEN_STATES, *CLOSED_STATES):
        raise ValueError("the record is of another job")
    return job


def made_files(folder: Path) -> dict[str, Path]:
    """Return where a job's results are, or will be."""
    map_path = folder / "map.tif"
    return {"map": map_path, "confidence": confidence_path(map_path), "parcels": folder / "parcels.gpkg"}


def listed_classes(classes: Classes) -> list[dict[str, str]]:
    """Return name and colour of each class, as clients are told."""
    return [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*colour)}
        for name, colour in zip(classes.names, classes.palette, strict=True)
    ]


def classes_of(job: Job) -> Classes:
    """Return the classes of a job's map."""
    return make_classes([each["name"] for each in job.classes], [each["color"] for each in job.classes])


def shown_job(job: Job, folder: Path) -> dict[str, Any]:
    """Return what a client is told of a job."""
    there = {name: f"/jobs/{job.id}/files/{FILES[name]}" for name, path in made_files(folder).items() if path.is_file()}
    shares = job.shares or {}
    left = job.seconds_left
    return {
        "id": job.id,
        "state": job.state,
        "stage": job.stage,
        "progress": round(job.progress, 4),
        "seconds_left": None if left is None else round(left, 1),
        "error": job.error,
        "notes": job.notes,
        "created": job.created,
        "model": job.wish.model,
        "version": job.wish.version,
        "scene": job.wish.scene,
        "width": job.width,
        "height": job.height,
        "georeferenced": job.georeferenced,
        "classes": [{**each, "share": shares.get(each["name"])} for each in job.classes],
        "parcel_count": job.parcel_count,
        "files": there if job.state == "done" else {},
    }
