"""Contact sheets of labelled pictures."""

import numpy as np
from conftest import smooth_image

from imaging import sheets


def test_pictures_are_in_their_places():
    rows = [[("label", smooth_image(64, 80, seed=3 * row + column)) for column in range(3)] for row in range(2)]
    sheet = np.asarray(sheets.labelled_sheet(rows)).transpose(2, 0, 1)
    for y, row in enumerate(rows):
        for x, (_, pixels) in enumerate(row):
            top, left = 94 * y + 30, 84 * x + 4
            np.testing.assert_array_equal(sheet[:, top : top + 64, left : left + 80], pixels)
    assert sheet[:, :30].min() < 128  # There is a label above the first row.


def test_centre():
    pixels = np.arange(5 * 8).reshape(5, 8)
    np.testing.assert_array_equal(sheets.centre(pixels, 3), pixels[1:4, 2:5])
    np.testing.assert_array_equal(sheets.centre(pixels, 6), pixels[:, 1:7])
