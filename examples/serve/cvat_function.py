"""An auto-annotation function for CVAT that asks `pixelwise serve` (docs/deploy.md).

    pixelwise serve runs/fields
    cvat-cli task auto-annotate 137 --function-file cvat_function.py -p server=str:http://127.0.0.1:8000

It needs the package cvat-sdk[masks] and nothing of pixelwise. Each class but the background becomes a mask, or polygons
with --conv-mask-to-poly.
"""

import io
import json

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import urllib3
from cvat_sdk.masks import encode_mask
from PIL import Image


def create(server: str = "http://127.0.0.1:8000", token: str = "", background: str = "background"):
    """Return the function that CVAT's client calls for each frame."""
    headers = {"Authorization": f"Bearer {token}"}
    model = urllib3.request("GET", f"{server}/models", headers=headers).json()[0]
    names = [each["name"] for each in model["classes"]]
    drawn = [number for number, name in enumerate(names) if name != background]

    class Served:
        spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec(names[number], number) for number in drawn])

        def detect(self, context, image):
            file = io.BytesIO()
            image.save(file, "png")
            output = "geojson" if context.conv_mask_to_poly else "labels"
            form = {"image": ("frame.png", file.getvalue()), "model": model["name"], "output": output}
            answer = urllib3.request("POST", f"{server}/segment", headers=headers, fields=form)
            if answer.status != 200:
                raise RuntimeError(answer.json()["error"]["message"])
            return polygons(answer.data) if context.conv_mask_to_poly else masks(answer.data)

    def masks(png):
        labels = np.asarray(Image.open(io.BytesIO(png)))
        return [cvataa.mask(number, encode_mask(labels == number)) for number in drawn if (labels == number).any()]

    def polygons(text):
        features = json.loads(text)["features"]
        outlines = [(each["properties"]["class_id"], each["geometry"]["coordinates"][0]) for each in features]
        # CVAT repeats no first point, and its polygons have no holes.
        return [cvataa.polygon(number, np.ravel(ring[:-1]).tolist()) for number, ring in outlines if number in drawn]

    return Served()
