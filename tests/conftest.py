"""Small data that the tests make for themselves, and the commands run as a user runs them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def command(tmp_path):
    """Runs a script of the project in the folder of the test; returns the finished process, its output as text."""

    def run(script, *args, timeout=300):
        words = [sys.executable, os.path.join(ROOT, script), *map(str, args)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of four small smooth colour images, one of them narrower than a crop."""
    folder = tmp_path_factory.mktemp("photos")
    for index, (height, width) in enumerate([(80, 96), (72, 72), (40, 100), (96, 64)]):
        Image.fromarray(smooth_image(height, width, seed=index).transpose(1, 2, 0)).save(folder / f"photo{index}.png")
    return folder


@pytest.fixture(scope="session")
def training_file(photos, tmp_path_factory):
    """The same images as a TFRecords file."""
    import images
    import tfrecords

    path = str(tmp_path_factory.mktemp("records") / "train.tfrecords")
    tfrecords.write_images(path, (images.read_rgb(p) for p in images.list_images(photos)))
    return path


def smooth_image(height, width, seed):
    """uint8 [3, height, width] of a few waves: something that a network can tell from noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(rng.normal() * y + rng.normal() * x + rng.uniform(0, 6)) for _ in range(3)]
    return (127.5 + 120 * np.stack(waves)).astype(np.uint8)


def textured_image(height, width, seed):
    """float [3, height, width] of grains of about ten pixels: something whose shifts can be seen."""
    grains = np.random.default_rng(seed).normal(128, 500, [3, height, width])
    return ndimage.gaussian_filter(grains, (0, 4, 4))
