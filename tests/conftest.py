"""Helpers that several tests share: small data, networks, and commands run in this process or as a process."""

import os
import struct
import subprocess
import sys

import google_crc32c
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDEN_DIR = os.path.join(ROOT, "tests", "golden")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a main function in this process and in the folder of the test; the result is that of `command`."""
    import dnnlib

    def run(main, *args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["command", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            dnnlib.cli_main(main)
        return subprocess.CompletedProcess(args, caught.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def command(tmp_path):
    """Run a script of the project as a process in the folder of the test; returns the finished process."""

    def run(script, *args, timeout=300):
        words = [sys.executable, os.path.join(ROOT, script), *map(str, args)]
        options = {"capture_output": True, "text": True, "errors": "surrogateescape"}  # File names are bytes.
        return subprocess.run(words, cwd=tmp_path, timeout=timeout, **options)

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of four small smooth colour images, one of them smaller than a crop."""
    folder = tmp_path_factory.mktemp("photos")
    for index, (height, width) in enumerate([(80, 96), (72, 72), (40, 100), (96, 64)]):
        Image.fromarray(smooth_image(height, width, seed=index).transpose(1, 2, 0)).save(folder / f"photo{index}.png")
    return folder


@pytest.fixture(scope="session")
def training_file(photos, tmp_path_factory):
    """A TFRecords file of `photos`."""
    from imaging import images, rgb_files
    from records import tfrecords

    path = str(tmp_path_factory.mktemp("records") / "train.tfrecords")
    tfrecords.write_images(path, (rgb_files.read_rgb(p) for p in images.list_images(photos)))
    return path


@pytest.fixture(scope="session")
def noisy_shots(photos, tmp_path_factory):
    """A folder with subfolders: `clean` with `photos`; `a`, `b` and `c` with noisy shots of them, as BMP and PNG."""
    folder, rng = tmp_path_factory.mktemp("shots"), np.random.default_rng(0)
    for path in sorted(photos.iterdir()):
        clean = np.asarray(Image.open(path))
        for kind, suffix in {"clean": ".png", "a": ".png", "b": ".bmp", "c": ".png"}.items():
            (folder / kind).mkdir(exist_ok=True)
            noise = rng.normal(0, 0 if kind == "clean" else 20, clean.shape)
            pixels = np.clip(clean + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / (path.stem + suffix))
    return folder


@pytest.fixture(scope="session")
def shots_file(noisy_shots, tmp_path_factory):
    """A TFRecords file of `noisy_shots`, three per scene."""
    from imaging import images, rgb_files
    from records import tfrecords

    path = str(tmp_path_factory.mktemp("records") / "shots.tfrecords")
    scenes = enumerate(zip(*(images.list_images(noisy_shots / kind) for kind in "abc")))
    tfrecords.write_shots(path, ((rgb_files.read_rgb(p), scene) for scene, paths in scenes for p in paths))
    return path


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory):
    """The snapshot of a network in colour that returns its input up to rounding."""
    return identity_network(str(tmp_path_factory.mktemp("network") / "identity.pickle"), channels=3)


@pytest.fixture(scope="session")
def grey_snapshot(tmp_path_factory):
    """The snapshot of a greyscale network that returns its input up to rounding, multiplied by 0.5."""
    return identity_network(str(tmp_path_factory.mktemp("network") / "grey.pickle"), channels=1, factor=0.5)


@pytest.fixture(scope="session")
def shifting_snapshot(tmp_path_factory):
    """The snapshot of a network in colour that adds 0.2 to green."""
    return identity_network(str(tmp_path_factory.mktemp("network") / "shift.pickle"), channels=3, added=(0, 0.2, 0))


@pytest.fixture
def net():
    """A network in colour with random weights and without biases, on the default session."""
    import network
    from dnnlib import tflib
    from dnnlib.tflib import tf

    with tf.Graph().as_default(), tflib.create_session() as session:
        tf.set_random_seed(3)
        net = network.create_autoencoder()
        session.run(tf.global_variables_initializer())
        yield net


@pytest.fixture
def small_network(monkeypatch):
    """Replace the U-Net by three convolutions, for fast tests of the code around it."""
    import network
    from dnnlib.tflib import tf

    def small_network(x, dtype, channels=3):
        x = tf.transpose(x, [0, 2, 3, 1])
        for layer, width in enumerate([32, 32, channels]):
            with tf.variable_scope(f"conv{layer}"):
                init = network._he_init(1.0, seed_name=str(layer))
                kernel = tf.get_variable("weight", [3, 3, x.shape[3], width], initializer=init)
                bias = tf.get_variable("bias", [width], initializer=tf.zeros_initializer())
            x = tf.nn.conv2d(x, kernel, padding="SAME") + bias
            x = tf.nn.leaky_relu(x, 0.1) if layer < 2 else x
        return tf.transpose(x, [0, 3, 1, 2])

    monkeypatch.setattr(network, "autoencoder", small_network)


def identity_network(path, channels, factor=1, added=0):
    """Write the snapshot of a network that returns `factor` times its input, plus `added`.

    Some kernels pass the image through. leaky ReLU(x + 1) = x + 1 for images, so that a bias of 1
    takes every channel through the activations unchanged.
    """
    import network
    from dnnlib import tflib
    from dnnlib.tflib import tf

    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder(channels=channels)
        session.run(tf.global_variables_initializer())
        values = {name: np.zeros_like(value) for name, value in net.get_values().items()}
        for channel in range(channels):
            values["dec_conv1a/weight"][1, 1, 96 + channel, channel] = 1  # The input follows 96 upsampled channels.
            values["dec_conv1a/bias"][channel] = 1
            values["dec_conv1b/weight"][1, 1, channel, channel] = 1
            values["dec_conv1/weight"][1, 1, channel, channel] = factor
            values["dec_conv1/bias"][channel] = -factor
        values["dec_conv1/bias"] += np.float32(added)
        net.set_values(values, "identity")
        tflib.save_snapshot(net, path)
    return path


def smooth_image(height, width, seed):
    """Return uint8 [3, height, width] of a few waves, which a network can tell from noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(rng.normal() * y + rng.normal() * x + rng.uniform(0, 6)) for _ in range(3)]
    return (127.5 + 120 * np.stack(waves)).astype(np.uint8)


def textured_image(height, width, seed):
    """Return float [3, height, width] of grains of about ten pixels, whose shifts can be estimated."""
    grains = np.random.default_rng(seed).normal(128, 500, [3, height, width])
    return ndimage.gaussian_filter(grains, (0, 4, 4))


class Identity:
    """Takes the place of a network, and of the networks to choose from; returns its input."""

    input = np.zeros([1, 3, 1, 1])

    def for_page(self, page, image):
        return self

    def run(self, x):
        return np.array(x)


def example(**features):
    """Return a serialised tf.train.Example of features that are bytes or lists of integers or of floats."""
    from dnnlib.tflib import tf

    feature = {}
    for name, value in features.items():
        if isinstance(value, bytes):
            feature[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif value and isinstance(value[0], float):
            feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=value))
        else:
            feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def record(payload):
    """Return a record of a TFRecords file as bytes, with the right checksums."""
    from records import tfrecords

    def crc(data):
        return struct.pack("<I", tfrecords._masked_crc(google_crc32c.value(data)))

    length = struct.pack("<Q", len(payload))
    return length + crc(length) + payload + crc(payload)


def write_set(path, count, seed):
    """Write an MRI data set of smooth slices as dataset_tool_mri.py does."""
    from dnnlib import safe_pickle
    from mri import kspace

    slices = np.stack([smooth_image(256, 256, seed + k)[0] for k in range(count)])
    spectra = kspace.fft2c(slices[:, :255, :255] / np.float32(255) - np.float32(0.5))
    safe_pickle.dump(path, (slices, spectra))
