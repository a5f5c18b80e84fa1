"""Preview of a corruption: look at it before training a network on it for hours."""

import itertools
import os

import numpy as np

import corruption
import dnnlib
from imaging import images, rgb_files, sheets


def preview(noise, noise_settings, image, out, size, steps, seed):
    """Write a sheet of the centre of an image: clean, corrupted as in validation, and over the range of training.

    Args:
        noise, noise_settings: Name and settings of a noise model, see `corruption.create`.
        image, out: Paths.
        size: Side of the centre in pixels.
        steps: Number of strengths that are shown; of each strength, where the noise model has two.
        seed: Seed of the noise.
    """
    images.check_writable(out)
    noise = corruption.create(noise, **noise_settings)
    clean = sheets.centre(rgb_files.read_rgb(image), size)

    def tile(title, values):
        rng = corruption.generator(seed, os.path.basename(image))
        noisy = noise.corrupt(images.to_float(clean), rng, *values)
        label = ", ".join(f"{strength.name} {value:.3g}" for strength, value in zip(noise.strengths, values))
        return title + label, images.to_uint8(noisy)

    rows = [[("clean", clean), tile("validation: ", noise.validation_strengths())]]
    *outer, across = (np.linspace(low, high, steps) for low, high in noise.training_ranges())
    rows += [[tile("", (*values, value)) for value in across] for values in itertools.product(*outer)]
    dnnlib.util.make_parents(out)
    images.save(out, sheets.labelled_sheet(rows, font_size=13))
    print(f"Wrote {out}.")
