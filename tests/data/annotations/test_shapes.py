"""Pixels of shapes, compared with shapely's answer for each pixel's centre."""

import math

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.data.annotations.shapes import Bitmap, Ellipse, Polygon, paint, rectangle
from pixelwise.geo.raster import Window

CORNER = st.tuples(st.integers(-4, 16), st.integers(-4, 16))


def centres(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return x.ravel(), y.ravel()


@settings(max_examples=60, deadline=None)
@given(st.lists(CORNER, min_size=3, max_size=7))
def test_a_polygon_has_the_pixels_whose_centres_shapely_finds_inside(corners):
    outline = shapely.Polygon(corners)
    if not outline.is_valid or outline.area == 0:
        return
    x, y = centres(12, 12)
    inside = shapely.contains_xy(outline, x, y).reshape(12, 12)
    on_edge = shapely.distance(outline.exterior, shapely.points(x, y)).reshape(12, 12) < 1e-9
    drawn = paint([(Polygon(((np.array(corners, float),),)), 5)], Window(0, 0, 12, 12), -1)
    assert (drawn[inside & ~on_edge] == 5).all()
    assert (drawn[~inside & ~on_edge] == -1).all()


def test_holes_stay_empty_and_overlapping_parts_do_not_cancel():
    square = np.array([(0, 0), (8, 0), (8, 8), (0, 8)], float)
    hole = np.array([(2, 2), (4, 2), (4, 4), (2, 4)], float)
    holed = paint([(Polygon(((square, hole),)), 1)], Window(0, 0, 8, 8), 0)
    assert holed.sum() == 64 - 4
    assert (holed[2:4, 2:4] == 0).all()
    both = paint([(Polygon(((square,), (hole,))), 1)], Window(0, 0, 8, 8), 0)
    assert both.sum() == 64


def test_later_shapes_lie_on_top_and_what_reaches_out_is_cut_off():
    shapes = [(rectangle(-5, -5, 20, 8), 1), (Ellipse(4, 4, 2, 2), 2), (rectangle(0, 0, 1, 1), 3)]
    drawn = paint(shapes, Window(0, 0, 6, 6), 0)
    assert drawn[0, 0] == 3
    assert drawn[0, 5] == 1
    assert drawn[3, 3] == drawn[4, 4] == 2
    assert drawn[5, 0] == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(3, 9), st.floats(3, 9), st.floats(1, 6), st.floats(1, 6), st.floats(0, 360))
def test_an_ellipse_has_about_its_area_and_turns_clockwise(x, y, a, b, degrees):
    drawn = paint([(Ellipse(x + 10, y + 10, a, b, degrees), 1)], Window(0, 0, 32, 32), 0)
    assert abs(int(drawn.sum()) - math.pi * a * b) <= 2 * math.pi * max(a, b) + 2
    # A point on the long axis, turned by hand.
    tip = x + 10 + 0.9 * a * math.cos(math.radians(degrees)), y + 10 + 0.9 * a * math.sin(math.radians(degrees))
    column, row = int(tip[0]), int(tip[1])
    near = drawn[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    assert near.any()


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_a_window_shows_what_the_whole_image_shows(top, left, height, width):
    bitmap = Bitmap(3, 5, 4, 6, lambda: np.arange(24).reshape(6, 4) % 3 == 0)
    star = Polygon(((np.array([(1, 1), (30, 4), (5, 29), (17, 2), (25, 28)], float),),))
    shapes = [(star, 1), (bitmap, 2), (Ellipse(20, 20, 7, 3, 30), 3)]
    whole = paint(shapes, Window(0, 0, 32, 32), 0)
    part = paint(shapes, Window(top, left, height, width), 0)
    assert (part == whole[top : top + height, left : left + width]).all()


def test_shapes_of_a_resized_image_grow_with_it():
    bitmap = Bitmap(1, 2, 2, 1, lambda: np.array([[True, False]]))
    shapes = [(rectangle(0, 0, 2, 1).scaled(2, 2), 1), (bitmap.scaled(2, 2), 2)]
    drawn = paint(shapes, Window(0, 0, 8, 8), 0)
    assert (drawn[0:2, 0:4] == 1).all()
    assert (drawn[4:6, 2:4] == 2).all()
    assert (drawn == 1).sum() == 8
    assert (drawn == 2).sum() == 4
