"""What a corruption does to an image, to be seen before a network is trained on it for hours."""

import itertools
import os

import numpy as np

import corruption
import dnnlib
from imaging import images, rgb_files, sheets


def preview(noise, noise_settings, image, out, strengths, size, seed):
    """Writes a sheet of the centre of an image: clean, corrupted as in validation, and over the range of training.

    noise, noise_settings: see `corruption.create`; image, out: paths; strengths: how many of the range are shown, of
    each where the noise has several; size: side of the centre in pixels; seed: of the noise.
    """
    images.check_writable(out)
    noise = corruption.create(noise, **noise_settings)
    clean = sheets.centre(rgb_files.read_rgb(image), size)

    def tile(title, values):
        rng = corruption.generator(seed, os.path.basename(image))
        noisy = noise.corrupt(images.to_float(clean), rng, *values)
        label = ", ".join(f"{name} {value:.3g}" for name, value in zip(noise.train, values))
        return title + label, images.to_uint8(noisy)

    rows = [[("clean", clean), tile("validation: ", noise.validation.values())]]
    *outer, across = (np.linspace(low, high, strengths) for low, high in noise.train.values())
    rows += [[tile("", (*values, value)) for value in across] for values in itertools.product(*outer)]
    dnnlib.util.make_parents(out)
    images.save(out, sheets.labelled_sheet(rows, font_size=13))
    print(f"Wrote {out}.")
