"""Folders as published data sets and tools lay them out, each with the class of every pixel as it was drawn."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from small_folders import GROUND, SHAPE, Made, _tif, _uniform, png

PARTS = (("train", 5), ("val", 2), ("test", 2))
COLOURS = {"Animal": (64, 128, 64), "Road": (128, 64, 128), "Tree": (128, 128, 0), "Void": (0, 0, 0)}


def _without(made: Made, *stems: str) -> Made:
    """Forget images that no configuration should name, such as those of a test."""
    for stem in stems:
        made.truth.pop(stem, None)
    return made


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def suffixed_labels(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"a{i}.jpg")
        png(folder / "labels" / f"a{i}_label.png", made.areas(f"a{i}", 3))
    return made


def parts_of_folders(folder: Path) -> Made:
    made = Made()
    for part, count in PARTS:
        for i in range(count):
            made.photo(folder / part / "images" / f"{part}{i}.png")
            png(folder / part / "masks" / f"{part}{i}.png", made.areas(f"{part}{i}", 3))
    return _without(made, "test0", "test1")


def folders_of_parts(folder: Path) -> Made:
    """images/train and masks/train, with a test that has no masks."""
    made = Made()
    for part, count in PARTS:
        for i in range(count):
            made.photo(folder / "images" / part / f"{part}{i}.jpg")
            mask = made.areas(f"{part}{i}", 3)
            if part != "test":
                png(folder / "masks" / part / f"{part}{i}.png", mask)
    return _without(made, "test0", "test1")


def pascal_voc(folder: Path) -> Made:
    """VOCdevkit as it is unpacked: boxes for most photos, two kinds of masks for some, lists."""
    made, top = Made(), folder / "VOCdevkit" / "VOC2012"
    for i in range(14):
        stem = f"2007_{i:06}"
        made.photo(top / "JPEGImages" / f"{stem}.jpg")
        boxes = "<object><name>person</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
        _text(
            top / "Annotations" / f"{stem}.xml",
            f"<annotation><folder>VOC2012</folder><filename>{stem}.jpg</filename><size><width>{SHAPE[1]}</width>"
            f"<height>{SHAPE[0]}</height><depth>3</depth></size>{boxes}</object></annotation>",
        )
        if i < 7:
            mask = made.areas(stem, 3)
            for name, values in (("SegmentationClass", [0, 9, 15]), ("SegmentationObject", [0, 1, 2])):
                raw = np.array(values, np.uint8)[mask]
                raw[10:12] = 255
                image = Image.fromarray(raw, "P")
                image.putpalette([each * 37 % 256 for each in range(768)])
                (top / name).mkdir(parents=True, exist_ok=True)
                image.save(top / name / f"{stem}.png")
            mask[10:12] = -1
    _text(top / "ImageSets/Segmentation/train.txt", "".join(f"2007_{i:06}\n" for i in range(5)))
    _text(top / "ImageSets/Segmentation/val.txt", "2007_000005\n2007_000006\n")
    _text(top / "ImageSets/Segmentation/trainval.txt", "".join(f"2007_{i:06}\n" for i in range(7)))
    _text(top / "ImageSets/Main/train.txt", "".join(f"2007_{i:06}\n" for i in range(14)))
    return made


def cityscapes(folder: Path) -> Made:
    made = Made()
    colours = np.array([[128, 64, 128], [70, 70, 70], [107, 142, 35]], np.uint8)
    ids = np.array([7, 11, 21], np.uint8)
    for part, town in (("train", "aachen"), ("train", "bonn"), ("val", "ulm"), ("test", "berlin")):
        for i in range(3):
            stem = f"{town}_{i:06}_000019"
            made.photo(folder / "leftImg8bit" / part / town / f"{stem}_leftImg8bit.png")
            mask = made.areas(f"{stem}_leftImg8bit", 3)
            there = folder / "gtFine" / part / town
            raw = np.zeros(SHAPE, int) if part == "test" else ids[mask]
            png(there / f"{stem}_gtFine_labelIds.png", raw)
            png(there / f"{stem}_gtFine_color.png", colours[mask])
            png(there / f"{stem}_gtFine_instanceIds.png", raw)
            outline = [[0, 0], [40, 0], [40, 30], [0, 30]]
            objects = [{"label": "road", "polygon": outline}]
            size = {"imgHeight": SHAPE[0], "imgWidth": SHAPE[1]}
            _text(there / f"{stem}_gtFine_polygons.json", json.dumps({**size, "objects": objects}))
    return _without(made, *(f"berlin_{i:06}_000019_leftImg8bit" for i in range(3)))


def _box(made: Made, stem: str, top: int = 8, left: int = 16, height: int = 32, width: int = 40) -> list[list[int]]:
    """Draw a rectangle of class 1 on class 0, and return its outline in pixels."""
    mask = np.zeros(SHAPE, np.int16)
    mask[top : top + height, left : left + width] = 1
    made.truth[stem] = mask
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def yolo_segments(folder: Path) -> Made:
    made = Made()
    for part, count in (("train", 5), ("val", 2)):
        for i in range(count):
            made.photo(folder / "images" / part / f"{part}{i}.jpg")
            outline = _box(made, f"{part}{i}")
            points = " ".join(f"{x / SHAPE[1]:.6f} {y / SHAPE[0]:.6f}" for x, y in outline)
            _text(folder / "labels" / part / f"{part}{i}.txt", f"0 {points}\n")
    _text(folder / "data.yaml", "path: ../data\ntrain: images/train\nval: images/val\nnames:\n  0: roof\n")
    return made


def coco(folder: Path) -> Made:
    made = Made()
    for part, count in (("train2017", 5), ("val2017", 2)):
        images, annotations = [], []
        for i in range(count):
            stem = f"{part}{i:012}"
            made.photo(folder / part / f"{stem}.jpg")
            outline = _box(made, stem, top=6 + i)
            images.append({"id": i, "file_name": f"{stem}.jpg", "height": SHAPE[0], "width": SHAPE[1]})
            flat = [number for point in outline for number in point]
            box = [16, 6 + i, 40, 32]
            about = {"id": i, "image_id": i, "category_id": 3, "iscrowd": 0, "bbox": box, "area": 1280}
            annotations.append({**about, "segmentation": [flat]})
        categories = [{"id": 3, "name": "roof", "supercategory": "building"}]
        told = {"images": images, "annotations": annotations, "categories": categories}
        _text(folder / "annotations" / f"instances_{part}.json", json.dumps(told))
    return made


def labelme_beside(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / f"p{i}.jpg")
        shape = {"label": "roof", "points": _box(made, f"p{i}", top=5 + i), "shape_type": "polygon", "flags": {}}
        size = {"imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
        told = {"version": "5.2.1", "flags": {}, "shapes": [shape], "imagePath": f"p{i}.jpg", "imageData": None}
        _text(folder / f"p{i}.json", json.dumps(told | size))
    return made


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
    _text(folder / "class_dict.csv", "name,r,g,b\n" + "\n".join(lines) + "\n")
    rows = [f"{1190 + 7 * i},train,train/{1190 + 7 * i}_sat.jpg,train/{1190 + 7 * i}_mask.png" for i in range(6)]
    _text(folder / "metadata.csv", "image_id,split,sat_image_path,mask_path\n" + "\n".join(rows) + "\n")
    return made


def isic(folder: Path) -> Made:
    made = Made()
    for part, count in (("Training", 5), ("Validation", 2)):
        there = folder / f"ISIC2018_Task1-2_{part}_Input"
        for i in range(count):
            stem = f"ISIC_{i + (100 if part == 'Validation' else 0):07}"
            made.photo(there / f"{stem}.jpg")
            mask = made.areas(stem, 2)
            png(folder / f"ISIC2018_Task1_{part}_GroundTruth" / f"{stem}_segmentation.png", mask * 255)
        for each in (there, folder / f"ISIC2018_Task1_{part}_GroundTruth"):
            _text(each / "ATTRIBUTION.txt", "HAM10000 Dataset: (c) by ...\nMSK Dataset: (c) Anonymous\n")
            _text(each / "LICENSE.txt", "License: CC-0\n")
    return made


def _jpeg(path: Path, values: np.ndarray, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, quality=quality)


def kvasir(folder: Path) -> Made:
    """Masks in colour JPEG, black and white, with a file of boxes."""
    made, boxes = Made(), {}
    for i in range(6):
        stem = f"cju0qkwl35piu0993l0dewei{i}"
        made.photo(folder / "Kvasir-SEG" / "images" / f"{stem}.jpg")
        mask = made.areas(stem, 2)
        _jpeg(folder / "Kvasir-SEG" / "masks" / f"{stem}.jpg", np.repeat(mask[..., None] * 255, 3, axis=2))
        made.truth[stem] = np.where(_uniform(mask), mask, -2)
        box = {"label": "polyp", "xmin": 3, "ymin": 4, "xmax": 30, "ymax": 31}
        boxes[stem] = {"height": SHAPE[0], "width": SHAPE[1], "bbox": [box]}
    _text(folder / "Kvasir-SEG" / "kavsir_bboxes.json", json.dumps(boxes))
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
    _text(folder / "label_class_dict.csv", "name,r,g,b\nbackground,0,0,0\nroad,255,255,255\n")
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
        outline = _box(made, stem)
        corners = [place["transform"] @ tuple(point) for point in [*outline, outline[0]]]
        shape = {"type": "Polygon", "coordinates": [[list(corner) for corner in corners]]}
        features = [{"type": "Feature", "geometry": shape, "properties": {"HGIS_OBJ": "1", "partialBuilding": 0.0}}]
        if i > 3:
            features = []
            del made.truth[stem]
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        told = {"type": "FeatureCollection", "crs": crs, "features": features}
        _text(folder / "geojson" / "buildings" / f"buildings_AOI_2_Vegas_img{i}.geojson", json.dumps(told))
    return made


def supervisely(folder: Path) -> Made:
    made = Made()
    for part, count in (("ds1", 4), ("ds2", 3)):
        for i in range(count):
            stem = f"{part}_{i}"
            made.photo(folder / part / "img" / f"{stem}.jpg")
            outline = _box(made, stem)
            points = {"exterior": outline, "interior": []}
            thing = {"classTitle": "roof", "geometryType": "polygon", "points": points, "tags": []}
            size = {"height": SHAPE[0], "width": SHAPE[1]}
            told = {"description": "", "tags": [], "size": size, "objects": [thing]}
            _text(folder / part / "ann" / f"{stem}.jpg.json", json.dumps(told))
    classes = [{"title": "roof", "shape": "polygon", "color": "#FF0000"}]
    _text(folder / "meta.json", json.dumps({"classes": classes, "tags": []}))
    return made


def roboflow_masks(folder: Path) -> Made:
    made = Made()
    for part, count in (("train", 5), ("valid", 2), ("test", 2)):
        for i in range(count):
            stem = f"{part}{i}_jpg.rf.{i * 977:032x}"
            made.photo(folder / part / f"{stem}.jpg")
            png(folder / part / f"{stem}_mask.png", made.areas(stem, 3))
            if part == "test":
                del made.truth[stem]
        _text(folder / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, roof\n2, tree\n")
    _text(folder / "README.roboflow.txt", "Exported via roboflow.com\n")
    return made


def camvid(folder: Path) -> Made:
    made = Made()
    table = np.array([*COLOURS.values()], np.uint8)
    for part, count in PARTS:
        for i in range(count):
            stem = f"0006R0_f0{1000 + 30 * i + len(part) * 300}"
            made.photo(folder / part / f"{stem}.png")
            mask = made.areas(stem, 4)
            png(folder / f"{part}_labels" / f"{stem}_L.png", table[mask])
            mask[mask == 3] = -1
            if part == "test":
                del made.truth[stem]
    rows = [f"{name},{','.join(map(str, colour))}" for name, colour in COLOURS.items()]
    _text(folder / "class_dict.csv", "name,r,g,b\n" + "\n".join(rows) + "\n")
    return made


def oxford_pets(folder: Path) -> Made:
    """Trimaps of 1, 2 and 3; files of a Mac beside them; boxes for some."""
    made = Made()
    for i in range(7):
        stem = f"Abyssinian_{i}"
        made.photo(folder / "images" / f"{stem}.jpg")
        trimaps = folder / "annotations" / "trimaps"
        png(trimaps / f"{stem}.png", made.areas(stem, 3) + 1)
        (trimaps / f"._{stem}.png").write_bytes(b"\x00\x05\x16\x07Mac OS X")
        _text(folder / "annotations" / "xmls" / f"{stem}.xml", "<annotation><filename>x</filename></annotation>")
    rows = [f"Abyssinian_{i} 1 1 1" for i in range(7)]
    _text(folder / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\n" + "\n".join(rows) + "\n")
    _text(folder / "annotations" / "trainval.txt", "\n".join(rows[:5]) + "\n")
    _text(folder / "annotations" / "test.txt", "\n".join(rows[5:]) + "\n")
    return made


def ade20k(folder: Path) -> Made:
    """0 is what has no label; a file names the classes from 1 on."""
    made, top = Made(), folder / "ADEChallengeData2016"
    for part, count in (("training", 6), ("validation", 3)):
        for i in range(count):
            stem = f"ADE_{part[:5]}_{i + 1:08}"
            made.photo(top / "images" / part / f"{stem}.jpg")
            mask = made.areas(stem, 5)
            mask[:4] = -1
            png(top / "annotations" / part / f"{stem}.png", mask + 1)
    names = ["wall", "building, edifice", "sky", "floor, flooring", "tree"]
    head = "Idx\tRatio\tTrain\tVal\tName\n"
    rows = "".join(f"{i + 1}\t0.{i}\t1{i}\t{i}\t{name}\n" for i, name in enumerate(names))
    _text(top / "objectInfo150.txt", head + rows)
    _text(top / "sceneCategories.txt", "".join(f"ADE_train_{i + 1:08} street\n" for i in range(6)))
    return made


def grey_in_three_bands(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        png(folder / "masks" / f"p{i}.png", np.repeat(made.areas(f"p{i}", 3)[..., None], 3, axis=2))
    return made


def nested_dates(folder: Path) -> Made:
    made = Made()
    for month in ("01", "02", "03"):
        for i in range(2):
            place = Path("2021") / month / f"{month}{i}.jpg"
            made.photo(folder / "images" / place)
            png((folder / "masks" / place).with_suffix(".png"), made.areas(place.stem, 3))
    return made


def carvana(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        stem = f"00087a6bd4dc_{i:02}"
        made.photo(folder / "train" / f"{stem}.jpg")
        (folder / "train_masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray((made.areas(stem, 2) * 255).astype(np.uint8)).save(folder / "train_masks" / f"{stem}_mask.gif")
        made.photo(folder / "test" / f"1{stem[1:]}.jpg")
    _text(folder / "train_masks.csv", "img,rle_mask\n00087a6bd4dc_00.jpg,1 2\n")
    return made


def drive(folder: Path) -> Made:
    """Two masks for each photo: the vessels, and the round field of view."""
    made = Made()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = (np.hypot(y - SHAPE[0] / 2, x - SHAPE[1] / 2) < 30) * 255
    for part, first, hand in (("training", 21, True), ("test", 1, True)):
        for i in range(5 if part == "training" else 2):
            stem = f"{first + i:02}_{part}"
            made.photo(folder / part / "images" / f"{stem}.tif")
            mask = made.areas(stem, 2)
            for name, values, end in (("1st_manual", mask * 255, "manual1"), ("mask", inside, f"{part}_mask")):
                (folder / part / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(folder / part / name / f"{first + i:02}_{end}.gif")
            if part == "test" and hand:
                del made.truth[stem]
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


def lists_of_pairs(folder: Path) -> Made:
    """As PaddleSeg has them: a line names an image and its mask."""
    made = Made()
    for i in range(7):
        made.photo(folder / "images" / f"p{i}.jpg")
        png(folder / "annotations" / f"p{i}.png", made.areas(f"p{i}", 3))
    lines = [f"images/p{i}.jpg annotations/p{i}.png\n" for i in range(7)]
    _text(folder / "train.txt", "".join(lines[:5]))
    _text(folder / "val.txt", "".join(lines[5:]))
    _text(folder / "labels.txt", "background\nroof\ntree\n")
    return made


def salt(folder: Path) -> Made:
    """TGS: masks of 0 and 65535 in 16 bits, a table of runs, and images without masks."""
    made = Made()
    for i in range(6):
        made.photo(folder / "train" / "images" / f"00{i}e.png")
        mask = made.areas(f"00{i}e", 2)
        (folder / "train" / "masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint16) * 65535).save(folder / "train" / "masks" / f"00{i}e.png")
    for i in range(4):
        made.photo(folder / "images" / f"99{i}f.png")
    _text(folder / "train.csv", "id,rle_mask\n000e,1 2\n")
    _text(folder / "depths.csv", "id,z\n000e,443\n")
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
    _text(folder / "train.txt", "".join(f"M-33-{i}-A-d-2-3_{k}\n" for i in range(4) for k in range(9)))
    _text(folder / "split.py", "import glob\n")
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


def bdd100k(folder: Path) -> Made:
    made = Made()
    table = np.array([[128, 64, 128], [70, 70, 70], [107, 142, 35]], np.uint8)
    for part, count in (("train", 5), ("val", 2)):
        for i in range(count):
            stem = f"{part}-00d79c0a-{i}"
            made.photo(folder / "images" / "10k" / part / f"{stem}.jpg")
            mask = made.areas(stem, 3)
            png(folder / "labels" / "sem_seg" / "masks" / part / f"{stem}.png", mask)
            png(folder / "labels" / "sem_seg" / "colormaps" / part / f"{stem}.png", table[mask])
    return made


def masks_in_jpeg(folder: Path) -> Made:
    """Black and white JPEG masks with the images' own names."""
    made = Made()
    for i in range(6):
        made.photo(folder / "image" / f"{i}.jpg")
        mask = made.areas(f"{i}", 2)
        _jpeg(folder / "label" / f"{i}.jpg", mask * 255, 75)
        made.truth[f"{i}"] = np.where(_uniform(mask), mask, -2)
    return made


LAYOUTS = (
    *(suffixed_labels, parts_of_folders, folders_of_parts, pascal_voc, cityscapes, yolo_segments, coco),
    *(labelme_beside, loveda, isaid, deepglobe, isic, kvasir, massachusetts, sat_and_map, spacenet, supervisely),
    *(roboflow_masks, camvid, oxford_pets, ade20k, grey_in_three_bands, nested_dates, carvana, drive, inria),
    *(potsdam, lists_of_pairs, salt, landcover_ai, floods, bdd100k, masks_in_jpeg),
)


# Of these nothing can be made, or `check` has to complain.


def arrays(folder: Path) -> Made:
    made = Made()
    for i in range(4):
        for name, values in (("images", made.rng.normal(size=(*SHAPE, 3))), ("masks", made.areas(f"p{i}", 3))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / name / f"p{i}.npy", values)
    return made


def packed(folder: Path) -> Made:
    folder.mkdir(parents=True)
    for name in ("train.zip", "train_masks.zip"):
        (folder / name).write_bytes(b"PK\x05\x06" + bytes(18))
    return Made()


def half_size(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        png(folder / "masks" / f"p{i}.png", made.areas(f"p{i}", 3)[::2, ::2])
    return made
