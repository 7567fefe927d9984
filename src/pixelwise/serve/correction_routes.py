"""Labels that people corrected, kept so that a training takes them."""

from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse

from pixelwise.serve.answer import safe_suffix
from pixelwise.serve.corrections import Correction, listed, save_file, save_window, trains
from pixelwise.serve.job import Job
from pixelwise.serve.refusals import Refusal
from pixelwise.serve.service import Service, service_of
from pixelwise.serve.shelf import ServedModel
from pixelwise.serve.workers import Patience

router = APIRouter()

LARGEST = 65536
"""Side of a part of a scene."""


@router.post("/corrections", status_code=201, summary="Keep corrected labels")
async def create(
    request: Request,
    mask: Annotated[UploadFile, File(description="palette or grey PNG of class numbers; 255: not corrected")],
    model: Annotated[str, Form(description="a name; needed where several are served")] = "",
    image: Annotated[UploadFile | None, File(description="the image that was corrected")] = None,
    job: Annotated[str, Form(description="instead: a job, with x, y, width and height of a part of its scene")] = "",
    x: Annotated[int, Form(ge=0, lt=2**31)] = 0,
    y: Annotated[int, Form(ge=0, lt=2**31)] = 0,
    width: Annotated[int, Form(ge=0, le=LARGEST)] = 0,
    height: Annotated[int, Form(ge=0, le=LARGEST)] = 0,
) -> JSONResponse:
    """Save an image and its corrected mask in the operator's folder, in the form that `pixelwise train` takes.

    Beside them lies a configuration that goes on from the model that was served.
    """
    service = service_of(request)
    folder = service.options.folders.corrections
    if folder is None:
        fix = "Start the server with --corrections FOLDER."
        raise Refusal(403, "no_corrections", "The operator keeps no corrections.", fix)
    if (image is None) == (not job):
        raise Refusal(422, "wrong_value", "A correction has an image, or a job.", "Give one of the two.")
    found = service.jobs.find(job) if job else None
    served = service.shelf.find(model or (found.wish.model if found else ""))
    patience = Patience(service.options.limits.seconds)

    def work() -> dict[str, Any]:
        made = save()
        kept = [each for each in listed(folder) if each.model == made.model]
        return {**made.shown(), "count": len(kept), "notes": _notes(served, kept)}

    def save() -> Correction:
        corrected = mask.file.read()
        limits = service.options.limits
        if image is not None:
            suffix = safe_suffix(image.filename or "") or ".png"
            return save_file(folder, served, image.file, suffix, corrected, limits)
        assert found is not None
        window = (y, x, height, width)
        return save_window(folder, served, service.jobs.scene_of(found), _within(found, window), corrected, limits)

    return JSONResponse(await service.views.run(work, patience), 201)


def _notes(model: ServedModel, kept: list[Correction]) -> list[str]:
    """Return what stands against a training on corrections."""
    notes = []
    if not trains(model):
        notes.append("An exported file cannot be trained further: the training begins with a fresh network.")
    if len(found := {name for each in kept for name in each.classes}) == 1:
        notes.append(f"All corrections are of the class {found.pop()}. A training needs two: correct another one too.")
    return notes


def _within(job: Job, window: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    top, left, height, width = window
    if not (height and width and top + height <= job.height and left + width <= job.width):
        said = f"x = {left}, y = {top}, width = {width}, height = {height}"
        raise Refusal(422, "wrong_value", f"{said} is no part of the scene.", f"It is {job.width}x{job.height} pixels.")
    return window


@router.get("/corrections", summary="What was corrected")
async def kept(request: Request) -> list[dict[str, Any]]:
    """List the corrections, the newest first."""
    service: Service = service_of(request)
    folder = service.options.folders.corrections
    if folder is None:
        return []
    return await service.views.run(lambda: [each.shown() for each in listed(folder)], Patience(60))
