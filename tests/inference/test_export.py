"""Tests of `export`: converted snapshots; SavedModels and ONNX files, which serve without this code."""

import functools
import json
import os
import resource
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from conftest import ROOT
from PIL import Image

import config
import config_mri
import dnnlib
import network
from dnnlib import tflib
from dnnlib.tflib import tf
from mri.model import Model

SERVE = """
import importlib.util, sys
sys.path = [path for path in sys.path if path != sys.argv[1]]  # The project, where it is installed in place.
import numpy as np
import tensorflow as tf
assert not any(map(importlib.util.find_spec, ("dnnlib", "network", "validation")))
model = tf.saved_model.load(sys.argv[2]).signatures["serving_default"]
for path in sys.argv[3:]:
    x = tf.constant(np.load(path))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(image=x)["denoised"]
    assert np.any(tape.gradient(y, x))
    np.save(path, y)
"""


SAMPLES = {"dtype": "uint16", "black": 100.0, "white": 4095.0}


def write_network(folder, channels, data=None):
    """Write the snapshot of a network with random weights and biases; return its path."""
    path = str(folder / "network.pickle")
    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder(channels=channels)
        session.run(tf.global_variables_initializer())
        rng = np.random.default_rng(0)
        biased = {k: v if "weight" in k else rng.normal(0, 0.1, v.shape) for k, v in net.get_values().items()}
        net.set_values(biased, "random biases")
        net.data = data or {}
        tflib.save_snapshot(net, path)
    return path


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("rgb"), channels=3)


@pytest.fixture(scope="module")
def grey_snapshot(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("grey"), channels=1, data={"samples": SAMPLES})


@pytest.fixture(scope="module")
def mri_snapshot(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("mri") / "network.pkl")
    with tf.Graph().as_default(), tflib.create_session() as session:
        model, optimizer = Model(None), tflib.Optimizer(1e-3, beta1=0.9, beta2=0.99, epsilon=1e-8)
        optimizer.minimize(model.losses["image"], [tf.zeros([1, 255, 255])] * 5, ["/cpu:0"])
        session.run(tf.global_variables_initializer())
        model.save(path)
    return path


def run_network(load, path, images):
    with tf.Graph().as_default(), tflib.create_session():
        net = load(path)
        return [net.run(x) for x in images]


load_images = functools.partial(network.load_autoencoder, portable=True)


def load_mri(path):
    model = Model(None)
    model.load(path)
    return model.network


@pytest.mark.parametrize(
    "main,load,shapes",
    [
        (config.main, load_images, [(2, 3, 50, 70), (1, 3, 64, 33)]),
        (config_mri.main, load_mri, [(2, 255, 255)]),
    ],
)
def test_saved_model(request, tmp_path, monkeypatch, capfd, main, load, shapes):
    monkeypatch.chdir(tmp_path)
    path = request.getfixturevalue("mri_snapshot" if main == config_mri.main else "snapshot")
    main(["export", "--network-snapshot", path, "--out", "models/denoiser"])
    assert capfd.readouterr() == (f"Exported {path} to models/denoiser.\n", "")
    assert os.listdir("models") == ["denoiser"]

    inputs = [np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes]
    files = [tmp_path / f"{i}.npy" for i in range(len(inputs))]
    for file, x in zip(files, inputs):
        np.save(file, x)
    words = [
        sys.executable,
        "-I",
        "-c",
        SERVE,
        ROOT,
        tmp_path / "models/denoiser",
        *files,
    ]  # -I: no PYTHONPATH, no cwd.
    served = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert served.returncode == 0, served.stderr
    for file, y in zip(files, run_network(load, path, inputs)):
        np.testing.assert_allclose(np.load(file), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "kind,main,load,shapes",
    [
        ("snapshot", config.main, load_images, [(1, 3, 1, 7), (2, 3, 50, 70)]),
        ("grey_snapshot", config.main, load_images, [(1, 1, 33, 20), (3, 1, 64, 32)]),
        ("mri_snapshot", config_mri.main, load_mri, [(2, 255, 255), (1, 255, 255)]),
    ],
)
def test_onnx(request, tmp_path, monkeypatch, capsys, kind, main, load, shapes):
    monkeypatch.chdir(tmp_path)
    path = request.getfixturevalue(kind)
    main(["export", "--network-snapshot", path, "--out", "new/denoiser.onnx"])
    assert capsys.readouterr().out == f"Exported {path} to new/denoiser.onnx.\n"
    metadata = check_onnx("new/denoiser.onnx", shapes, run_network(load, path, random_images(shapes)))
    samples = {"samples": json.dumps(SAMPLES)} if kind == "grey_snapshot" else {}
    assert metadata == {"black": "-0.5", "white": "0.5"} | samples


def random_images(shapes):
    return [np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes]


def check_onnx(path, shapes, outputs):
    """Compare an ONNX file with the network's outputs for random images; return its metadata."""
    session = onnxruntime.InferenceSession(path)
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    assert (x.name, y.name) == ("image", "denoised") and x.shape == y.shape
    for image, expected in zip(random_images(shapes), outputs):
        (found,) = session.run(None, {"image": image})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert np.ptp(expected) > 0.1
    return session.get_modelmeta().custom_metadata_map


def test_rgb_conversion(snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.main(["export", "--network-snapshot", snapshot, "--out", "new/between.safetensors"])
    config.main(["export", "--network-snapshot", "new/between.safetensors", "--out", "last.pickle"])
    assert open(snapshot, "rb").read() == open("last.pickle", "rb").read()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, [40, 50, 3], dtype=np.uint8)).save("in.png")
    for path, out in ((snapshot, "a.png"), ("new/between.safetensors", "b.png")):
        config.main(["infer-image", "--image", "in.png", "--out", out, "--network-snapshot", path])
    assert open("a.png", "rb").read() == open("b.png", "rb").read()


def test_mri_conversion(mri_snapshot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config_mri.main(["export", "--network-snapshot", mri_snapshot, "--out", "between.safetensors"])
    config_mri.main(["export", "--network-snapshot", "between.safetensors", "--out", "last.pkl"])
    first, last = (tflib.load_snapshot(path).variables for path in (mri_snapshot, "last.pkl"))
    assert set(first) == set(last) and {"beta1_power", "dec_conv1/W/Adam_1"} < set(first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, last[name])


@pytest.mark.parametrize(
    "main,change,message",
    [
        (config.main, {"--out": "x.h5"}, r"x\.h5: no network has the suffix '\.h5'; use \.pickle, \.saf"),
        (config.main, {"--out": "full/file/x.onnx"}, r"full/file/x\.onnx: full/file is not a folder"),
        (config.main, {"--out": "full/"}, "full/: is not empty; name a new folder"),
        (config.main, {"--out": "full/file/"}, "full/file/: is a file; name a folder"),
        (config.main, {"--out": "full/file/model"}, "full/file/model: full/file is not a folder"),
        (config.main, {"--network-snapshot": "none.pickle"}, r"none\.pickle: no such file"),
        (config.main, {"--network-snapshot": "mri"}, "network.pkl: .* lacks dec_conv1/bias, .*; it has beta1_power, "),
        (config_mri.main, {}, r"network\.pickle: .* lacks dec_conv1/W, .*; it has dec_conv1/bias, "),
    ],
)
def test_refused_exports(snapshot, mri_snapshot, tmp_path, monkeypatch, main, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    options = {"--network-snapshot": snapshot, "--out": "new/model"} | change
    options["--network-snapshot"] = options["--network-snapshot"].replace("mri", mri_snapshot)
    with pytest.raises(dnnlib.UserError, match=message):
        main(["export", *(word for option in options.items() for word in option)])
    assert os.listdir() == ["full"] and os.listdir("full") == ["file"]


@pytest.mark.parametrize("out", ["model", "network.safetensors", "network.onnx"])
def test_full_disk(snapshot, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises((dnnlib.UserError, OSError)) as caught:
            config.main(["export", "--network-snapshot", snapshot, "--out", out])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    line = dnnlib.util.describe_error(caught.value)
    assert line.startswith(f"{out}: ") and line.endswith("File too large")
    assert os.listdir() == []


def test_dry_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for main in (config.main, config_mri.main):
        with pytest.raises(dnnlib.UserError, match=r"^a\.pickle: no such file or folder$"):
            main(["export", "--network-snapshot", "a.pickle", "--out", "model", "--dry-run"])
        assert capsys.readouterr().out == "network_snapshot = 'a.pickle'\nout = 'model'\n"
    assert os.listdir() == []
