"""Tests of `--ensemble` against the mean over the turns and mirrors of the whole image, computed one by one."""

import csv

import numpy as np
import pytest
from PIL import Image

import config
import network
from dnnlib import tflib
from dnnlib.tflib import tf
from inference import tiling
from inference.ensemble import Ensemble

ORDERS = [(swap, up, left) for swap in (False, True) for up in (False, True) for left in (False, True)]


def mean_over_orders(run, x):
    """Mean of run(x) over the orders of rows and columns of x [C, H, W], padded to multiples of 32."""
    _, height, width = x.shape
    x = np.pad(x, [(0, 0), (0, -height % 32), (0, -width % 32)], mode="reflect")
    outputs = []
    for swap, up, left in ORDERS:
        order = np.arange(x[0].size).reshape(x[0].shape)
        order = order[::-1] if up else order
        order = order[:, ::-1] if left else order
        order = order.T if swap else order
        y, back = run(x.reshape(len(x), -1)[:, order.ravel()].reshape(-1, *order.shape)), np.empty_like(x)
        back.reshape(len(x), -1)[:, order.ravel()] = y.reshape(len(x), -1)
        outputs.append(back[:, :height, :width])
    return np.mean(outputs, axis=0)


@pytest.fixture
def net(net):
    """The network of random weights, with random biases."""
    rng = np.random.default_rng(1)
    biased = {k: v if "weight" in k else rng.normal(0, 0.1, v.shape) for k, v in net.get_values().items()}
    net.set_values(biased, "random biases")
    return net


@pytest.mark.parametrize("size", [(7, 40), (70, 401)])
def test_ensemble_in_tiles(net, size):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, [3, *size]).astype(np.float32)
    expected = mean_over_orders(lambda x: net.run(x[None])[0], x)
    assert tiling.tile_count(size, tiling.tile_shape(size, 0)) == (1 if size[1] < 352 else 3)
    tiled = tiling.denoise(Ensemble(net), x, max_pixels=0)
    np.testing.assert_allclose(tiled, expected, atol=2e-6 * np.abs(expected).max())
    assert np.abs(tiled - net.run(x[None])[0]).max() > 0.1


def test_ensemble_option(small_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, [40, 50, 3], dtype=np.uint8)
    (tmp_path / "set").mkdir()
    Image.fromarray(pixels).save("set/a.png")
    x = pixels.transpose(2, 0, 1) / np.float32(255) - np.float32(0.5)
    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder()
        session.run(tf.global_variables_initializer())
        tflib.save_snapshot(net, "net.pickle")
        outputs = {False: net.run(x[None])[0], True: mean_over_orders(lambda x: net.run(x[None])[0], x)}
    pictures = {key: ((y + 0.5) * 255).clip(0, 255).transpose(1, 2, 0) for key, y in outputs.items()}
    assert np.abs(pictures[True] - pictures[False]).mean() > 3

    words = ["--network-snapshot", "net.pickle", "--ensemble"]
    config.main(["infer-image", "--image", "set/a.png", "--out", "a.png", *words])
    np.testing.assert_allclose(np.asarray(Image.open("a.png")), pictures[True], atol=0.51)
    config.main(["infer-image", "--image", "set/a.png", "--out", "b.png", *words[:2]])
    np.testing.assert_allclose(np.asarray(Image.open("b.png")), pictures[False], atol=0.51)

    words += ["--noise", "gaussian", "--sigma", "0", "--precision", "float32"]
    config.main(["validate", "--dataset-dir", "set", *words])
    row = next(csv.DictReader(open("results/00000-autoencoder-validate/metrics.csv")))
    error = np.mean((pictures[True].round() - pixels) ** 2)
    assert float(row["psnr_denoised"]) == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
