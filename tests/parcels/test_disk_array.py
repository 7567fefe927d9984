import numpy as np
import pytest

from pixelwise.geo.raster import Window
from pixelwise.parcels.disk_array import RowFile


def test_windows_come_back_as_they_were_written_and_the_rest_is_zero(tmp_path):
    file, expected = RowFile(tmp_path / "n", 7, 9, np.int32), np.zeros((7, 9), np.int64)
    for number, window in enumerate(
        [Window(0, 0, 2, 9), Window(3, 4, 3, 2), Window(6, 8, 1, 1), Window(1, 0, 3, 5)], 1
    ):
        values = np.arange(window.height * window.width).reshape(window.height, window.width) + 100 * number
        file.write(window, values)
        expected[window.top : window.top + window.height, window.left : window.left + window.width] = values
    np.testing.assert_array_equal(file.read(Window(0, 0, 7, 9)), expected)
    np.testing.assert_array_equal(file.read(Window(2, 3, 4, 5)), expected[2:6, 3:8])
    assert (tmp_path / "n").stat().st_size == 7 * 9 * 4


def test_a_full_disk_is_an_error_and_no_crash(tmp_path, monkeypatch):
    file = RowFile(tmp_path / "n", 4, 4, np.int32)
    file.path = type(file.path)("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        file.write(Window(0, 0, 4, 4), np.ones((4, 4), int))
