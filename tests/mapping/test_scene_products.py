"""What is written for a scene besides its classes, and which scenes there may be."""

import dataclasses
import json
import re
from itertools import product
from unittest.mock import patch
from xml.etree import ElementTree as Xml

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.shutil import copy
from small_network import NORTH_UP, card_of, noise, predictor_of, runs, small_network, write_scene

from pixelwise.errors import ConfigError, DataError
from pixelwise.inference.images import ArrayReader
from pixelwise.inference.tile_grid import plan_strips
from pixelwise.inference.tiling import Tiling, read_tile
from pixelwise.mapping.capacity import PIXEL_BYTES, exact_batch, fitting_streams, fitting_tile, piece_bytes, threads
from pixelwise.mapping.pieces import make_pieces, places
from pixelwise.predictor import Predictor


def read(path):
    with rasterio.open(path) as file:
        return file.read()


@pytest.mark.parametrize("sides", [(600, 530), (70, 90), (300, 64), (40, 50)])
def test_probabilities_of_all_classes_agree_with_the_class_and_its_confidence(tmp_path, sides):
    values = noise(4, *sides)
    values[3] = np.where(np.arange(sides[1]) < 20, 0, 255)
    scene = write_scene(tmp_path / "scene.tif", values, photometric="rgb", alpha="yes")
    predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True, probabilities=True)
    labels, confidence = read(tmp_path / "map.tif")[0], read(tmp_path / "map.confidence.tif")[0]
    shares = read(tmp_path / "map.probabilities.tif")
    assert shares.shape == (3, *sides)
    valid = labels != 255
    np.testing.assert_array_equal(shares == 255, np.broadcast_to(~valid, shares.shape))
    assert np.abs(shares.max(axis=0).astype(int) - confidence)[valid].max() <= 1
    best = np.take_along_axis(shares, np.where(valid, labels, 0)[None].astype(int), 0)[0]
    assert (shares.max(axis=0).astype(int) - best)[valid].max() <= 1
    assert np.abs(shares.sum(axis=0, dtype=int)[valid] - 254).max() <= 2
    with rasterio.open(tmp_path / "map.probabilities.tif") as file, rasterio.open(scene) as source:
        assert (file.crs, file.transform, file.nodata) == (source.crs, source.transform, 255)
        assert file.descriptions[1] == "class 1: its probability, 0 to 254 for 0 to 1"


def test_a_cloud_optimised_map_holds_what_the_plain_one_does(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 700, 1100))
    for name, cog in (("plain", False), ("cloud", True)):
        predictor_of().map_scene(
            scene, tmp_path / f"{name}.tif", tile=512, overlap=128, confidence=True, probabilities=True, cog=cog
        )
    for product_name in ("", ".confidence", ".probabilities"):
        plain, cloud = (tmp_path / f"{name}{product_name}.tif" for name in ("plain", "cloud"))
        np.testing.assert_array_equal(read(plain), read(cloud))
        with rasterio.open(plain) as one, rasterio.open(cloud) as other:
            # Of the classes there is one kind of file.
            assert one.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == (None if product_name else "COG")
            assert other.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert one.overviews(1) == other.overviews(1) == [2, 4]
            assert one.transform == other.transform
            assert one.descriptions == other.descriptions
    with rasterio.open(tmp_path / "plain.tif") as one, rasterio.open(tmp_path / "cloud.tif") as other:
        assert one.colormap(1) == other.colormap(1)
        tags = other.tags()
        assert json.loads(tags["PIXELWISE_CLASSES"]) == ["class 0", "class 1", "class 2"]
        assert tags["PIXELWISE_MODEL"] == "0123abcd"


def test_a_style_has_the_colours_and_names_of_the_classes(tmp_path):
    scene, predictor = write_scene(tmp_path / "scene.tif", noise(3, 70, 90)), predictor_of()
    predictor.map_scene(scene, tmp_path / "map.tif")
    entries = list(Xml.parse(tmp_path / "map.qml").iter("paletteEntry"))
    assert [entry.get("label") for entry in entries] == list(predictor.classes.names)
    assert [entry.get("value") for entry in entries] == ["0", "1", "2"]
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in predictor.classes.palette]
    assert [entry.get("color") for entry in entries] == colours


def write_area(path, *pixels: tuple[int, int, int, int]):
    """Boxes of pixels (top, left, bottom, right) as polygons."""
    boxes = [
        shapely.Polygon([NORTH_UP @ (x, y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))])
        for top, left, bottom, right in pixels
    ]
    pyogrio.raw.write(path, shapely.to_wkb(boxes), [], [], geometry_type="Polygon", crs="EPSG:32616", driver="GPKG")
    return path


def test_inside_an_area_of_interest_the_map_is_that_of_the_whole_scene(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 500, 400))
    area = write_area(tmp_path / "area.gpkg", (30, 40, 130, 97), (290, 333, 400, 390))
    everything, some = predictor_of(), predictor_of()
    everything.map_scene(scene, tmp_path / "whole.tif", confidence=True, probabilities=True)
    made = some.map_scene(scene, tmp_path / "map.tif", confidence=True, probabilities=True, aoi=area)
    inside = np.zeros((500, 400), bool)
    inside[30:130, 40:97] = inside[290:400, 333:390] = True
    for name in ("", ".confidence", ".probabilities"):
        whole, part = read(tmp_path / f"whole{name}.tif"), read(tmp_path / f"map{name}.tif")
        np.testing.assert_array_equal(part, np.where(inside, whole, 255))
    assert runs(some) < 0.6 * runs(everything), "tiles away from it cost nothing"
    assert sum(made.shares.values()) == pytest.approx(1)


def test_an_area_of_interest_is_a_layer_of_a_file_or_a_folder(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 100))
    area = write_area(tmp_path / "area.gpkg", (10, 20, 60, 90))
    predictor_of().map_scene(scene, tmp_path / "map.tif", area=area)
    shapes = [shapely.from_wkb(each) for each in pyogrio.raw.read(area)[2]]
    other = {"geometry_type": "Polygon", "crs": "EPSG:32616"}
    pyogrio.raw.write(tmp_path / "two.gpkg", shapely.to_wkb(shapes), [], [], layer="inner", driver="GPKG", **other)
    pyogrio.raw.write(
        tmp_path / "two.gpkg", shapely.to_wkb([shapely.box(0, 0, 1, 1)]), [], [], layer="far", driver="GPKG", **other
    )
    pyogrio.raw.write(tmp_path / "area.gdb", shapely.to_wkb(shapes), [], [], driver="OpenFileGDB", **other)
    for name in ("two.gpkg:inner", "area.gdb"):
        predictor_of().map_scene(scene, tmp_path / "other.tif", area=tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / "other.tif"), read(tmp_path / "map.tif"))


def test_an_area_of_interest_that_cannot_be_is_named(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 100))
    with pytest.raises(DataError, match=r"none\.gpkg.*area of interest"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", aoi=tmp_path / "none.gpkg")
    area = write_area(tmp_path / "far.gpkg", (3000, 3000, 3100, 3100))
    with pytest.raises(DataError, match=r"No polygon of .*far\.gpkg touches"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", aoi=area)


def test_the_old_name_of_an_area_of_interest_still_works_and_tells_the_new_one(tmp_path):
    scene, predictor = write_scene(tmp_path / "scene.tif", noise(3, 200, 200)), predictor_of()
    area = write_area(tmp_path / "area.gpkg", (30, 40, 130, 97))
    predictor.map_scene(scene, tmp_path / "new.tif", aoi=area)
    with pytest.warns(DeprecationWarning, match="aoi="):
        predictor.map_scene(scene, tmp_path / "old.tif", area=area)
    with pytest.warns(DeprecationWarning, match="aoi="):
        tiles = predictor.forecast(scene, area=area).tiles
    assert tiles == predictor.forecast(scene, aoi=area).tiles
    np.testing.assert_array_equal(read(tmp_path / "old.tif"), read(tmp_path / "new.tif"))


@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 1), ("uint16", 4), ("int16", 2), ("float32", 7)])
def test_any_type_and_number_of_bands_with_nodata(tmp_path, dtype, bands):
    values = noise(bands, 130, 150).astype(dtype)
    values[:, :70, :80] = 7
    scene = write_scene(tmp_path / "scene.tif", values, nodata=7)
    predictor_of(bands=bands, dtype=dtype).map_scene(scene, tmp_path / "map.tif")
    expected = (values == 7).any(axis=0)
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[0] == 255, expected)


def test_batches_change_no_byte(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 300, 330))
    maps = []
    for batch in (1, 2, 3, 8, None):
        predictor = predictor_of()
        predictor.map_scene(scene, tmp_path / "map.tif", batch=batch, confidence=True, probabilities=True)
        # 9 x 10 tiles; random ones are tried first, together and alone.
        tried = 0 if batch in (1, None) else 1 + batch
        together = [count for count, *_, side in predictor.model.encoder.seen[tried + 1 :] if side == 64]
        assert sorted(together, reverse=True) == [batch or 1] * (90 // (batch or 1)) + [1] * (90 % (batch or 1))
        names = ("map.tif", "map.confidence.tif", "map.probabilities.tif")
        maps.append([(tmp_path / name).read_bytes() for name in names])
    assert all(each == maps[0] for each in maps)
    with pytest.raises(ConfigError, match="batch of 0"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", batch=0)


def test_a_batch_whose_answers_differ_from_those_of_single_tiles_is_not_used(tmp_path):
    network = small_network()
    reader = ArrayReader(noise(3, 300, 300), np.ones((300, 300), bool))
    tiling = Tiling(network, reader, card_of(network), plan_strips(300, 300, 64, 32, 4))
    assert exact_batch(tiling, 4) == 4
    decode = network.decode

    def sloppy(images):
        decoded = decode(images)
        return type(decoded)(decoded.logits + 1e-7 * (len(images) > 2))

    with patch.object(network, "decode", sloppy):
        assert exact_batch(tiling, 8) == 2
    with patch.object(network, "decode", lambda images: type(decode(images))(decode(images).logits * len(images))):
        assert exact_batch(tiling, 8) == 1


def test_tiles_that_are_decoded_at_the_same_time_change_no_byte(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 300, 330))
    maps, names = [], ("map.tif", "map.confidence.tif", "map.probabilities.tif")
    for count in (1, 2, 7, 8):
        with threads(count):
            predictor = predictor_of()
            predictor.map_scene(scene, tmp_path / "map.tif", confidence=True, probabilities=True)
        assert runs(predictor) == 1 + 90
        maps.append([(tmp_path / name).read_bytes() for name in names])
    assert all(each == maps[0] for each in maps)


@given(st.integers(1, 10**4), st.integers(1, 10**4), st.integers(0, 10**11), st.integers(1, 40), st.integers(1, 16))
def test_as_many_tiles_are_decoded_at_once_as_threads_memory_and_python_allow(height, width, room, count, batch):
    network = small_network()
    reader = ArrayReader(np.zeros((3, 1, 1), np.uint8), np.ones((1, 1), bool))
    tiling = Tiling(network, reader, card_of(network), plan_strips(height, width, 512, 128, 4))
    tiles = sum(map(len, tiling.plan.rows))
    streams = fitting_streams(tiling, batch, cores=count, room=room)
    unlimited = fitting_streams(tiling, None, cores=count, room=None)
    window = tiling.plan.rows[0][0]
    taken = PIXEL_BYTES * batch * window.height * window.width
    assert 1 <= streams <= unlimited == min(8, count, tiles)
    assert streams == 1 or streams * taken <= 0.8 * room
    assert streams == unlimited or (streams + 1) * taken > 0.8 * room


def test_threads_that_read_and_their_number_change_no_byte(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 300, 330))
    maps = []
    for readers, ahead in product((1, 5), (1, 50)):
        with patch("pixelwise.inference.prefetch.READERS", readers), patch("pixelwise.inference.tiling.AHEAD", ahead):
            predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True)
        maps.append([(tmp_path / name).read_bytes() for name in ("map.tif", "map.confidence.tif")])
    assert all(each == maps[0] for each in maps)


def test_blended_logits_are_within_1e_5_of_the_whole_in_float64(tmp_path):
    """Of the network's scale, which is 1 here; the map's own cells are compared, before they are upsampled."""
    network = small_network(classes=5)
    reader = ArrayReader(noise(3, 300, 330), np.ones((300, 330), bool))
    tiling = Tiling(network, reader, card_of(network), plan_strips(300, 330, 64, 32, 4))
    made = [piece.cells for _, piece, _ in make_pieces(tiling, places(tiling.plan), {}, cells=True)]
    cells = np.concatenate(made, axis=1)
    total, weights = np.zeros(cells.shape), np.zeros(cells.shape[1:])
    slope = np.minimum(1, (np.minimum(np.arange(16), np.arange(16)[::-1]) + 0.5) / 8)
    exact = small_network(classes=5).double()
    for row in tiling.plan.rows:
        for window in row:
            image = torch.from_numpy(read_tile(reader, window, tiling.card).image)[None].double()
            area = np.s_[window.top // 4 : window.top // 4 + 16, window.left // 4 : window.left // 4 + 16]
            total[:, *area] += exact.decode(image).logits[0].numpy() * np.outer(slope, slope)
            weights[area] += np.outer(slope, slope)
    assert np.abs(cells - total / weights).max() < 1e-5
    full = F.interpolate(torch.from_numpy(total / weights)[None], scale_factor=4, mode="bilinear")[0]
    labels = np.concatenate([piece.labels for _, piece, _ in make_pieces(tiling, places(tiling.plan), {})])
    best = full.topk(2, dim=0).values[:, :300, :330]
    clear = (best[0] - best[1] > 2e-5).numpy()
    np.testing.assert_array_equal(labels[clear], full.argmax(0).numpy()[:300, :330][clear])


def test_a_forecast_counts_tiles_and_bounds_memory_and_size(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 700, 900))
    predictor = predictor_of()
    with threads(4):
        told = predictor.forecast(scene, confidence=True)
    assert (told.tile, told.overlap, told.batch, told.streams, told.strips) == (64, 32, 1, 4, 21)
    assert told.tiles == 21 * 28
    assert 0 < told.seconds < 60
    assert told.output_bytes >= 2 * 700 * 900
    # Classes, confidence, and at the end classes once more with their smaller copies.
    assert told.journal_bytes > (2 + 4 / 3) * 700 * 900
    area = write_area(tmp_path / "area.gpkg", (30, 40, 130, 97))
    assert predictor.forecast(scene, aoi=area).tiles < told.tiles / 10
    assert "588 tiles of 64 pixels (overlap 32, 4 at once) in 21 strips" in str(told)


def test_tiles_are_halved_until_a_row_of_them_fits_the_memory():
    info = ArrayReader(np.zeros((1, 1, 1), np.uint8), np.ones((1, 1), bool)).info
    wide = dataclasses.replace(info, height=5_000, width=200_000)
    needed = piece_bytes(plan_strips(5_000, 200_000, 1024, 256, 4), 150)
    assert fitting_tile(wide, 1024, 256, 4, 150, room=2 * needed) == (1024, 256)
    assert fitting_tile(wide, 1024, 256, 4, 150, room=needed) == (512, 128)
    assert fitting_tile(wide, 1024, 256, 4, 150, room=1) == (128, 32)
    assert fitting_tile(wide, 1024, 256, 4, 150, room=None) == (1024, 256)


def test_a_predictor_keeps_the_tile_with_which_a_map_was_begun(tmp_path):
    scene, predictor = write_scene(tmp_path / "scene.tif", noise(3, 300, 200)), predictor_of()

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.map_scene(scene, tmp_path / "map.tif", tile=96, overlap=32, advance=stop)
    again: Predictor = predictor_of()
    said: list[str] = []
    again.map_scene(scene, tmp_path / "map.tif", say=said.append)
    assert any("going on" in text for text in said)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["PIXELWISE_TILE"] == "96"


@pytest.mark.parametrize("products", [{}, {"confidence": True, "probabilities": True, "cog": True}])
def test_control_points_and_rpcs_of_a_scene_are_those_of_its_maps(tmp_path, products):
    points = [
        GroundControlPoint(r, c, 500_000 + 2 * c + r / 4, 4_600_000 - 2 * r) for r in (0, 40) for c in (0, 25, 50)
    ]
    zero = [0.0] * 17
    rpcs = RPC(
        **{f"{name}_off": 20.0 for name in ("height", "line", "samp")},
        **{f"{name}_scale": 20.0 for name in ("height", "line", "samp", "lat", "long")},
        **{"lat_off": 40.0, "long_off": -87.0, "err_bias": 0.0, "err_rand": 0.0},
        **{f"{name}_num_coeff": [0.0, 0.0, 1.0, *zero] for name in ("line", "samp")},
        **{f"{name}_den_coeff": [1.0, 0.0, 0.0, *zero] for name in ("line", "samp")},
    )
    for place in ({"gcps": points, "crs": "EPSG:32616"}, {"rpcs": rpcs}):
        scene = write_scene(tmp_path / "scene.tif", noise(3, 40, 50), **{"crs": None, "transform": None, **place})
        made = predictor_of().map_scene(scene, tmp_path / "map.tif", **products)
        for path in (path for path in made.files if path.suffix == ".tif"):
            with rasterio.open(scene) as source, rasterio.open(path) as file:
                found, expected = (
                    ([(p.row, p.col, p.x, p.y) for p in each.gcps[0]], each.gcps[1], each.rpcs)
                    for each in (file, source)
                )
            assert found == expected
            assert found[0] or found[2] is not None


def test_a_scene_without_any_place_is_named(tmp_path):
    said = []
    scene = write_scene(tmp_path / "scene.tif", noise(3, 40, 50), crs=None, transform=None)
    predictor_of().map_scene(scene, tmp_path / "map.tif", say=said.append)
    assert said == [f"{scene} has no coordinate system, so its map has none."]


def test_a_map_is_not_written_over_what_its_scene_is_made_of_nor_over_its_area(tmp_path):
    parts = [write_scene(tmp_path / f"{name}.tif", noise(3, 40, 50)) for name in ("part", "part.confidence")]
    for inner, name in ((parts[0], "inner"), (tmp_path / "inner.vrt", "outer")):
        copy(inner, tmp_path / f"{name}.vrt", driver="VRT")
    before = [path.read_bytes() for path in parts]
    for scene in (parts[0], tmp_path / "inner.vrt", tmp_path / "outer.vrt"):
        with pytest.raises(ConfigError, match="so that the scene is kept"):
            predictor_of().map_scene(scene, parts[0])
    predictor_of().map_scene(parts[1], tmp_path / "other.tif")
    with pytest.raises(ConfigError, match="so that the scene is kept"):
        predictor_of().map_scene(parts[1], tmp_path / "part.tif", confidence=True)
    area = write_area(tmp_path / "area.gpkg", (5, 5, 30, 30))
    (tmp_path / "map.tif").symlink_to(area)
    with pytest.raises(ConfigError, match="so that the area of interest is kept"):
        predictor_of().map_scene(parts[1], tmp_path / "map.tif", aoi=area)
    assert [path.read_bytes() for path in parts] == before


def test_a_forecast_never_says_that_something_takes_nothing(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 20, 30))
    told = str(predictor_of().forecast(scene))
    assert not re.search(r"\b0 (s|MB)", told)
    assert str(dataclasses.replace(predictor_of().forecast(scene), seconds=0.001)).count("at most 1 s") == 1
