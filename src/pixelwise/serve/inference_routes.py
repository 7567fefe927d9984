"""The Open Inference Protocol, version 2: what clients of KServe, Triton and OpenVINO Model Server speak."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers

from pixelwise import __version__
from pixelwise.labels import label_dtype
from pixelwise.serve.answer import require_pixels, segment_array
from pixelwise.serve.refusals import Refusal
from pixelwise.serve.service import Service, service_of
from pixelwise.serve.shelf import ServedModel
from pixelwise.serve.tensors import NAMES, parse, unpacked, written, wrong
from pixelwise.serve.workers import Patience

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

LENGTH = "Inference-Header-Content-Length"
OUTPUTS = ("labels", "confidence")


@router.get("", summary="The server")
async def server(request: Request) -> dict[str, Any]:
    """Name, version and extensions of the protocol."""
    extensions = ["binary_tensor_data", "model_repository"]
    return {"name": "pixelwise", "version": __version__, "extensions": extensions}


@router.get("/health/live", summary="Is the server there")
async def live() -> dict[str, bool]:
    """Say that the server answers."""
    return {"live": True}


@router.get("/health/ready", summary="Is the server ready")
async def ready() -> dict[str, bool]:
    """Say that all models are loaded; they are before the server listens."""
    return {"live": True, "ready": True}


@router.get("/models/{name}", summary="A model")
@router.get("/models/{name}/versions/{version}", summary="A version of a model")
async def metadata(request: Request, name: str, version: str = "") -> dict[str, Any]:
    """Name, versions, and the tensors that a model takes and gives."""
    service = service_of(request)
    model = service.shelf.find(name, version)
    card = model.card
    labels = NAMES[np.dtype(label_dtype(len(card.classes)))]
    return {
        "name": model.name,
        "versions": service.shelf.versions(model.name),
        "platform": f"pixelwise_{model.runtime.split()[0]}",
        "inputs": [{"name": "image", "datatype": datatype_of(model), "shape": [-1, len(card.bands), -1, -1]}],
        "outputs": [
            {"name": "labels", "datatype": labels, "shape": [-1, -1, -1]},
            {"name": "confidence", "datatype": "FP32", "shape": [-1, -1, -1]},
        ],
    }


@router.get("/models/{name}/ready", summary="Is a model ready")
@router.get("/models/{name}/versions/{version}/ready", summary="Is a version of a model ready")
async def model_ready(request: Request, name: str, version: str = "") -> dict[str, Any]:
    """Say that a model is loaded."""
    return {"name": service_of(request).shelf.find(name, version).name, "ready": True}


@router.post(
    "/models/{name}/infer", summary="Inference", openapi_extra={"requestBody": {"content": {"application/json": {}}}}
)
@router.post("/models/{name}/versions/{version}/infer", summary="Inference of a version")
async def infer(request: Request, name: str, version: str = "") -> Response:
    """Give every pixel of images a class.

    The input `image` is [N,C,H,W], in the raw units and the type of the training images. The outputs are `labels`
    [N,H,W], numbers of classes, 255 (65535) where there is no data, and `confidence` [N,H,W], 0 to 1.
    """
    service = service_of(request)
    model = service.shelf.find(name, version)
    patience = Patience(service.options.limits.seconds)
    with _room_for(service, request.headers) as most:
        body = await request.body()

        def work() -> Response:
            started = time.perf_counter()
            answer, pixels = _inferred(service, model, body, request.headers, most, patience)
            service.metrics.computed.labels(model.name, model.version).observe(time.perf_counter() - started)
            service.metrics.pixels.labels(model.name, model.version).inc(pixels)
            return answer

        pixels = len(body) // (len(model.card.bands) * np.dtype(model.card.dtype).itemsize)
        return await service.lane(pixels).run(work, patience, request.receive)


@router.post("/repository/index", summary="All models")
async def index(request: Request) -> list[dict[str, str]]:
    """List names, versions and states."""
    return [
        {"name": model.name, "version": model.version, "state": "READY", "reason": _reason(model)}
        for model in service_of(request).shelf
    ]


@router.post("/repository/models/{name}/load", summary="Load a model anew")
async def load(request: Request, name: str) -> Response:
    """Look at a model's files now, and load them anew if they changed; the server does so by itself too."""
    service = service_of(request)
    for version in service.shelf.versions(service.shelf.find(name).name):
        model = service.shelf.find(name, version)
        await service.views.run(lambda model=model: service.shelf.refresh(model, again=True), Patience(300))
        if model.problem:
            raise Refusal(400, "not_loaded", _reason(model), "The older one still answers.")
    return JSONResponse({})


@router.post("/repository/models/{name}/unload", summary="Not offered")
async def unload(request: Request, name: str) -> Response:
    """Refuse: models are those that the server was started with."""
    service_of(request).shelf.find(name)
    raise wrong("Models stay loaded.", "Start the server without this one.")


def datatype_of(model: ServedModel) -> str:
    """Return the protocol's name of the type that a model takes."""
    return NAMES[np.dtype(model.card.dtype).newbyteorder("<")]


def _reason(model: ServedModel) -> str:
    # A sentence with the server's own folders is the operator's.
    return "Its files changed and could not be loaded." if model.problem else ""


@contextmanager
def _room_for(service: Service, headers: Headers) -> Iterator[int]:
    """Count a request's bytes in memory; give how many it may have.

    Raises:
        Refusal: 503, if too many are in memory already.
    """
    limits, said = service.options.limits, headers.get("content-length", "")
    size = int(said) if said.isdecimal() else limits.body
    if headers.get("content-encoding", "") not in ("", "identity"):
        size = limits.body
    if service.tensor_bytes + size > max(limits.tensors, limits.body):
        raise Refusal(503, "busy", "Too many images wait.", "Try again in 1 s.", again=1)
    service.tensor_bytes += size
    try:
        yield size
    finally:
        service.tensor_bytes -= size


def _inferred(
    service: Service, model: ServedModel, body: bytes, headers: Headers, most: int, patience: Patience
) -> tuple[Response, int]:
    limits, loaded = service.options.limits, model.loaded
    body = unpacked(body, headers.get("content-encoding", ""), most)
    bands = len(model.card.bands)
    asked = parse(body, headers.get(LENGTH), most_json=limits.json, most_values=limits.pixels * bands)
    unknown = [name for name in asked.outputs if name not in OUTPUTS]
    if set(asked.tensors) != {"image"} or unknown:
        said = f"There is no output {unknown[0][:50]!r}" if unknown else "There must be one input, 'image'"
        raise wrong(f"{said}.", f"The outputs are {' and '.join(OUTPUTS)}.")
    image = asked.tensors["image"]
    if image.ndim != 4 or image.shape[1] != bands:
        raise wrong(f"The image has the shape {list(image.shape)}.", f"It must be [N, {bands}, height, width].")
    if NAMES[image.dtype] != datatype_of(model):
        raise wrong(f"The image is {NAMES[image.dtype]}.", f"The model takes {datatype_of(model)}, in raw units.")
    require_pixels(image.shape[3], image.shape[0] * image.shape[2], limits.pixels)
    answers = [segment_array(loaded, np.moveaxis(each, 0, -1), patience) for each in image]
    found = {
        "labels": np.stack([each.labels for each in answers]),
        "confidence": np.stack([each.confidence for each in answers if each.confidence is not None]),
    }
    binary = asked.outputs or dict.fromkeys(OUTPUTS, asked.binary)
    table: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    table |= {"id": asked.id} if asked.id is not None else {}
    content, length = written(table, {name: found[name] for name in binary}, binary)
    pixels = found["labels"].size
    if length is None:
        return Response(content, media_type="application/json"), pixels
    return Response(content, media_type="application/octet-stream", headers={LENGTH: str(length)}), pixels
