"""Pictures that show what a network does: corrupted, restored, clean; or noisy, denoised, removed."""

import os

import numpy as np

import corruption
import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images, metrics, rgb_files, sheets
from imaging.pages import Kind, Page, parts
from inference.tiling import denoise
from network import channels_of, load_autoencoder


def compare(image, out, networks, size, seed, num_gpus, precision):
    """Write a picture with a row for each network: the centre of an image corrupted, restored and clean.

    Args:
        image: Path of a clean image.
        out: Path of the picture.
        networks: A list of (noise model, path of a snapshot).
        size: Side of the centre in pixels.
        seed: Seed of the noise.
        num_gpus: Number of GPUs to use.
        precision: Arithmetic of the networks, see `tflib.pick_dtype`.
    """
    images.check_writable(out)
    tflib.pick_devices(num_gpus)
    dtype = tflib.pick_dtype(precision)
    rows = []
    for name, snapshot in networks:
        noise = corruption.create(name)
        with tf.Graph().as_default(), tflib.create_session():
            net = load_autoencoder(snapshot, dtype)
            noise.check_images(channels_of(net), "uint8")
            original = images.to_float(sheets.centre(rgb_files.read(image, channels_of(net)), size))
            x = noise.for_validation(original, seed, os.path.basename(image))
            y = denoise(net, x)
        rows.append(compared(name, *(images.to_uint8(z) for z in (x, y, noise.reference(original)))))
    dnnlib.util.make_parents(out)
    images.save(out, sheets.labelled_sheet(rows, font_size=13))
    print(f"Wrote {out}.")


def compared(label, corrupted, restored, clean):
    """Return a row for `sheets.labelled_sheet`: corrupted and restored with their PSNR, and clean; uint8 [C, H, W]."""

    def measured(text, pixels):
        return f"{text}  {metrics.psnr(clean, pixels, peak=255):.2f} dB", pixels

    return [measured(label, corrupted), measured("restored", restored), ("clean", clean)]


def removed(noisy, denoised):
    """Return an 8-bit RGB page: noisy, denoised, and 4 times what was removed, on mid-grey. Values are clipped."""
    height, width = noisy.size
    samples = np.empty([height, 3 * width, 3], np.uint8)
    for rows in parts(height, 256):
        x, y = (page.crop(rows, slice(None)) for page in (noisy, denoised))
        for i, part in enumerate((x, y, 4 * (x - y))):
            samples[rows, i * width : (i + 1) * width] = images.to_uint8(part).transpose(1, 2, 0)
    return Page(samples, Kind())
