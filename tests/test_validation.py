"""Validation and inference, as a user runs them."""

import csv
import os
import re

import numpy as np
import pytest
from PIL import Image

import config
import images
import metrics
import network
from dnnlib import tflib
from dnnlib.tflib import tf


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """A network that gives back its input, up to rounding: some of its kernels pass the image through.

    leaky ReLU(x + 1) = x + 1 for images, so a bias of 1 takes every channel through the activations unchanged.
    """
    path = str(tmp_path_factory.mktemp("network") / "identity.pickle")
    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder()
        session.run(tf.global_variables_initializer())
        values = {name: np.zeros_like(value) for name, value in net.get_values().items()}
        for channel in range(3):
            values["dec_conv1a/weight"][1, 1, 96 + channel, channel] = 1  # The input follows 96 upsampled channels.
            values["dec_conv1a/bias"][channel] = 1
            values["dec_conv1b/weight"][1, 1, channel, channel] = 1
            values["dec_conv1/weight"][1, 1, channel, channel] = 1
            values["dec_conv1/bias"][channel] = -1
        net.set_values(values, "identity")
        tflib.save_snapshot(net, path)
    return path


def test_validate_writes_metrics_and_repeats_itself(command, photos, snapshot, tmp_path):
    (tmp_path / "set").mkdir()
    for name in os.listdir(photos):
        Image.open(photos / name).save(tmp_path / "set" / name)
    (tmp_path / "set" / "broken.png").write_bytes(b"no image")
    args = ["validate", "--dataset-dir", "set", "--network-snapshot", snapshot, "--noise", "gaussian", "--seed", 7]
    runs = [command("config.py", *args), command("config.py", *args)]
    for run in runs:
        assert run.returncode == 0, run.stderr
        assert "set/broken.png: not an image" in run.stdout
    tables = [open(tmp_path / f"results/0000{i}-autoencoder-validate/metrics.csv").read() for i in (0, 1)]
    assert tables[0] == tables[1]

    *rows, mean = csv.DictReader(tables[0].splitlines())
    assert [row["image"] for row in rows] == sorted(os.listdir(photos)) and mean["image"] == "mean"
    assert (rows[0]["width"], rows[0]["height"]) == ("96", "80")
    for row in rows:  # Clipping to bytes is all that can help here.
        assert float(row["psnr_denoised"]) == pytest.approx(float(row["psnr_noisy"]), abs=0.01)
        assert 20 < float(row["psnr_noisy"]) < 22.5  # sigma 25: 20.2 dB without clipping.
        assert 0 < float(row["ssim_noisy"]) < 1
    printed = float(re.search(r"^Average PSNR: (\d+\.\d\d)$", runs[0].stdout, re.M)[1])
    assert printed == pytest.approx(np.mean([float(r["psnr_denoised"]) for r in rows]), abs=0.006)
    assert float(mean["psnr_denoised"]) == pytest.approx(printed, abs=0.006)


def test_noisy_images_are_compared_with_clean_ones(command, noisy_shots, snapshot, tmp_path):
    words = ["--noise", "none", "--dataset-dir", noisy_shots / "b", "--network-snapshot", snapshot]
    done = command("config.py", "validate", *words, "--reference-dir", noisy_shots / "clean")
    assert done.returncode == 0, done.stderr
    *rows, mean = csv.DictReader(open(tmp_path / "results/00000-autoencoder-validate/metrics.csv"))
    assert [row["image"] for row in rows] == [f"photo{k}.bmp" for k in range(4)]
    for row in rows:  # The noise of the files, and no other: the network gives back what it is given.
        clean = np.asarray(Image.open(noisy_shots / "clean" / row["image"].replace("bmp", "png")))
        noisy = np.asarray(Image.open(noisy_shots / "b" / row["image"]))
        assert float(row["psnr_noisy"]) == pytest.approx(metrics.psnr(clean, noisy, peak=255), abs=1e-4)
        assert float(row["psnr_denoised"]) == pytest.approx(float(row["psnr_noisy"]), abs=0.01)
    assert f"Average PSNR: {float(mean['psnr_denoised']):.2f}" in done.stdout

    (tmp_path / "some").mkdir()
    Image.new("RGB", (7, 7)).save(tmp_path / "some" / "photo0.png")
    done = command("config.py", "validate", *words, "--reference-dir", "some")
    assert done.returncode == 1
    missing = [f"{noisy_shots}/b/photo{k}.bmp: has no partner in some" for k in (1, 2, 3)]
    size = f"some/photo0.png: is 7x7, but {noisy_shots}/b/photo0.bmp is 96x80"
    assert done.stderr.splitlines()[:4] == [*missing, size]


def test_a_folder_with_nothing_readable_is_an_error(command, snapshot, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command("config.py", "validate", "--dataset-dir", "empty", "--network-snapshot", snapshot)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: empty: no image there can be read"


KINDS = [("RGB", (33, 47)), ("L", (64, 64)), ("LA", (20, 10)), ("RGBA", (5, 70)), ("I;16", (9, 9))]


@pytest.mark.parametrize("mode,size", KINDS)
def test_infer_image_writes_the_same_kind_of_image(snapshot, tmp_path, monkeypatch, mode, size):
    monkeypatch.chdir(tmp_path)
    rng, (width, height) = np.random.default_rng(0), size
    if mode == "I;16":
        pixels = rng.integers(0, 65536, [height, width], dtype=np.uint16)
    else:
        channels = [] if mode == "L" else [len(mode)]
        pixels = rng.integers(0, 256, [height, width, *channels], dtype=np.uint8)
    Image.fromarray(pixels).save("in.png")
    config.main(["infer-image", "--image", "in.png", "--out", "new/out.png", "--network-snapshot", snapshot])
    with Image.open("new/out.png") as out:
        assert out.mode == mode and out.size == size
        np.testing.assert_allclose(np.asarray(out).astype(int), pixels, atol=1)
    assert not os.path.exists("results")


@pytest.mark.parametrize(
    "change,status,message",
    [
        ({"--image": "none.png"}, 1, "error: none.png: no such file or folder"),
        ({"--out": "out.xyz"}, 1, "error: out.xyz: no image format is known by the suffix '.xyz'; use .png"),
        ({"--image": "alpha.png", "--out": "out.jpg"}, 1, "error: out.jpg: cannot write mode RGBA as JPEG; use .png"),
        ({"--out": "in.png/out.png"}, 1, "error: in.png/out.png: in.png is not a folder"),
        ({"--network-snapshot": "in.png"}, 1, "error: in.png: "),
        ({"--out": None}, 2, "config.py infer-image: error: the following arguments are required: --out"),
    ],
)
def test_mistakes_end_in_one_line(command, snapshot, tmp_path, change, status, message):
    Image.new("RGB", (8, 8)).save(tmp_path / "in.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "alpha.png")
    options = {"--image": "in.png", "--out": "out.png", "--network-snapshot": snapshot} | change
    done = command("config.py", "infer-image", *(w for name, value in options.items() if value for w in (name, value)))
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].startswith(message)
    assert sorted(os.listdir(tmp_path)) == ["alpha.png", "in.png"]


def test_identical_images_have_a_finite_psnr():
    image = np.zeros([3, 4, 4], np.uint8)
    assert metrics.psnr(image, image, peak=255) == 100


def test_compare_shows_a_row_for_each_network(snapshot, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "--image", str(photos / "photo0.png"), "--out", "new/sheet.png"]
    config.main([*words, f"text={snapshot}", f"poisson-gaussian={snapshot}"])
    sheet = images.read_rgb("new/sheet.png")
    height, width = 80, 96
    assert sheet.shape == (3, 2 * (height + 30) + 4, 3 * (width + 4) + 4)
    clean = images.read_rgb(photos / "photo0.png")
    for top in (30, height + 60):
        noisy, restored, last = (sheet[:, top : top + height, left : left + width] for left in (4, 104, 204))
        np.testing.assert_array_equal(last, clean)
        assert metrics.psnr(noisy, clean, peak=255) < 25
        np.testing.assert_allclose(restored.astype(int), noisy, atol=1)  # The network gives back its input.
    assert not os.path.exists("results")
