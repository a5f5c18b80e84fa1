"""Look for spots, where a network invents a colour: `python networks/spots.py NETWORK ...`

The script denoises photographs with white noise, with blurred noise and with a camera's noise, and real photographs if
there are any in datasets/real. Blurred noise stands for noise that a camera or resampling has smoothed; it is scaled to
the sigma it had before. The table shows the worst 32x32 block of all photographs: how much further from the clean image
its mean colour is after denoising than before, as a fraction of the range (`metrics.block_shift`). More than 0.05 is a
spot.
"""

import functools
import os

from scipy import ndimage

import config
import corruption
import dnnlib
import network
from dnnlib import tflib
from dnnlib.options import ArgumentParser
from dnnlib.tflib import tf
from imaging import images, metrics, rgb_files
from inference import tiling

SIGMAS = (5, 25, 50)  # Standard deviation on the scale of 0..255.
BLURS = (0, 0.5, 0.7, 1)  # Standard deviation in pixels of the Gaussian kernel that blurs the noise.
SPOT = 0.05
REAL = "datasets/real/{}"  # Folders "noisy" and "reference" with photographs of the same names.
SEED = config.PROGRAM.defaults("validate").seed


def main():
    """Print the table of each network. Return the exit status: 1 if there is a spot."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="FILE", help="snapshot")
    folders = [config.validation_folder(name) for name in ("kodak", "bsd300")]
    parser.add_argument("--images", nargs="+", default=folders, metavar="DIR", help="folders of clean photographs")
    args = parser.parse_args()
    worst = []
    for snapshot in args.networks:
        rows = worst_blocks(snapshot, args.images)
        worst.append(max(shift for _, shift, _ in rows))
        verdict = "Spots" if worst[-1] > SPOT else "No spots"
        print(*(f"{snapshot}", "", *table(rows), "", f"{verdict}: the worst shift is {worst[-1]:.3f}.", ""), sep="\n")
    return 1 if max(worst) > SPOT else 0


def worst_blocks(snapshot, folders):
    """Return (kind of noise, shift of the worst block, name of its image) for each kind of noise.

    Args:
        snapshot: Path of a network.
        folders: Folders of clean photographs.
    """
    clean = [path for folder in folders for path in images.list_images(folder)]
    cases: dict[str, tuple] = {
        f"sigma {sigma}" + (f", blurred by {blur} pixels" if blur else ""): (with_noise, clean, sigma, blur)
        for sigma in SIGMAS
        for blur in BLURS
    }
    cases["`--noise camera`"] = (with_camera_noise, clean)
    if os.path.isdir(REAL.format("noisy")):
        cases["real photographs"] = (as_taken, images.list_images(REAL.format("noisy")))
    rows = []
    with tf.Graph().as_default(), tflib.create_session():
        net = network.load_autoencoder(snapshot, tflib.pick_dtype("auto"))
        channels = network.channels_of(net)
        for noise, (taken, paths, *strength) in cases.items():
            shift, path = max((shift_of(net, *taken(path, channels, *strength)), path) for path in paths)
            rows.append((noise, shift, os.path.basename(path)))
    return rows


def table(rows):
    """Return the lines of a table in Markdown."""
    lines = ["| noise | worst block | in |", "| --- | --- | --- |"]
    return [*lines, *(f"| {noise} | {shift:.3f} | {name} |" for noise, shift, name in rows)]


def shift_of(net, clean, noisy):
    """Return the shift of the worst block of a photograph."""
    return metrics.block_shift(clean, noisy, tiling.denoise(net, noisy))


@functools.lru_cache(maxsize=200)
def read_image(path, channels):
    """Return an image file as float32 [C, H, W]."""
    return images.to_float(rgb_files.read(path, channels))


def with_noise(path, channels, sigma, blur):
    """Return a clean image and the same with blurred noise."""
    clean = read_image(path, channels)
    noise = corruption.generator(SEED, os.path.basename(path)).standard_normal(clean.shape)
    noise = ndimage.gaussian_filter(noise, (0, blur, blur)) if blur else noise
    return clean, clean + (noise * (sigma / 255 / noise.std())).astype(clean.dtype)


def with_camera_noise(path, channels):
    """Return what a camera takes of an image, without noise and with it."""
    noise, scene = corruption.create("camera"), read_image(path, channels=3)
    shots = noise.reference(scene), noise.for_validation(scene, SEED, os.path.basename(path))
    return shots if channels == 3 else [images.to_float(images.to_grey(images.to_uint8(shot))) for shot in shots]


def as_taken(path, channels):
    """Return the reference of a real photograph, and the photograph."""
    reference = os.path.join(REAL.format("reference"), os.path.basename(path))
    return read_image(reference, channels), read_image(path, channels)


if __name__ == "__main__":
    dnnlib.cli_main(main)
