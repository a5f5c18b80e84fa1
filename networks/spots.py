"""Look for spots, where a network invents a colour: `python networks/spots.py NETWORK ...`

The script adds noise of several strengths and blurs to clean photographs and denoises them. Blurred noise stands for
noise that a camera or resampling has smoothed; it is scaled to the sigma it had before. The table shows the worst 32x32
block of all photographs: how much further from the clean image its mean colour is after denoising than before, as a
fraction of the range (`metrics.block_shift`). More than 0.05 is a spot.
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
    """Print the table of each network. Return the exit status: 1 if there is a spot."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="FILE", help="snapshot of an RGB network")
    folders = [config.validation_folder(name) for name in ("kodak", "bsd300")]
    parser.add_argument("--images", nargs="+", default=folders, metavar="DIR", help="folders of clean photographs")
    args = parser.parse_args()
    paths = [path for folder in args.images for path in images.list_images(folder)]
    worst = [print_table(snapshot, paths) for snapshot in args.networks]
    return 1 if max(worst) > SPOT else 0


def print_table(snapshot, paths):
    """Print the worst shift of a network for each noise, with its image. Return the worst of all."""
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
    print(f"\n{'Spots' if worst > SPOT else 'No spots'}: the worst shift is {worst:.3f}.\n")
    return worst


def shift_of(net, path, sigma, blur):
    """Return the shift of the worst block of one photograph with blurred noise."""
    clean = images.to_float(rgb_files.read_rgb(path))
    seed = config.PROGRAM.defaults("validate").seed
    noise = corruption.generator(seed, os.path.basename(path)).standard_normal(clean.shape)
    noise = ndimage.gaussian_filter(noise, (0, blur, blur)) if blur else noise
    noisy = clean + (noise * (sigma / 255 / noise.std())).astype(clean.dtype)
    return metrics.block_shift(clean, noisy, tiling.denoise(net, noisy))


if __name__ == "__main__":
    dnnlib.cli_main(main)
