"""What people and pages ask for: the models, and the classes of an image that they send."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse

from pixelwise.serve.answer import (
    Answer,
    Sent,
    base64_of,
    class_shares,
    confidence_png,
    labels_png,
    outlines,
    overlay_png,
    received,
    segment_file,
)
from pixelwise.serve.refusals import Refusal
from pixelwise.serve.service import Service, service_of
from pixelwise.serve.shelf import ServedModel
from pixelwise.serve.workers import Patience

router = APIRouter()

Output = Literal["json", "labels", "overlay", "confidence", "geojson"]
PICTURES = ("labels", "confidence", "overlay")
"""What JSON can hold besides."""
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON, GeoJSON, or a PNG",
        "content": {"application/json": {}, "image/png": {}, "application/geo+json": {}},
    },
    413: {"description": "The image is above a limit"},
    422: {"description": "No image, or one that the model does not take"},
    503: {"description": "Too many requests wait; Retry-After says how long"},
}


@router.get("/models", summary="The models that are served")
async def models(request: Request) -> list[dict[str, Any]]:
    """List name, version, classes and runtime of each model."""
    return [model.described() for model in service_of(request).shelf]


@router.get("/settings", summary="What the operator offers")
async def settings(request: Request) -> dict[str, Any]:
    """Say whether corrections are kept and scenes can be named, and what an image may take."""
    options = service_of(request).options
    return {
        "corrections": options.folders.corrections is not None,
        "scenes": bool(options.folders.scenes),
        "max_bytes": options.limits.body,
        "max_scene_bytes": options.limits.scene,
        "max_pixels": options.limits.pixels,
    }


@router.post("/segment", summary="Classes of an image", responses=ANSWERS, response_class=Response)
async def segment(
    request: Request,
    image: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, WebP ..., in the units of the training images")],
    model: Annotated[str, Form(description="a name; needed where several are served")] = "",
    version: Annotated[str, Form(description="default: the last")] = "",
    output: Annotated[Output, Form(description="what comes back")] = "json",
    include: Annotated[str, Form(description="of JSON: labels, confidence, overlay as base64 PNGs; by commas")] = "",
    units: Annotated[Literal["refuse", "convert"], Form(description="images in other units")] = "refuse",
) -> Response:
    """Give every pixel of an image a class.

    `json` has the share of each class. `labels` is a PNG in the colours of the classes, whose values are their numbers.
    `overlay` shows them over the image, `confidence` is 0 to 255, `geojson` has an outline for each connected piece: in
    degrees where the image has a place on the ground, else in pixels.
    """
    service = service_of(request)
    served = service.shelf.find(model, version)
    wanted = _included(include)
    patience = Patience(service.options.limits.seconds)

    with TemporaryDirectory(dir=service.scratch) as folder:
        name, place, limits = image.filename or "", Path(folder), service.options.limits
        sent = await service.views.run(lambda: received(image.file, name, place, limits), patience, request.receive)

        def work() -> Response:
            return _answered(service, served, sent, output, wanted, units, patience)

        return await service.lane(sent.info.width * sent.info.height).run(work, patience, request.receive)


def _included(text: str) -> set[str]:
    wanted = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(wanted - set(PICTURES)):
        raise Refusal(422, "wrong_value", f"include has {unknown[0][:50]!r}.", f"It takes {', '.join(PICTURES)}.")
    return wanted


def _answered(
    service: Service,
    served: ServedModel,
    sent: Sent,
    output: str,
    wanted: set[str],
    units: str,
    patience: Patience,
) -> Response:
    started, loaded, version = time.perf_counter(), served.loaded, served.version
    answer = segment_file(
        loaded,
        sent,
        patience,
        confidence=output == "confidence" or "confidence" in wanted,
        picture=output == "overlay" or "overlay" in wanted,
        units=units,
    )
    response = _response(answer, served.name, version, loaded.predictor.classes, output, wanted)
    service.metrics.computed.labels(served.name, version).observe(time.perf_counter() - started)
    service.metrics.pixels.labels(served.name, version).inc(answer.labels.size)
    return response


def _response(answer: Answer, name: str, version: str, classes: Any, output: str, wanted: set[str]) -> Response:
    if output == "labels":
        return Response(labels_png(answer.labels, classes), media_type="image/png")
    if output == "overlay":
        return Response(overlay_png(answer, classes), media_type="image/png")
    if output == "confidence":
        return Response(confidence_png(answer), media_type="image/png")
    if output == "geojson":
        return JSONResponse(outlines(answer, classes), media_type="application/geo+json")
    height, width = answer.labels.shape
    table: dict[str, Any] = {"model": name, "version": version, "width": width, "height": height}
    table |= {"classes": class_shares(answer, classes), "notes": list(answer.notes)}
    if "labels" in wanted:
        table["labels"] = base64_of(labels_png(answer.labels, classes))
    if "confidence" in wanted:
        table["confidence"] = base64_of(confidence_png(answer))
    if "overlay" in wanted:
        table["overlay"] = base64_of(overlay_png(answer, classes))
    return JSONResponse(table)
