"""What a machine without torch does: maps a scene from a file, draws parcels, scores the file and writes the page.

    python tests/exporting/only_predicts.py FOLDER [--forbid]

FOLDER has fields.onnx, fields.xml (only what is there is used), scene.tif, test.toml and a run. With ``--forbid``,
importing torch fails as it does where torch is not installed.
"""

import json
import sys
from pathlib import Path


class NoTorch:
    """Finds torch nowhere."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(folder: Path) -> dict[str, object]:
    import pixelwise as pw
    from pixelwise.report import ParcelFiles, write_report

    told: dict[str, object] = {}
    for name in ("fields.onnx", "fields.xml"):
        if not (folder / name).exists():
            continue
        predictor, output = pw.load(folder / name), folder / f"{name}.tif"
        predictor.map_scene(folder / "scene.tif", output, confidence=True, probabilities=True, flips=True)
        predictor.segment(folder / "scene.tif", scales=(0.5, 1.0)).save(folder / f"{name}.png")
        found = pw.polygonize(output, folder / f"{name}.gpkg")
        scored = pw.evaluate(folder / name, folder / "test.toml")
        honest = scored.calibration.after
        told[name] = {"parcels": found.parcels, "miou": scored.scores.miou}
        told[name] |= {"temperature": honest.temperature, "nll": honest.nll}
        write_report(folder / "run", ParcelFiles(output, folder / f"{name}.gpkg"))
    for name in ("train", "create", "fuse", "export"):
        try:
            getattr(pw, name)
        except pw.MissingExtraError as error:
            told[name] = str(error)
    try:
        pw.load(folder / "run")
    except pw.MissingExtraError as error:
        told["run"] = str(error)
    return told | {"torch": "torch" in sys.modules}


if __name__ == "__main__":
    if "--forbid" in sys.argv:
        sys.meta_path.insert(0, NoTorch())
    print(json.dumps(main(Path(sys.argv[1]))))
