"""What one writes without pixelwise: a FastAPI handler around transformers' SegFormer.

    python benchmarks/serve_plain.py FOLDER --port 8001

`benchmarks/serve_load.py` starts it. The handler is a plain function, so that FastAPI runs it in its pool of threads.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Response, UploadFile
from PIL import Image
from transformers import AutoImageProcessor, SegformerForSemanticSegmentation


def application(folder: Path) -> FastAPI:
    """Return an application with one route, which answers a picture with its classes as PNG."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    app = FastAPI()

    @app.get("/models")
    def models() -> list[str]:
        return [folder.name]

    @app.post("/segment")
    def segment(image: UploadFile) -> Response:
        picture = Image.open(image.file).convert("RGB")
        inputs = processor(images=picture, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs)
        labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[picture.size[::-1]])[0]
        file = io.BytesIO()
        Image.fromarray(labels.numpy().astype(np.uint8)).save(file, "png")
        return Response(file.getvalue(), media_type="image/png")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(application(options.folder), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
