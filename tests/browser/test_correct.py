"""A label is corrected, saved, and trained on."""

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from on_page import BRIGHT, COLOURS, drop, place, seen
from PIL import Image

import pixelwise as pw
from pixelwise.cli import commands

SIZE = (96, 64)
WATER = 2


def newest(folder):
    """Return the image and the mask that were saved last."""
    images = sorted((folder / "light" / "images").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return images[-1], folder / "light" / "masks" / f"{images[-1].stem}.png"


def mask_of(folder):
    with Image.open(newest(folder)[1]) as picture:
        return np.asarray(picture)


def stroke(page, *points):
    start, *rest = (place(page, *point, SIZE) for point in points)
    page.mouse.move(*start)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point)
    page.mouse.up()


def size(page, step):
    page.locator("#size").fill(str(step))


def save(page):
    page.get_by_role("button", name="Save correction").click()
    page.locator("#saved").wait_for()


@pytest.fixture
def painting(page, photo):
    drop(page, photo)
    page.locator("#opacity").fill("100")
    page.get_by_role("button", name="Correct labels").click()
    page.locator("#paint-as").get_by_text("water").click()
    size(page, 3)  # 5 pixels
    return page


def test_what_is_painted_is_saved_and_the_rest_is_left_out(painting, served):
    stroke(painting, (60, 20), (80, 20))
    assert seen(painting, *place(painting, 70, 20, SIZE)) == COLOURS["water"]
    save(painting)
    mask = mask_of(served.corrections)
    rows, columns = np.nonzero(mask == WATER)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (18, 22, 58, 82)
    assert set(np.unique(mask)) == {WATER, 255}
    assert np.array_equal(np.asarray(Image.open(newest(served.corrections)[0]))[:, 95], np.full((64, 3), BRIGHT))


def test_eraser_undo_and_redo(painting, served):
    undo, redo = painting.get_by_role("button", name="Undo"), painting.get_by_role("button", name="Redo")
    stroke(painting, (60, 20), (80, 20))
    painting.get_by_role("button", name="Eraser").click()
    stroke(painting, (70, 20), (70, 20))
    assert seen(painting, *place(painting, 70, 20, SIZE)) == COLOURS["bright"]
    undo.click()
    assert seen(painting, *place(painting, 70, 20, SIZE)) == COLOURS["water"]
    undo.click()
    assert painting.get_by_role("button", name="Save correction").is_disabled()
    redo.click()
    redo.click()
    save(painting)
    mask = mask_of(served.corrections)
    assert (mask[20, 62], mask[20, 70], mask[20, 78]) == (WATER, 255, WATER)


def test_a_polygon_is_filled(painting, served):
    painting.keyboard.press("p")
    for corner in ((10, 10), (40, 10), (40, 40), (10, 40), (10, 10)):
        painting.mouse.click(*place(painting, *corner, SIZE))
    save(painting)
    mask = mask_of(served.corrections)
    assert (mask[15:35, 15:35] == WATER).all()
    assert (mask[:5] == 255).all()
    assert (mask[:, 46:] == 255).all()


def test_the_rest_can_be_taken_as_right(painting, served):
    stroke(painting, (20, 20), (20, 20))
    painting.get_by_text("The rest is right").click()
    save(painting)
    mask = mask_of(served.corrections)
    painted = mask == WATER
    assert 10 < painted.sum() < 30
    assert (mask[:, :48][~painted[:, :48]] == 0).all()
    assert (mask[:, 48:] == 1).all()


def test_the_keyboard_paints_under_the_cross(painting, served):
    painting.locator("#map").focus()
    painting.keyboard.press("Space")
    assert painting.locator("#said").inner_text() == "Painted water"
    save(painting)
    rows, columns = np.nonzero(mask_of(served.corrections) == WATER)
    assert (rows.mean(), columns.mean()) == (pytest.approx(31.5, abs=1), pytest.approx(47.5, abs=1))


def test_nothing_painted_is_lost_without_a_question(painting):
    stroke(painting, (60, 20), (80, 20))
    painting.get_by_role("button", name="Back").click()
    painting.get_by_role("button", name="Keep").click()
    assert seen(painting, *place(painting, 70, 20, SIZE)) == COLOURS["water"]
    painting.get_by_role("link", name="pixelwise").click()
    painting.get_by_role("button", name="Throw away").click()
    painting.locator("#drop").wait_for()


def test_a_part_of_a_scene_is_corrected_where_it_lies(page, served, scene):
    page.locator("#path").fill(scene.name)
    page.get_by_role("button", name="Map it").click()
    page.locator("#legend li").first.wait_for()
    for _ in range(2):
        page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Correct labels").click()
    page.locator("#paint-as").get_by_text("water").click()
    page.get_by_text("The rest is right").click()
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    save(page)
    image, _ = newest(served.corrections)
    mask = mask_of(served.corrections)
    with rasterio.open(image) as part, rasterio.open(scene) as source:
        assert (part.width, part.height) == mask.shape[::-1]
        x, y = (round(each) for each in ~source.transform @ (part.transform @ (0, 0)))
        window = rasterio.windows.Window(x, y, part.width, part.height)
        assert np.array_equal(part.read(), source.read(window=window))
        truth = source.read(1, window=window) > 128
    assert 0 < (mask == WATER).sum() < 1000
    assert np.array_equal(mask[mask != WATER], truth[mask != WATER].astype(np.uint8))


def test_a_training_takes_what_was_corrected(painting, served, tmp_path):
    stroke(painting, (60, 20), (80, 40))
    painting.get_by_text("The rest is right").click()
    save(painting)
    program, command, configuration = painting.locator("#saved code").inner_text().split()
    assert (program, command) == ("pixelwise", "train")
    small = [f"--set=train.{each}" for each in ("steps=2", "batch_size=1", "crop_size=32", "workers=0", "device=cpu")]
    path = served.corrections / configuration
    done = CliRunner().invoke(commands, ["train", str(path), "--run", str(tmp_path / "run"), *small])
    assert done.exit_code == 0, done.output
    better = pw.load(tmp_path / "run", device="cpu")
    assert better.classes.names == tuple(COLOURS)
