"""Looks for spots: places where a network's output invents a colour. `python networks/spots.py NETWORK ...`

Noise of the strengths and blurs below is added to clean photographs, and each is denoised. The table shows, for the
worst 32x32 block of all of them, how much further from the clean image its mean colour gets, as a fraction of the range
(`metrics.block_shift`). Blurred noise stands for noise that a camera or a resampling has smoothed: it is scaled back to
the sigma it had. More than 0.05 is a spot.
"""

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


def main():
    """Prints the table of each network. Exit status 1 where there is a spot."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="FILE", help="snapshot of an RGB network")
    folders = [config.validation_folder(name) for name in ("kodak", "bsd300")]
    parser.add_argument("--images", nargs="+", default=folders, metavar="DIR", help="folders of clean photographs")
    args = parser.parse_args()
    paths = [path for folder in args.images for path in images.list_images(folder)]
    worst = [print_table(snapshot, paths) for snapshot in args.networks]
    return 1 if max(worst) > SPOT else 0


def print_table(snapshot, paths):
    """Prints and returns the worst shift, over all images, of a network; prints that of each noise and its image."""
    print(f"{snapshot}, {len(paths)} photographs\n")
    print("| sigma | blur in pixels | worst block | in |\n| --- | --- | --- | --- |")
    worst = 0.0
    with tf.Graph().as_default(), tflib.create_session():
        net = network.load_autoencoder(snapshot)
        for sigma in SIGMAS:
            for blur in BLURS:
                shift, path = max((shift_of(net, path, sigma, blur), path) for path in paths)
                print(f"| {sigma} | {blur} | {shift:.3f} | {os.path.basename(path)} |", flush=True)
                worst = max(worst, shift)
    print(f"\n{'Spots' if worst > SPOT else 'No spot'}: at worst {worst:.3f}.\n")
    return worst


def shift_of(net, path, sigma, blur):
    """The worst block's shift of one photograph with blurred noise."""
    clean = images.to_float(rgb_files.read_rgb(path))
    noise = corruption.generator(config.VALIDATE.seed, os.path.basename(path)).standard_normal(clean.shape)
    noise = ndimage.gaussian_filter(noise, (0, blur, blur)) if blur else noise
    noisy = clean + (noise * (sigma / 255 / noise.std())).astype(clean.dtype)
    return metrics.block_shift(clean, noisy, tiling.denoise(net, noisy))


if __name__ == "__main__":
    dnnlib.cli_main(main)
