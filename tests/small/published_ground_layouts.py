"""Layouts of published sets of the ground from above, at small size."""

import json
from pathlib import Path

import numpy as np
from layout_parts import PARTS, box_of, write_text
from small_folders import GROUND, SHAPE, Made, _tif, png


def loveda(folder: Path) -> Made:
    """Urban and rural folders, whose files have the same names in all; 0 is what has no label."""
    made, number = Made(), 0
    for part, count in (("Train", 3), ("Val", 2)):
        for kind in ("Rural", "Urban"):
            for _ in range(count):
                number += 1
                made.photo(folder / part / kind / "images_png" / f"{number}.png")
                mask = made.areas(f"{number}", 7)
                png(folder / part / kind / "masks_png" / f"{number}.png", mask + 1)
                mask[:3] = -1
                png(folder / part / kind / "masks_png" / f"{number}.png", mask + 1)
    for i in range(3):
        made.photo(folder / "Test" / "Urban" / "images_png" / f"{900 + i}.png")
    return made


def isaid(folder: Path) -> Made:
    """Colours of classes, and colours of objects."""
    made = Made()
    table = np.array([[0, 0, 0], [0, 0, 63], [0, 191, 127]], np.uint8)
    for part, count in (("train", 5), ("val", 2)):
        for i in range(count):
            stem = f"P{i + (100 if part == 'val' else 0):04}"
            made.photo(folder / part / "images" / f"{stem}.png")
            mask = made.areas(stem, 3)
            png(folder / part / "Semantic_masks" / "images" / f"{stem}_instance_color_RGB.png", table[mask])
            objects = made.rng.integers(1, 255, (12, 3))
            rows = np.arange(SHAPE[0]) // 8
            own = np.where(mask[..., None] > 0, objects[rows][:, None, :], 0)
            png(folder / part / "Instance_masks" / "images" / f"{stem}_instance_id_RGB.png", own)
    return made


def deepglobe(folder: Path) -> Made:
    made = Made()
    names = {"urban_land": (0, 255, 255), "water": (0, 0, 255), "forest_land": (0, 255, 0), "unknown": (0, 0, 0)}
    table = np.array([*names.values()], np.uint8)
    for i in range(6):
        made.photo(folder / "train" / f"{1190 + 7 * i}_sat.jpg")
        mask = made.areas(f"{1190 + 7 * i}_sat", 4)
        png(folder / "train" / f"{1190 + 7 * i}_mask.png", table[mask])
        mask[mask == 3] = -1
    for part in ("valid", "test"):
        for i in range(3):
            made.photo(folder / part / f"{2200 + 7 * i + len(part)}_sat.jpg")
    lines = [f"{name},{','.join(map(str, colour))}" for name, colour in names.items()]
    write_text(folder / "class_dict.csv", "name,r,g,b\n" + "\n".join(lines) + "\n")
    rows = [f"{1190 + 7 * i},train,train/{1190 + 7 * i}_sat.jpg,train/{1190 + 7 * i}_mask.png" for i in range(6)]
    write_text(folder / "metadata.csv", "image_id,split,sat_image_path,mask_path\n" + "\n".join(rows) + "\n")
    return made


def massachusetts(folder: Path) -> Made:
    made = Made()
    for part, count in PARTS:
        for i in range(count):
            stem = f"{22828930 + 15 * i + len(part) * 1000}_15"
            made.photo(folder / "tiff" / part / f"{stem}.tif")
            mask = made.areas(stem, 2)
            there = folder / "tiff" / f"{part}_labels"
            there.mkdir(parents=True, exist_ok=True)
            _tif(there / f"{stem}.tif", np.repeat(mask[None] * 255, 3, axis=0).astype(np.uint8))
            if part == "test":
                del made.truth[stem]
    write_text(folder / "label_class_dict.csv", "name,r,g,b\nbackground,0,0,0\nroad,255,255,255\n")
    return made


def sat_and_map(folder: Path) -> Made:
    """Massachusetts roads from their own site: images .tiff, maps .tif."""
    made = Made()
    for part, count in (("train", 5), ("valid", 2)):
        for i in range(count):
            stem = f"{10078660 + 15 * i + len(part) * 1000}_15"
            (folder / part / "sat").mkdir(parents=True, exist_ok=True)
            made.photo(folder / part / "sat" / f"{stem}.tif").rename(folder / part / "sat" / f"{stem}.tiff")
            (folder / part / "map").mkdir(parents=True, exist_ok=True)
            _tif(folder / part / "map" / f"{stem}.tif", (made.areas(stem, 2)[None] * 255).astype(np.uint8))
    return made


def spacenet(folder: Path) -> Made:
    """16-bit tiles, each with a GeoJSON; of two tiles it is empty."""
    made = Made()
    for i in range(6):
        stem = f"RGB-PanSharpen_AOI_2_Vegas_img{i}"
        place = GROUND | {"transform": GROUND["transform"] @ GROUND["transform"].translation(200 * i, 0)}
        made.photo(folder / "RGB-PanSharpen" / f"{stem}.tif", dtype="uint16", photometric="rgb", **place)
        outline = box_of(made, stem)
        corners = [place["transform"] @ tuple(point) for point in [*outline, outline[0]]]
        shape = {"type": "Polygon", "coordinates": [[list(corner) for corner in corners]]}
        features = [{"type": "Feature", "geometry": shape, "properties": {"HGIS_OBJ": "1", "partialBuilding": 0.0}}]
        if i > 3:
            features = []
            del made.truth[stem]
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        told = {"type": "FeatureCollection", "crs": crs, "features": features}
        write_text(folder / "geojson" / "buildings" / f"buildings_AOI_2_Vegas_img{i}.geojson", json.dumps(told))
    return made


def inria(folder: Path) -> Made:
    made = Made()
    for i, town in enumerate(("austin", "chicago", "vienna") * 2):
        stem = f"{town}{i + 1}"
        place = GROUND | {"transform": GROUND["transform"] @ GROUND["transform"].translation(200 * i, 0)}
        made.photo(folder / "AerialImageDataset" / "train" / "images" / f"{stem}.tif", **place)
        there = folder / "AerialImageDataset" / "train" / "gt"
        there.mkdir(parents=True, exist_ok=True)
        _tif(there / f"{stem}.tif", (made.areas(stem, 2)[None] * 255).astype(np.uint8), **place)
        made.photo(folder / "AerialImageDataset" / "test" / "images" / f"innsbruck{i + 1}.tif", **place)
    return made


def potsdam(folder: Path) -> Made:
    made = Made()
    names = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0]], np.uint8)
    for i in range(6):
        made.photo(folder / "2_Ortho_RGB" / f"top_potsdam_{2 + i}_10_RGB.tif")
        mask = made.areas(f"top_potsdam_{2 + i}_10_RGB", 4)
        there = folder / "5_Labels_all"
        there.mkdir(parents=True, exist_ok=True)
        _tif(there / f"top_potsdam_{2 + i}_10_label.tif", np.moveaxis(names[mask], -1, 0))
    return made


def landcover_ai(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        place = GROUND | {"transform": GROUND["transform"] @ GROUND["transform"].translation(200 * i, 0)}
        made.photo(folder / "images" / f"M-33-{i}-A-d-2-3.tif", **place)
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        _tif(
            folder / "masks" / f"M-33-{i}-A-d-2-3.tif",
            made.areas(f"M-33-{i}-A-d-2-3", 5)[None].astype(np.uint8),
            **place,
        )
    write_text(folder / "train.txt", "".join(f"M-33-{i}-A-d-2-3_{k}\n" for i in range(4) for k in range(9)))
    write_text(folder / "split.py", "import glob\n")
    return made


def floods(folder: Path) -> Made:
    """Sen1Floods11: labels of -1, 0 and 1 in signed numbers; two bands of real numbers."""
    made = Made()
    for i in range(6):
        stem = f"Bolivia_{103757 + i}_S1Hand"
        place = GROUND | {"transform": GROUND["transform"] @ GROUND["transform"].translation(200 * i, 0)}
        (folder / "S1Hand").mkdir(parents=True, exist_ok=True)
        slope = np.linspace(-25, -8, SHAPE[1])[None, None] + made.rng.normal(0, 1, (2, *SHAPE))
        _tif(folder / "S1Hand" / f"{stem}.tif", slope.astype(np.float32), **place)
        mask = made.areas(stem, 2)
        mask[:3] = -1
        (folder / "LabelHand").mkdir(parents=True, exist_ok=True)
        _tif(folder / "LabelHand" / f"Bolivia_{103757 + i}_LabelHand.tif", mask[None].astype(np.int16), **place)
    return made


def nested_dates(folder: Path) -> Made:
    made = Made()
    for month in ("01", "02", "03"):
        for i in range(2):
            place = Path("2021") / month / f"{month}{i}.jpg"
            made.photo(folder / "images" / place)
            png((folder / "masks" / place).with_suffix(".png"), made.areas(place.stem, 3))
    return made
