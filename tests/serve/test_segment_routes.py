"""Images that people send."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from small_network import NORTH_UP, noise, write_scene
from small_server import error_of, photo, png

import pixelwise as pw


def picture(content):
    return Image.open(io.BytesIO(content))


def test_models_are_named_with_their_versions_and_classes(served):
    found = [(each["name"], each["version"], [c["name"] for c in each["classes"]]) for each in served.get("/models")]
    assert found == [
        ("fields", "1", ["background", "field", "boundary"]),
        ("fields", "2", ["background", "field", "boundary"]),
        ("other", "1", ["dark", "bright"]),
    ]


@pytest.mark.parametrize("size", [(48, 64), (100, 130)], ids=["one tile", "several tiles"])
def test_an_answer_is_that_of_the_predictor(served, model, size):
    values = photo(3, *size)
    expected = pw.load(model, device="cpu").segment(values)
    answer = served.segment(values, model="fields", include="labels,confidence,overlay")
    labels, shares, over = (picture(base64.b64decode(answer[key])) for key in ("labels", "confidence", "overlay"))
    assert np.array_equal(np.asarray(labels), expected.labels)
    assert np.abs(np.asarray(shares) / 255 - expected.confidence).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(np.asarray(over), np.asarray(expected.overlay()))
    counts = np.bincount(expected.labels.ravel(), minlength=3)
    assert [each["pixels"] for each in answer["classes"]] == counts.tolist()
    assert sum(each["share"] for each in answer["classes"]) == pytest.approx(1)
    assert (answer["height"], answer["width"]) == size


def test_the_palette_of_a_png_is_that_of_the_classes(served):
    answer = served.send("/segment", image=("a.png", png(photo(4))), model="fields", output="labels")
    labels = picture(answer.data)
    assert labels.mode == "P"
    colours = np.array(labels.getpalette()).reshape(-1, 3)[:3]
    assert ["#{:02x}{:02x}{:02x}".format(*c) for c in colours] == [
        c["color"] for c in served.get("/models")[0]["classes"]
    ]


def test_outlines_cover_the_image_in_pixels_or_in_degrees(served, tmp_path):
    shapely = pytest.importorskip("shapely")
    values = noise(3, 40, 50)
    photo_answer = served.send(
        "/segment", image=("a.png", png(np.moveaxis(values, 0, -1))), model="fields", output="geojson"
    ).json()
    shapes = [shapely.geometry.shape(each["geometry"]) for each in photo_answer["features"]]
    assert sum(shape.area for shape in shapes) == 40 * 50
    scene = write_scene(tmp_path / "scene.tif", values, transform=NORTH_UP, crs=32616)
    placed = served.send("/segment", image=("scene.tif", scene.read_bytes()), model="fields", output="geojson").json()
    assert (photo_answer["coordinates"], placed["coordinates"]) == ("pixels", "degrees")
    # 500 km east of UTM's origin is the zone's meridian, 87 degrees west.
    west, south, east, north = shapely.total_bounds([shapely.geometry.shape(f["geometry"]) for f in placed["features"]])
    assert west == pytest.approx(-87, abs=1e-4)
    assert 0 < east - west < 0.01
    assert 41.4 < south < north < 41.7


def test_where_there_is_no_data_there_is_no_class(served):
    values = np.dstack([photo(5), np.full((48, 64), 255, np.uint8)])
    values[:10, :, 3] = 0
    answer = served.segment(values, model="fields", include="labels")
    labels = np.asarray(picture(base64.b64decode(answer["labels"])))
    assert (labels[:10] == 255).all()
    assert (labels[10:] < 3).all()
    assert sum(each["pixels"] for each in answer["classes"]) == 38 * 64


def test_requests_at_once_get_each_its_own_answer(served, model):
    predictor = pw.load(model, device="cpu")
    images = {seed: photo(seed, 32 + seed % 3 * 16) for seed in range(24)}
    expected = {seed: predictor.segment(values).labels for seed, values in images.items()}

    def ask(seed):
        found = served.send("/segment", image=("a.png", png(images[seed])), model="fields", output="labels")
        return seed, np.asarray(picture(found.data))

    with ThreadPoolExecutor(12) as pool:
        for seed, labels in pool.map(ask, images):
            assert np.array_equal(labels, expected[seed]), seed


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"image": ("a.png", b"no image at all")}, 422, "unreadable_image"),
        ({"image": ("a.png", b"")}, 422, "unreadable_image"),
        ({"image": ("a.png", png(photo(0))[:200])}, 422, "unreadable_image"),
        ({"image": ("a.png", png(photo(0)[..., 0]))}, 422, "unreadable_image"),
        ({"image": ("a.png", png(photo(0, 200, 200)))}, 413, "too_large"),
        ({"image": ("a.vrt", b"<VRTDataset><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>")}, 422, None),
        ({"image": ("a.png", png(photo(0))), "model": "none"}, 404, "no_model"),
        ({"image": ("a.png", png(photo(0))), "model": ""}, 422, "no_model"),
        ({"image": ("a.png", png(photo(0))), "version": "7"}, 404, "no_model"),
        ({"image": ("a.png", png(photo(0))), "output": "music"}, 422, "wrong_request"),
        ({"image": ("a.png", png(photo(0))), "include": "labels,music"}, 422, "wrong_value"),
        ({}, 422, "wrong_request"),
    ],
)
def test_what_is_wrong_is_said_without_the_servers_folders(served, fields, status, code):
    answer = served.send("/segment", **{"model": "fields", **fields})
    assert answer.status == status
    error = error_of(answer)
    assert set(error) == {"code", "message", "fix"}
    assert code in (None, error["code"])
    assert error["message"]
    assert "/tmp" not in answer.data.decode()


def test_a_header_that_promises_too_many_pixels_is_refused_before_anything_is_decoded(served):
    small = png(np.zeros((8, 8, 3), np.uint8))
    # The width and height in the header of a PNG, whose checksum GDAL does not need to describe it.
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    answer = served.send("/segment", image=("a.png", bomb), model="fields")
    assert answer.status in (413, 422)
    assert "60000" in answer.data.decode()


def test_a_page_and_its_files_come_from_the_server_alone(served):
    page = served.ask("GET", "/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    docs = served.ask("GET", "/docs")
    assert b"/segment" in docs.data
    for content in (page.data, docs.data):
        assert b'src="http' not in content
        assert b'href="http' not in content.replace(b'href="https://github.com', b"")
    for trick in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert served.ask("GET", trick).status == 404
