"""Tests of `config.py preview`."""

import numpy as np
import pytest

import config
import corruption
from imaging import rgb_files

STEPS = config.PROGRAM.defaults("preview").steps


@pytest.mark.parametrize("noise,rows", [("bernoulli", 2), ("poisson-gaussian", 1 + STEPS)])
def test_preview(photos, tmp_path, monkeypatch, capsys, noise, rows):
    image = photos / "photo1.png"  # 72 x 72.
    monkeypatch.chdir(tmp_path)
    config.main(["preview", "--noise", noise, "--image", str(image), "--out", "new/sheet.png"])
    assert capsys.readouterr().out == "Wrote new/sheet.png.\n"
    sheet = rgb_files.read_rgb("new/sheet.png")
    assert sheet.shape == (3, rows * 102 + 4, STEPS * 76 + 4)
    tiles = [
        [sheet[:, top : top + 72, left : left + 72] for left in range(4, sheet.shape[2] - 72, 76)]
        for top in range(30, sheet.shape[1], 102)
    ]
    clean = rgb_files.read_rgb(image)
    np.testing.assert_array_equal(tiles[0][0], clean)
    if noise == "bernoulli":
        settings = corruption.create("bernoulli").values
        low, high = settings["train_p"]
        missing = [(tile != clean).any(axis=0).mean() for tile in tiles[1]]
        np.testing.assert_allclose(missing, np.linspace(low, high, STEPS), atol=0.05)
        assert (tiles[0][1] != clean).any(axis=0).mean() == pytest.approx(settings["p"], abs=0.05)
    assert sheet[:, :30].min() < 128  # There is text above the first row.
