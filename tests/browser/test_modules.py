"""The page's own PNG files and masks, beside Pillow, rasterio and numpy."""

import io

import numpy as np
import pytest
from PIL import Image
from rasterio.features import rasterize

DECODE = """async (bytes) => {
  const { decode } = await import(new URL("static/png.js", document.baseURI));
  const { width, height, values } = await decode(new Blob([new Uint8Array(bytes)]));
  return [width, height, [...values]];
}"""
ENCODE = """async ([values, width, height]) => {
  const { encode } = await import(new URL("static/png.js", document.baseURI));
  return [...new Uint8Array(await (await encode(new Uint8Array(values), width, height)).arrayBuffer())];
}"""
PAINT = """async ([width, height, strokes, undone]) => {
  const { Mask } = await import(new URL("static/mask.js", document.baseURI));
  const mask = new Mask(width, height);
  for (const [kind, points, size, value] of strokes) {
    kind === "line" ? mask.line(...points, size, value) : mask.polygon(points, value);
    mask.commit();
  }
  for (let i = 0; i < undone; i++) mask.undo();
  const after = [...mask.values];
  while (mask.redo());
  return [after, [...mask.values]];
}"""


def png_of(picture, **options):
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return list(out.getvalue())


def smooth(height, width, high):
    """Values that make a PNG's encoder choose several filters."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 9, (height, width))
    return ((rows * 3 + columns * 2 + noise) % high).astype(np.uint16 if high > 256 else np.uint8)


@pytest.mark.parametrize(("colours", "bits"), [(2, 1), (4, 2), (16, 4), (256, 8)])
def test_the_numbers_of_a_palette_png_are_read(page, colours, bits):
    values = smooth(13, 21, colours)
    picture = Image.fromarray(values, "P")
    picture.putpalette([7] * 3 * colours)  # one colour for all: only the numbers tell them apart
    width, height, found = page.evaluate(DECODE, png_of(picture, bits=bits))
    assert (width, height) == (21, 13)
    assert found == values.ravel().tolist()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "I;16"])
def test_the_first_channel_of_other_pngs_is_read(page, mode):
    values = smooth(17, 30, 60_000 if mode == "I;16" else 256)
    picture = Image.fromarray(values)
    if mode in ("LA", "RGB"):
        others = [Image.fromarray(255 - values)] * (len(mode) - 1)
        picture = Image.merge(mode, [picture, *others])
    assert page.evaluate(DECODE, png_of(picture))[2] == values.ravel().tolist()


def test_pillow_reads_what_the_page_writes(page):
    values = smooth(19, 23, 256)
    content = bytes(page.evaluate(ENCODE, [values.ravel().tolist(), 23, 19]))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), values)


def test_a_polygon_fills_the_pixels_whose_centres_are_inside(page):
    corners = [[3.2, 1.7], [36.4, 5.1], [20.3, 18.6], [31.1, 27.9], [5.5, 24.2], [14.8, 11.3]]
    after, _ = page.evaluate(PAINT, [40, 30, [["polygon", corners, 0, 2]], 0])
    shape = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    assert np.array_equal(np.reshape(after, (30, 40)), rasterize([(shape, 2)], (30, 40), fill=255, dtype="uint8"))


def test_a_brush_covers_the_pixels_near_its_line(page):
    (x0, y0), (x1, y1), size = (5.3, 4.6), (31.8, 19.2), 7
    after, _ = page.evaluate(PAINT, [40, 30, [["line", [[x0, y0], [x1, y1]], size, 1]], 0])
    rows, columns = np.mgrid[:30, :40] + 0.5
    along = ((columns - x0) * (x1 - x0) + (rows - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = along.clip(0, 1)
    away = np.hypot(columns - x0 - along * (x1 - x0), rows - y0 - along * (y1 - y0))
    assert np.array_equal(np.reshape(after, (30, 40)), np.where(away <= size / 2, 1, 255))


def test_the_smallest_brush_paints_the_pixel_that_it_is_in(page):
    after, _ = page.evaluate(PAINT, [9, 9, [["line", [[3.9, 5.05], [3.9, 5.05]], 1, 0]], 0])
    assert np.argwhere(np.reshape(after, (9, 9)) == 0).tolist() == [[5, 3]]


def test_undo_takes_back_stroke_by_stroke_and_redo_brings_all_again(page):
    rng = np.random.default_rng(1)
    strokes = [
        ["line", rng.uniform(0, 50, (2, 2)).tolist(), int(rng.integers(1, 12)), int(rng.choice([0, 1, 255]))]
        for _ in range(6)
    ]
    some, _ = page.evaluate(PAINT, [50, 50, strokes[:4], 0])
    everything, _ = page.evaluate(PAINT, [50, 50, strokes, 0])
    undone, redone = page.evaluate(PAINT, [50, 50, strokes, 2])
    assert undone == some
    assert redone == everything
