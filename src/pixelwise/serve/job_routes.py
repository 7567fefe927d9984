"""Jobs: scenes that become maps, looked at while they lie on disk."""

import asyncio
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse

from pixelwise.geo.raster import RasterInfo, describe
from pixelwise.inference.fitting import open_fitting
from pixelwise.inference.options import Fit
from pixelwise.serve.answer import named, safe_suffix
from pixelwise.serve.job import FILES, Job, Wish, classes_of, made_files
from pixelwise.serve.refusals import Refusal, too_large
from pixelwise.serve.scenes import found_scene, listed_scenes
from pixelwise.serve.service import Service, service_of
from pixelwise.serve.shelf import ServedModel
from pixelwise.serve.views import confidence_tile_png, map_tile_png, parcels_in, pixel_at, scene_tile_png
from pixelwise.serve.workers import Patience

router = APIRouter()

Layer = Literal["scene", "map", "confidence"]
Units = Literal["refuse", "convert"]
MOST_PARCELS = 2000
"""That are sent at once."""
KINDS = {"map": "image/tiff", "confidence": "image/tiff", "parcels": "application/geopackage+sqlite3"}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}, 204: {"description": "Beyond the scene"}}


@router.get("/scenes", summary="Scenes that a job can name")
async def scenes(request: Request) -> list[dict[str, Any]]:
    """List the files below the folders that the operator allowed."""
    service = service_of(request)
    return await service.views.run(lambda: listed_scenes(service.options.folders.scenes), Patience(60))


@router.post("/jobs", status_code=202, summary="Map a scene")
async def create(
    request: Request,
    scene: Annotated[UploadFile | None, File(description="a GeoTIFF, or another raster")] = None,
    path: Annotated[str, Form(description="instead: a file below a folder that the operator allowed")] = "",
    model: Annotated[str, Form(description="a name; needed where several are served")] = "",
    version: Annotated[str, Form(description="default: the last")] = "",
    parcels: Annotated[bool, Form(description="draw parcels too")] = True,
    confidence: Annotated[bool, Form(description="keep the confidence too")] = True,
    minimum_area: Annotated[float, Form(ge=0, le=1e12, description="m²; smaller parcels join a neighbour")] = 0.0,
    simplify: Annotated[float, Form(ge=0, le=1e6, description="metres by which outlines may change")] = 0.0,
    units: Annotated[Units, Form(description="a scene in other units")] = "refuse",
) -> JSONResponse:
    """Take a scene of any size, and answer at once with the job that maps it.

    A job outlives the server: it goes on after a restart, with the pieces that were finished.
    """
    service = service_of(request)
    served = service.shelf.find(model, version)
    if (scene is None) == (not path):
        raise Refusal(422, "wrong_value", "A job takes a scene that is sent, or a path.", "Give one of the two.")
    options = {"minimum_area": minimum_area, "simplify": simplify, "units": units}
    named = {"model": served.name, "version": served.version, "parcels": parcels, "confidence": confidence}
    patience = Patience(3600)

    def work() -> Job:
        with service.jobs.incoming() as incoming:
            if scene is None:
                source, sent, shown = found_scene(service.options.folders.scenes, path), None, Path(path).name
            else:
                shown = Path((scene.filename or "scene").replace("\\", "/")).name[:200] or "scene"
                sent = f"scene{safe_suffix(shown)}"
                source = incoming / sent
                with source.open("wb") as out:
                    shutil.copyfileobj(scene.file, out, 1 << 20)
            wish = Wish(scene=shown, sent=sent, path=path or None, **named, **options)
            info = _accepted(service, served, source, shown, units)
            return service.jobs.add(incoming, wish, info, served.card)

    job = await service.views.run(work, patience)
    return JSONResponse(service.jobs.shown(job), 202, headers={"Location": f"/jobs/{job.id}"})


def _accepted(service: Service, served: ServedModel, source: Path, name: str, units: str) -> RasterInfo:
    """Return the header of a scene that the model takes, so that a mistake is told before the job is promised."""
    with named(source, name):
        info, most = describe(source), service.options.limits.scene_pixels
        if info.width * info.height > most:
            raise too_large(f"The scene has {info.width}x{info.height} pixels", f"{most:,}", "Send it in parts.")
        open_fitting(source, served.card, Fit(units))
    return info


@router.get("/jobs", summary="All jobs")
async def listed(request: Request) -> list[dict[str, Any]]:
    """List all jobs, the newest first."""
    jobs = service_of(request).jobs
    return [jobs.shown(job) for job in jobs.all()]


@router.get("/jobs/{number}", summary="One job")
async def one(request: Request, number: str) -> dict[str, Any]:
    """Tell how far a job is."""
    jobs = service_of(request).jobs
    return jobs.shown(jobs.find(number))


@router.delete("/jobs/{number}", summary="Cancel a job, or remove it")
async def removed(request: Request, number: str) -> Response:
    """Cancel a job that waits or runs (202, and the job); of another one, remove all files (204)."""
    jobs = service_of(request).jobs
    job = await asyncio.to_thread(jobs.remove, number)
    return Response(status_code=204) if job is None else JSONResponse(jobs.shown(job), 202)


@router.get("/jobs/{number}/files/{name}", summary="A result", response_class=FileResponse)
async def result(request: Request, number: str, name: Literal["map.tif", "confidence.tif", "parcels.gpkg"]) -> Response:
    """Send a file. Parts of it are sent too (Range), so a GIS can read a map over HTTP."""
    job, folder = _finished(request, number)
    kind = next(kind for kind, shown in FILES.items() if shown == name)
    path = made_files(folder)[kind]
    if not path.is_file():
        raise Refusal(404, "no_file", f"This job has no {name}.", "GET /jobs/ID lists what it has.")
    stem = Path(job.wish.scene).stem
    return FileResponse(path, media_type=KINDS[kind], filename=f"{stem}.{name}")


@router.get("/jobs/{number}/tiles/{layer}/{z}/{x}/{y}.png", summary="A tile", response_class=Response, responses=PNG)
async def tile(request: Request, number: str, layer: Layer, z: int, x: int, y: int) -> Response:
    """Send 256 x 256 pixels of the scene, its map or its confidence.

    At z = 0 the whole is in one tile, and each further z doubles it, up to the scene's own pixels.
    """
    service = service_of(request)
    job = service.jobs.find(number)
    folder = service.jobs.folder_of(job)
    if layer != "scene":
        _finished(request, number)

    def work() -> bytes | None:
        if layer == "scene":
            return scene_tile_png(service.jobs.scene_of(job), folder, job.bands, job.stretch, z, x, y)
        if layer == "map":
            return map_tile_png(made_files(folder)["map"], classes_of(job), z, x, y)
        return confidence_tile_png(made_files(folder)["confidence"], z, x, y)

    content = await service.views.run(work, Patience(service.options.limits.seconds), request.receive)
    if content is None:
        return Response(status_code=204)
    headers = {"Cache-Control": "private, max-age=3600"} if job.state == "done" else {}
    return Response(content, media_type="image/png", headers=headers)


@router.get("/jobs/{number}/pixel", summary="One pixel")
async def pixel(request: Request, number: str, x: int, y: int) -> dict[str, Any]:
    """Tell the class and the confidence of a pixel, counted from the upper left corner."""
    service = service_of(request)
    job, folder = _finished(request, number)
    return await service.views.run(lambda: pixel_at(made_files(folder), classes_of(job), x, y), Patience(60))


@router.get("/jobs/{number}/parcels", summary="Parcels in a rectangle")
async def parcels(
    request: Request,
    number: str,
    bbox: Annotated[str, Query(description="x0,y0,x1,y1 in pixels; default: all")] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_PARCELS)] = MOST_PARCELS,
) -> JSONResponse:
    """Send parcels with their attributes as GeoJSON, in pixels of the scene; `truncated` says if there are more."""
    service = service_of(request)
    job, folder = _finished(request, number)
    path = made_files(folder)["parcels"]
    if not path.is_file():
        raise Refusal(404, "no_file", "This job has no parcels.", "Start one with parcels = true.")
    box = _box(bbox, job)
    map_path = made_files(folder)["map"]
    found = await service.views.run(lambda: parcels_in(path, map_path, box, limit), Patience(60))
    return JSONResponse(found, media_type="application/geo+json")


def _box(text: str, job: Job) -> tuple[float, float, float, float]:
    if not text:
        return (0.0, 0.0, float(job.width), float(job.height))
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise Refusal(422, "wrong_value", f"bbox is {text[:100]!r}.", "Give four numbers: x0,y0,x1,y1.") from None
    if not (-1e9 < x0 < x1 < 1e9 and -1e9 < y0 < y1 < 1e9):
        raise Refusal(422, "wrong_value", f"bbox is {text[:100]!r}.", "Let x0 be below x1, and y0 below y1.")
    return (x0, y0, x1, y1)


def _finished(request: Request, number: str) -> tuple[Job, Path]:
    jobs = service_of(request).jobs
    job = jobs.find(number)
    if job.state != "done":
        raise Refusal(409, "not_done", f"This job is {job.state}.", "Wait until its state is 'done'.")
    return job, jobs.folder_of(job)
