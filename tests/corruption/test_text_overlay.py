"""Random text: what it leaves of an image, and the fonts of a folder."""

import re

import numpy as np
import pytest
from PIL import ImageFont

import dnnlib
from corruption.text_overlay import TextOverlay


def test_letters_are_legible_and_the_rest_is_untouched():
    x = np.random.default_rng(0).uniform(-0.5, 0.5, [3, 128, 160]).astype(np.float32)
    before = x.copy()
    y = TextOverlay((8, 40), None).write(x, 0.3, np.random.default_rng(1))
    np.testing.assert_array_equal(x, before)
    assert y.dtype == np.float32 and y.min() >= -0.5 and y.max() <= 0.5
    covered = (y != x).any(axis=0)
    assert covered.mean() == pytest.approx(0.3, abs=0.03)
    colours, counts = np.unique(y[:, covered].T, axis=0, return_counts=True)
    assert counts.max() > 30  # The body of a string has one colour; its edges blend with the image.
    assert len(colours[counts > 20]) > 3  # Each string has its own.
    assert counts[counts == 1].sum() > 0.2 * covered.sum()  # The pixels of the edges.
    thirds = [covered[:, left : left + 32].mean() for left in range(0, 160, 32)]
    assert min(thirds) > 0.05  # Text is everywhere.


def test_fonts_of_a_folder_are_used(tmp_path):
    font = ImageFont.load_default(20).font_bytes
    x = np.zeros([3, 64, 64], np.float32)
    with pytest.raises(dnnlib.UserError, match=r"no \.ttf or \.otf font there"):
        TextOverlay((8, 40), str(tmp_path))
    (tmp_path / "own.TTF").write_bytes(font)
    default, own = (TextOverlay((8, 40), d).write(x, 0.3, np.random.default_rng(1)) for d in (None, str(tmp_path)))
    np.testing.assert_array_equal(default, own)  # The same font in a file.
    (tmp_path / "broken.otf").write_bytes(b"no font")
    with pytest.raises(dnnlib.UserError, match=re.escape(str(tmp_path / "broken.otf"))):
        TextOverlay((8, 40), str(tmp_path))
    with pytest.raises(dnnlib.UserError, match="none: no such folder of fonts"):
        TextOverlay((8, 40), "none")
