"""How much noise an image has."""

import itertools
import math

import numpy as np


def estimate_noise_level(page):
    """The standard deviation of the page's Gaussian noise on the scale of 0..255; nan where the page is too small.

    The wavelet estimate of Donoho and Johnstone 1994 as scikit-image has it, mean over channels; of a large page the
    median over blocks, which leaves out those that are saturated.
    """
    from skimage.restoration import estimate_sigma

    (height, width), channels = page.size, page.colours.shape[2]
    if min(height, width) < 5:  # scikit-image takes fewer columns for colour channels.
        return math.nan
    rows, columns = (np.linspace(0, n, math.ceil(n / 1024) + 1, dtype=int) for n in (height, width))
    estimates = [
        np.mean([estimate_sigma(channel) for channel in page.crop(slice(*r), slice(*c))[:channels]])
        for r in itertools.pairwise(rows)
        for c in itertools.pairwise(columns)
    ]
    return 255 * float(np.median(estimates))
