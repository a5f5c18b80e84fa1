"""Estimated noise level of an image."""

import itertools
import math

import numpy as np


def estimate_noise_level(page):
    """Estimate the standard deviation of a page's Gaussian noise on the scale 0..255; NaN if the page is too small.

    The estimate is scikit-image's wavelet estimate (Donoho and Johnstone 1994), averaged over channels. Large pages are
    divided into blocks; the median over the blocks ignores saturated ones.
    """
    from skimage.restoration import estimate_sigma

    (height, width), channels = page.size, page.colours.shape[2]
    if min(height, width) < 5:  # scikit-image treats fewer than 5 columns as colour channels.
        return math.nan
    rows, columns = (np.linspace(0, n, math.ceil(n / 1024) + 1, dtype=int) for n in (height, width))
    estimates = [
        np.mean([estimate_sigma(channel) for channel in page.crop(slice(*r), slice(*c))[:channels]])
        for r in itertools.pairwise(rows)
        for c in itertools.pairwise(columns)
    ]
    return 255 * float(np.median(estimates))
