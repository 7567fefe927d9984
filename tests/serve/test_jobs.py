"""Scenes that become maps while nobody waits."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from small_network import noise, write_photo, write_scene
from small_server import error_of, photo, png, serving

import pixelwise as pw
from pixelwise.serve.job import read_job
from pixelwise.serve.options import Folders, Limits, ServeOptions, Work

HEIGHT, WIDTH = 300, 520


def blocks(height, width, side=20):
    """Return noise in squares, so that there are parcels rather than specks."""
    coarse = noise(3, -(-height // side), -(-width // side), seed=2)
    return np.kron(coarse, np.ones((1, side, side), np.uint8))[:, :height, :width]


@pytest.fixture(scope="module")
def scene(served):
    return write_scene(served.base / "scenes" / "deep" / "scene.tif", blocks(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def done(served, scene):
    made = served.send("/jobs", path="deep/scene.tif", model="other", version="1")
    assert made.status == 202
    assert made.headers["Location"] == f"/jobs/{made.json()['id']}"
    job = served.wait(made.json()["id"])
    assert job["state"] == "done", job
    return job


def picture(answer):
    assert answer.status == 200, answer.data
    return Image.open(io.BytesIO(answer.data))


def test_a_job_makes_the_map_that_the_command_makes(served, done, scene, tmp_path):
    expected = pw.load(served.base / "other", device="cpu").map_scene(
        scene, tmp_path / "map.tif", confidence=True, cog=True
    )
    assert {each["name"]: each["share"] for each in done["classes"]} == expected.shares
    assert (done["width"], done["height"], done["georeferenced"]) == (WIDTH, HEIGHT, True)
    for kind, name in (("map", "map.tif"), ("confidence", "map.confidence.tif")):
        got = tmp_path / f"got.{kind}.tif"
        got.write_bytes(served.ask("GET", done["files"][kind]).data)
        with rasterio.open(got) as one, rasterio.open(tmp_path / name) as other:
            assert np.array_equal(one.read(), other.read())
            assert (one.crs, one.transform) == (other.crs, other.transform)


def test_parcels_are_a_layer_of_a_geopackage_and_shapes_in_pixels(served, done, tmp_path):
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    (tmp_path / "p.gpkg").write_bytes(served.ask("GET", done["files"]["parcels"]).data)
    assert pyogrio.read_info(tmp_path / "p.gpkg")["features"] == done["parcel_count"] > 1
    found = served.get(f"/jobs/{done['id']}/parcels")
    shapes = [shapely.geometry.shape(each["geometry"]) for each in found["features"]]
    # 2 m to a pixel.
    areas = [each["properties"]["area_m2"] for each in found["features"]]
    assert np.allclose([shape.area * 4 for shape in shapes], areas, rtol=0.01)
    left, top, right, bottom = shapely.total_bounds(shapes)
    assert 0 <= left < right <= WIDTH
    assert 0 <= top < bottom <= HEIGHT
    few = served.get(f"/jobs/{done['id']}/parcels?bbox=10,10,60,60&limit=2")
    assert len(few["features"]) == 2
    assert few["truncated"]
    box = shapely.box(10, 10, 60, 60)
    assert all(box.intersects(shapely.geometry.shape(each["geometry"])) for each in few["features"])


def test_tiles_show_the_scene_and_its_map_pixel_by_pixel(served, done, scene, tmp_path):
    with rasterio.open(scene) as file:
        values = np.moveaxis(file.read(), 0, -1)
    (tmp_path / "map.tif").write_bytes(served.ask("GET", done["files"]["map"]).data)
    with rasterio.open(tmp_path / "map.tif") as file:
        labels = file.read(1)
    base = f"/jobs/{done['id']}/tiles"
    # ceil(log2(520 / 256)) is 2.
    tile = np.asarray(picture(served.ask("GET", f"{base}/scene/2/1/0.png")))
    assert np.array_equal(tile, values[:256, 256:512])
    drawn = np.asarray(picture(served.ask("GET", f"{base}/map/2/1/1.png")))
    assert np.array_equal(drawn[:44], labels[256:300, 256:512])
    assert (drawn[44:] == 255).all()
    shown = picture(served.ask("GET", f"{base}/map/2/1/1.png")).convert("RGBA")
    assert (np.asarray(shown)[44:, :, 3] == 0).all()
    assert (np.asarray(shown)[:44, :, 3] == 255).all()
    whole = np.asarray(picture(served.ask("GET", f"{base}/scene/0/0/0.png")))
    # The mean of 4 x 4 pixels, about.
    means = values[:HEIGHT, :WIDTH].reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean((1, 3))
    assert np.abs(whole[:75, :130] - means).max() <= 1
    assert served.ask("GET", f"{base}/map/2/3/0.png").status == 204
    assert served.ask("GET", f"{base}/map/3/0/0.png").status == 204
    assert served.ask("GET", f"{base}/map/-1/0/0.png").status == 204


def test_a_pixel_tells_its_class_and_confidence(served, done, tmp_path):
    (tmp_path / "map.tif").write_bytes(served.ask("GET", done["files"]["map"]).data)
    (tmp_path / "share.tif").write_bytes(served.ask("GET", done["files"]["confidence"]).data)
    with rasterio.open(tmp_path / "map.tif") as one, rasterio.open(tmp_path / "share.tif") as other:
        label, share = one.read(1)[120, 333], other.read(1)[120, 333]
    found = served.get(f"/jobs/{done['id']}/pixel?x=333&y=120")
    assert (found["class_id"], found["class"]) == (label, done["classes"][label]["name"])
    assert found["confidence"] == pytest.approx(share / 254)
    assert served.ask("GET", f"/jobs/{done['id']}/pixel?x={WIDTH}&y=0").status == 422


def test_parts_of_a_map_are_sent(served, done):
    answer = served.ask("GET", done["files"]["map"], headers={"Range": "bytes=0-3"})
    assert (answer.status, answer.data) == (206, b"II*\0")


def test_a_photo_becomes_a_job_without_parcels(served, tmp_path):
    path = write_photo(tmp_path / "photo.png", noise(3, 40, 40))
    made = served.send("/jobs", scene=("../../photo.png", path.read_bytes()), model="fields").json()
    assert made["scene"] == "photo.png"
    job = served.wait(made["id"])
    assert job["state"] == "done"
    assert set(job["files"]) == {"map", "confidence"}
    assert "no place on the ground" in " ".join(job["notes"])
    assert served.ask("DELETE", f"/jobs/{job['id']}").status == 204
    assert served.ask("GET", f"/jobs/{job['id']}").status == 404
    assert not (served.base / "jobs" / job["id"]).exists()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../jobs", 403),
        ("../../../../etc/passwd", 403),
        ("/etc/passwd", 403),
        ("deep/../../secret.tif", 403),
        ("link.tif", 403),
        ("linked/scene.tif", 403),
        ("\0", 403),
        ("deep", 404),
        ("none.tif", 404),
        ("a" * 5000, 403),
    ],
)
def test_paths_lead_nowhere_but_to_scenes(served, scene, path, status):
    secret = write_scene(served.base / "secret.tif", noise(3, 40, 40))
    for link, target in (("link.tif", secret), ("linked", scene.parent.parent.parent)):
        place = served.base / "scenes" / link
        if not place.is_symlink():
            place.symlink_to(target)
    answer = served.send("/jobs", path=path, model="fields")
    assert answer.status == status, answer.data
    assert str(served.base) not in answer.data.decode()


def test_scenes_that_can_be_named_are_listed_and_links_are_not(served, scene):
    assert [each["path"] for each in served.get("/scenes")] == ["deep/scene.tif"]


@pytest.mark.parametrize("number", ["0" * 16, "..", "%2e%2e", "a/b", "x"])
def test_a_job_that_is_none_is_not_found(served, number):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/pixel?x=0&y=0"), ("GET", "/files/map.tif")):
        assert served.ask(method, f"/jobs/{number}{path}").status in (404, 405)


def test_a_scene_that_does_not_fit_is_refused_before_a_job_is_made(served, tmp_path):
    before = len(served.get("/jobs"))
    grey = write_scene(tmp_path / "grey.tif", noise(1, 40, 40))
    large = write_scene(tmp_path / "large.tif", noise(3, 1100, 1000))
    for path, status in ((grey, 422), (large, 413)):
        answer = served.send("/jobs", scene=(path.name, path.read_bytes()), model="fields")
        assert answer.status == status
        assert "/tmp" not in error_of(answer)["message"]
    assert served.send("/jobs", scene=("a.tif", b"II*\0"), model="fields").status == 422
    assert served.send("/jobs", model="fields").status == 422
    assert len(served.get("/jobs")) == before
    assert not list((served.base / "jobs").glob(".incoming-*"))


def test_a_job_that_waits_is_cancelled_and_more_than_allowed_are_refused(model, tmp_path):
    limits = Limits(jobs=1)
    options = ServeOptions(limits=limits, folders=Folders(tmp_path / "jobs"), work=Work(device="cpu", workers=1))
    with serving(model, options=options) as client:
        jobs, sent = client.app.service.jobs, ("a.png", png(photo(1)))
        first = client.send("/jobs", scene=sent).json()
        client.wait(first["id"])
        # From here on nobody takes jobs from the line.
        jobs._line.put(None)
        jobs._thread.join()
        second = client.send("/jobs", scene=sent).json()
        third = client.send("/jobs", scene=sent)
        assert (third.status, error_of(third)["code"]) == (429, "too_many_jobs")
        assert client.ask("DELETE", f"/jobs/{second['id']}").json()["state"] == "cancelled"
        assert client.ask("GET", f"/jobs/{second['id']}/files/map.tif").status == 409


SERVER = """
import sys, os, time, threading
import small_server
from pixelwise.serve.options import Folders, ServeOptions, Work
from pixelwise.predictor import Predictor
from pixelwise.mapping import journal, map_scene
import torch
torch.set_num_threads(1)
map_scene.PIECE = 64
keep, made = journal.Journal.keep, []
def deadly(self, *arguments):
    keep(self, *arguments)
    made.append(1)
    print("piece", flush=True)
    if len(made) == 4:
        os.kill(os.getpid(), 9)
if sys.argv[3] == "die":
    journal.Journal.keep = deadly
options = ServeOptions(folders=Folders(__import__("pathlib").Path(sys.argv[2])), work=Work(device="cpu", workers=1))
with small_server.serving(sys.argv[1], options=options) as client:
    print(client.port, flush=True)
    sys.stdin.read()
"""


def started(model, jobs, how):
    small = Path(__file__).parents[1] / "small"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(small), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(model), str(jobs), how], stdin=-1, stdout=-1, text=True, env=env
    )
    return process, int(process.stdout.readline())


def test_a_job_of_a_killed_server_goes_on_where_it_was(model, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", blocks(200, 260))
    jobs = tmp_path / "jobs"
    process, port = started(model, jobs, "die")
    import urllib3

    made = urllib3.request(
        "POST", f"http://127.0.0.1:{port}/jobs", fields={"scene": ("scene.tif", scene.read_bytes())}, retries=False
    ).json()
    assert process.wait(timeout=60) == -signal.SIGKILL
    folder = jobs / made["id"]
    assert read_job(folder).state == "running"
    kept = sorted(path.name for path in (folder / ".map.tif.parts").glob("piece-*"))
    assert len(kept) >= 4
    options = ServeOptions(folders=Folders(jobs), work=Work(device="cpu", workers=1))
    from pixelwise.mapping import map_scene

    patched = pytest.MonkeyPatch()
    patched.setattr(map_scene, "PIECE", 64)
    with patched.context(), serving(model, options=options) as client:
        job = client.wait(made["id"])
    patched.undo()
    assert job["state"] == "done", job
    assert any("were finished before" in note for note in job["notes"]), job["notes"]
    expected = pw.load(model, device="cpu").map_scene(scene, tmp_path / "map.tif")
    with rasterio.open(folder / "map.tif") as one, rasterio.open(expected.path) as other:
        assert np.array_equal(one.read(), other.read())
