"""An ML backend for Label Studio that asks `pixelwise serve` (docs/deploy.md).

    pixelwise serve runs/fields
    LABEL_STUDIO_URL=http://localhost:8080 LABEL_STUDIO_API_KEY=... uvicorn label_studio_backend:app --port 9090

The project's interface is the one that `pixelwise predict --as label-studio` writes: regions are polygons, and those
with holes brush strokes.
"""

import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import numpy as np
import urllib3
from fastapi import Body, FastAPI, HTTPException
from PIL import Image

from pixelwise.data.annotations.label_studio import written_region
from pixelwise.data.annotations.traced import TracedImage, trace
from pixelwise.labels import make_classes

SERVER = os.environ.get("PIXELWISE_URL", "http://127.0.0.1:8000")
STUDIO = os.environ.get("LABEL_STUDIO_URL", "http://127.0.0.1:8080")
TO_SERVER = {"Authorization": f"Bearer {os.environ.get('PIXELWISE_TOKEN', '')}"}
TO_STUDIO = {"Authorization": f"Token {os.environ.get('LABEL_STUDIO_API_KEY', '')}"}
app = FastAPI()


@app.get("/health")
@app.get("/")
def health() -> dict[str, str]:
    return {"status": "UP", "model_class": "pixelwise"}


@app.post("/setup")
def setup() -> dict[str, str]:
    return {"model_version": served()["digest"]}


@app.post("/webhook", status_code=201)
def webhook() -> dict[str, str]:
    return {"status": "ok"}  # this backend does not train: see `pixelwise train`


@app.post("/predict")
def predict(request: dict[str, Any] = Body()) -> dict[str, list]:  # noqa: B008  FastAPI reads it from there
    model = served()
    classes = make_classes([each["name"] for each in model["classes"]])
    results = []
    for task in request["tasks"]:
        name, image = fetched(task["data"]["image"])
        form = {"image": (name, image), "model": model["name"], "output": "labels"}
        labels = np.asarray(Image.open(io.BytesIO(answered("POST", "/segment", fields=form))))
        regions = trace(labels, labels < len(classes), classes)
        traced = TracedImage(Path(name), name, *labels.shape, regions)
        drawn = [written_region(region, traced, str(number)) for number, region in enumerate(regions)]
        results.append({"model_version": model["digest"], "result": drawn})
    return {"results": results}


def fetched(address: str) -> tuple[str, bytes]:
    """Return an image of a task, from Label Studio alone: a task may come from anybody."""
    whole = urljoin(STUDIO, address)
    if urlsplit(whole)[:2] != urlsplit(STUDIO)[:2]:
        raise HTTPException(422, f"The image is not at {STUDIO}.")
    answer = urllib3.request("GET", whole, headers=TO_STUDIO, redirect=False)
    if answer.status != 200:
        raise HTTPException(502, f"Label Studio answers {answer.status} for an image. Is LABEL_STUDIO_API_KEY right?")
    return urlsplit(whole).path.rpartition("/")[2], answer.data


def served() -> dict[str, Any]:
    return urllib3.request("GET", f"{SERVER}/models", headers=TO_SERVER).json()[0]


def answered(method: str, path: str, **sent: Any) -> bytes:
    answer = urllib3.request(method, SERVER + path, headers=TO_SERVER, **sent)
    if answer.status != 200:
        raise HTTPException(502, answer.json()["error"]["message"])
    return answer.data
