"""The parts of `make demo` before and after training."""

import os

import numpy as np

import demo


def test_photographs_and_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PHOTO_DIR", str(tmp_path))
    photos = demo._write_photos()
    assert sorted(photos) == sorted(os.listdir(tmp_path))
    for name, clean in photos.items():
        assert clean.shape == (3, demo.SIDE, demo.SIDE)
        noisy = demo._add_noise(clean, name)
        np.testing.assert_array_equal(noisy, demo._add_noise(clean, name))
        assert 20 < demo.metrics.psnr(clean, noisy, peak=255) < 22  # sigma 25 is 20.17 dB, slightly more when clipped.


def test_newest_run_by_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "99999-autoencoder-demo-1gpu-L-n2n",
        "100000-autoencoder-demo-1gpu-L-n2n",
        "100001-autoencoder-1gpu-L-n2n",
        "demo",
    ):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert demo._newest_run() == os.path.join("results", "100000-autoencoder-demo-1gpu-L-n2n")
