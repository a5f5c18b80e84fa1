"""Tests of `config.py validate` and `compare`."""

import csv
import math
import os
import re

import numpy as np
import pytest
from PIL import Image

import config
import corruption
import network
import validation
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import metrics, rgb_files


def test_validate(command, photos, snapshot, tmp_path):
    (tmp_path / "set").mkdir()
    for name in os.listdir(photos):
        Image.open(photos / name).save(tmp_path / "set" / name)
    os.rename(tmp_path / "set" / "photo3.png", os.fsencode(tmp_path / "set" / "photo3") + b"\xff.png")
    (tmp_path / "set" / "broken.png").write_bytes(b"no image")
    args = ["validate", "--dataset-dir", "set", "--network-snapshot", snapshot, "--noise", "gaussian", "--seed", 7]
    args += ["--precision", "float32"]  # bfloat16 rounds more than 0.01 dB.
    runs = [command("config.py", *args), command("config.py", *args, "--save-images=false")]
    for run in runs:
        assert run.returncode == 0, run.stderr
        assert "set/broken.png: not an image" in run.stdout
    folders = [tmp_path / f"results/0000{i}-autoencoder-validate" for i in (0, 1)]
    tables = [(folder / "metrics.csv").read_text(errors="surrogateescape") for folder in folders]
    assert tables[0] == tables[1]

    *rows, mean = csv.DictReader(tables[0].splitlines())
    assert [row["image"] for row in rows] == [*sorted(os.listdir(photos))[:3], "photo3\udcff.png"]
    assert mean["image"] == "mean"
    assert (rows[0]["width"], rows[0]["height"]) == ("96", "80")
    for row in rows:  # The network changes nothing; only clipping to bytes does.
        assert float(row["psnr_denoised"]) == pytest.approx(float(row["psnr_noisy"]), abs=0.01)
        assert 20 < float(row["psnr_noisy"]) < 22.5  # sigma 25: 20.2 dB without clipping.
        assert 0 < float(row["ssim_noisy"]) < 1
    for index, row in enumerate(rows):
        kinds = {kind: f"{folders[0]}/img_0_val_{index}_{kind}.png" for kind in ("noisy", "pred", "orig")}
        noisy, denoised, clean = (np.asarray(Image.open(path)) for path in kinds.values())
        assert np.array_equal(clean, np.asarray(Image.open(tmp_path / "set" / row["image"])))
        for measure, pixels in (("psnr_noisy", noisy), ("psnr_denoised", denoised)):
            assert float(row[measure]) == pytest.approx(metrics.psnr(clean, pixels, peak=255), abs=1e-4)
    assert len([*folders[0].glob("*.png")]) == 12 and not [*folders[1].glob("*.png")]
    average = float(re.search(r"^Average PSNR: (\d+\.\d\d)$", runs[0].stdout, re.M)[1])
    assert average == pytest.approx(np.mean([float(r["psnr_denoised"]) for r in rows]), abs=0.006)
    assert float(mean["psnr_denoised"]) == pytest.approx(average, abs=0.006)


def test_reference_dir(noisy_shots, snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["validate", "--noise", "none", "--dataset-dir", f"{noisy_shots}/b", "--network-snapshot", snapshot]
    config.main([*words, "--reference-dir", f"{noisy_shots}/clean"])
    *rows, mean = csv.DictReader(open(tmp_path / "results/00000-autoencoder-validate/metrics.csv"))
    assert [row["image"] for row in rows] == [f"photo{k}.bmp" for k in range(4)]
    for row in rows:  # No noise is added to that of the files, and the network changes nothing.
        clean = np.asarray(Image.open(noisy_shots / "clean" / row["image"].replace("bmp", "png")))
        noisy = np.asarray(Image.open(noisy_shots / "b" / row["image"]))
        assert float(row["psnr_noisy"]) == pytest.approx(metrics.psnr(clean, noisy, peak=255), abs=1e-4)
        assert float(row["psnr_denoised"]) == pytest.approx(float(row["psnr_noisy"]), abs=0.01)
    assert f"Average PSNR: {float(mean['psnr_denoised']):.2f}" in capsys.readouterr().out

    (tmp_path / "some").mkdir()
    Image.new("RGB", (7, 7)).save(tmp_path / "some" / "photo0.png")
    with pytest.raises(SystemExit):
        config.main([*words, "--reference-dir", "some"])
    missing = [f"{noisy_shots}/b/photo{k}.bmp: has no partner in some" for k in (1, 2, 3)]
    size = f"some/photo0.png: is 7x7, but {noisy_shots}/b/photo0.bmp is 96x80"
    assert capsys.readouterr().err.splitlines()[:4] == [*missing, size]


def test_empty_folder(snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        config.main(["validate", "--dataset-dir", "empty", "--network-snapshot", snapshot])
    assert capsys.readouterr().err.splitlines()[0] == "error: empty: no image there can be read"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values,mean", [((0.5, math.nan, 0.7), 0.6), ((math.nan, math.nan), math.nan)])
def test_mean_without_nan(values, mean):
    rows = [{"image": "a.png", "ssim_noisy": value} for value in values]
    assert validation._mean_row(rows)["ssim_noisy"] == pytest.approx(mean, nan_ok=True)


def test_noise_is_not_clipped(photos, snapshot, tmp_path):
    """A network that scales its input by 0.3 shows values beyond black and white and between steps of 1/255."""
    noise = corruption.create("gaussian")
    with tf.Graph().as_default(), tflib.create_session():
        net = network.load_autoencoder(snapshot)
        values = net.get_values()
        values["dec_conv1/weight"] *= 0.3  # 0.3 (x + 1)
        values["dec_conv1/bias"] *= 0.3  # - 0.3
        net.set_values(values, "scaled")
        for result in validation.ValidationSet(str(photos), noise, seed=7).evaluate(net):
            noisy = noise.for_validation(result.clean / 255 - 0.5, 7, result.name)
            expected = np.floor((0.3 * noisy + 0.5) * 255 + 0.5).clip(0, 255)
            error = np.mean((result.clean - expected) ** 2)
            assert np.mean(result.denoised != expected) < 0.001
            assert result.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)


def test_compare(snapshot, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "--image", str(photos / "photo0.png"), "--out", "new/sheet.png"]
    config.main([*words, f"text={snapshot}", f"poisson-gaussian={snapshot}"])
    sheet = rgb_files.read_rgb("new/sheet.png")
    height, width = 80, 96
    assert sheet.shape == (3, 2 * (height + 30) + 4, 3 * (width + 4) + 4)
    clean = rgb_files.read_rgb(photos / "photo0.png")
    for top in (30, height + 60):
        noisy, restored, last = (sheet[:, top : top + height, left : left + width] for left in (4, 104, 204))
        np.testing.assert_array_equal(last, clean)
        assert metrics.psnr(noisy, clean, peak=255) < 25
        np.testing.assert_allclose(restored.astype(int), noisy, atol=1)  # The network gives back its input.
    assert not os.path.exists("results")
