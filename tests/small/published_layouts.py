"""Folders as published data sets and tools lay them out, each with the class of every pixel as it was drawn."""

import json
from pathlib import Path

import numpy as np
from layout_parts import COLOURS, PARTS, box_of, without, write_jpeg, write_text
from PIL import Image
from published_ground_layouts import (
    deepglobe,
    floods,
    inria,
    isaid,
    landcover_ai,
    loveda,
    massachusetts,
    nested_dates,
    potsdam,
    sat_and_map,
    spacenet,
)
from small_folders import SHAPE, Made, _uniform, png


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
    return without(made, "test0", "test1")


def folders_of_parts(folder: Path) -> Made:
    """images/train and masks/train, with a test that has no masks."""
    made = Made()
    for part, count in PARTS:
        for i in range(count):
            made.photo(folder / "images" / part / f"{part}{i}.jpg")
            mask = made.areas(f"{part}{i}", 3)
            if part != "test":
                png(folder / "masks" / part / f"{part}{i}.png", mask)
    return without(made, "test0", "test1")


def pascal_voc(folder: Path) -> Made:
    """VOCdevkit as it is unpacked: boxes for most photos, two kinds of masks for some, lists."""
    made, top = Made(), folder / "VOCdevkit" / "VOC2012"
    for i in range(14):
        stem = f"2007_{i:06}"
        made.photo(top / "JPEGImages" / f"{stem}.jpg")
        boxes = "<object><name>person</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
        write_text(
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
    write_text(top / "ImageSets/Segmentation/train.txt", "".join(f"2007_{i:06}\n" for i in range(5)))
    write_text(top / "ImageSets/Segmentation/val.txt", "2007_000005\n2007_000006\n")
    write_text(top / "ImageSets/Segmentation/trainval.txt", "".join(f"2007_{i:06}\n" for i in range(7)))
    write_text(top / "ImageSets/Main/train.txt", "".join(f"2007_{i:06}\n" for i in range(14)))
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
            write_text(there / f"{stem}_gtFine_polygons.json", json.dumps({**size, "objects": objects}))
    return without(made, *(f"berlin_{i:06}_000019_leftImg8bit" for i in range(3)))


def yolo_segments(folder: Path) -> Made:
    made = Made()
    for part, count in (("train", 5), ("val", 2)):
        for i in range(count):
            made.photo(folder / "images" / part / f"{part}{i}.jpg")
            outline = box_of(made, f"{part}{i}")
            points = " ".join(f"{x / SHAPE[1]:.6f} {y / SHAPE[0]:.6f}" for x, y in outline)
            write_text(folder / "labels" / part / f"{part}{i}.txt", f"0 {points}\n")
    write_text(folder / "data.yaml", "path: ../data\ntrain: images/train\nval: images/val\nnames:\n  0: roof\n")
    return made


def coco(folder: Path) -> Made:
    made = Made()
    for part, count in (("train2017", 5), ("val2017", 2)):
        images, annotations = [], []
        for i in range(count):
            stem = f"{part}{i:012}"
            made.photo(folder / part / f"{stem}.jpg")
            outline = box_of(made, stem, top=6 + i)
            images.append({"id": i, "file_name": f"{stem}.jpg", "height": SHAPE[0], "width": SHAPE[1]})
            flat = [number for point in outline for number in point]
            box = [16, 6 + i, 40, 32]
            about = {"id": i, "image_id": i, "category_id": 3, "iscrowd": 0, "bbox": box, "area": 1280}
            annotations.append({**about, "segmentation": [flat]})
        categories = [{"id": 3, "name": "roof", "supercategory": "building"}]
        told = {"images": images, "annotations": annotations, "categories": categories}
        write_text(folder / "annotations" / f"instances_{part}.json", json.dumps(told))
    return made


def labelme_beside(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / f"p{i}.jpg")
        shape = {"label": "roof", "points": box_of(made, f"p{i}", top=5 + i), "shape_type": "polygon", "flags": {}}
        size = {"imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
        told = {"version": "5.2.1", "flags": {}, "shapes": [shape], "imagePath": f"p{i}.jpg", "imageData": None}
        write_text(folder / f"p{i}.json", json.dumps(told | size))
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
            write_text(each / "ATTRIBUTION.txt", "HAM10000 Dataset: (c) by ...\nMSK Dataset: (c) Anonymous\n")
            write_text(each / "LICENSE.txt", "License: CC-0\n")
    return made


def kvasir(folder: Path) -> Made:
    """Masks in colour JPEG, black and white, with a file of boxes."""
    made, boxes = Made(), {}
    for i in range(6):
        stem = f"cju0qkwl35piu0993l0dewei{i}"
        made.photo(folder / "Kvasir-SEG" / "images" / f"{stem}.jpg")
        mask = made.areas(stem, 2)
        write_jpeg(folder / "Kvasir-SEG" / "masks" / f"{stem}.jpg", np.repeat(mask[..., None] * 255, 3, axis=2))
        made.truth[stem] = np.where(_uniform(mask), mask, -2)
        box = {"label": "polyp", "xmin": 3, "ymin": 4, "xmax": 30, "ymax": 31}
        boxes[stem] = {"height": SHAPE[0], "width": SHAPE[1], "bbox": [box]}
    write_text(folder / "Kvasir-SEG" / "kavsir_bboxes.json", json.dumps(boxes))
    return made


def supervisely(folder: Path) -> Made:
    made = Made()
    for part, count in (("ds1", 4), ("ds2", 3)):
        for i in range(count):
            stem = f"{part}_{i}"
            made.photo(folder / part / "img" / f"{stem}.jpg")
            outline = box_of(made, stem)
            points = {"exterior": outline, "interior": []}
            thing = {"classTitle": "roof", "geometryType": "polygon", "points": points, "tags": []}
            size = {"height": SHAPE[0], "width": SHAPE[1]}
            told = {"description": "", "tags": [], "size": size, "objects": [thing]}
            write_text(folder / part / "ann" / f"{stem}.jpg.json", json.dumps(told))
    classes = [{"title": "roof", "shape": "polygon", "color": "#FF0000"}]
    write_text(folder / "meta.json", json.dumps({"classes": classes, "tags": []}))
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
        write_text(folder / part / "_classes.csv", "Pixel Value, Class\n0, background\n1, roof\n2, tree\n")
    write_text(folder / "README.roboflow.txt", "Exported via roboflow.com\n")
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
    write_text(folder / "class_dict.csv", "name,r,g,b\n" + "\n".join(rows) + "\n")
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
        write_text(folder / "annotations" / "xmls" / f"{stem}.xml", "<annotation><filename>x</filename></annotation>")
    rows = [f"Abyssinian_{i} 1 1 1" for i in range(7)]
    write_text(folder / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\n" + "\n".join(rows) + "\n")
    write_text(folder / "annotations" / "trainval.txt", "\n".join(rows[:5]) + "\n")
    write_text(folder / "annotations" / "test.txt", "\n".join(rows[5:]) + "\n")
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
    write_text(top / "objectInfo150.txt", head + rows)
    write_text(top / "sceneCategories.txt", "".join(f"ADE_train_{i + 1:08} street\n" for i in range(6)))
    return made


def grey_in_three_bands(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        made.photo(folder / "images" / f"p{i}.jpg")
        png(folder / "masks" / f"p{i}.png", np.repeat(made.areas(f"p{i}", 3)[..., None], 3, axis=2))
    return made


def carvana(folder: Path) -> Made:
    made = Made()
    for i in range(6):
        stem = f"00087a6bd4dc_{i:02}"
        made.photo(folder / "train" / f"{stem}.jpg")
        (folder / "train_masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray((made.areas(stem, 2) * 255).astype(np.uint8)).save(folder / "train_masks" / f"{stem}_mask.gif")
        made.photo(folder / "test" / f"1{stem[1:]}.jpg")
    write_text(folder / "train_masks.csv", "img,rle_mask\n00087a6bd4dc_00.jpg,1 2\n")
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


def lists_of_pairs(folder: Path) -> Made:
    """As PaddleSeg has them: a line names an image and its mask."""
    made = Made()
    for i in range(7):
        made.photo(folder / "images" / f"p{i}.jpg")
        png(folder / "annotations" / f"p{i}.png", made.areas(f"p{i}", 3))
    lines = [f"images/p{i}.jpg annotations/p{i}.png\n" for i in range(7)]
    write_text(folder / "train.txt", "".join(lines[:5]))
    write_text(folder / "val.txt", "".join(lines[5:]))
    write_text(folder / "labels.txt", "background\nroof\ntree\n")
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
    write_text(folder / "train.csv", "id,rle_mask\n000e,1 2\n")
    write_text(folder / "depths.csv", "id,z\n000e,443\n")
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
        write_jpeg(folder / "label" / f"{i}.jpg", mask * 255, 75)
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
