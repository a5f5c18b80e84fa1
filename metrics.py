"""How close a restored image is to the clean one."""

import numpy as np
from skimage.metrics import structural_similarity

MAX_PSNR = 100.0  # dB; stands for "identical", where the formula says infinity.


def psnr(a, b, peak):
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mean squared error), in dB; at most MAX_PSNR.

    `a` and `b` are arrays of one shape; the mean runs over all their elements. `peak` is 255 for bytes, 1 for MRI.
    """
    mse = np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)))
    return min(10 * np.log10(peak**2 / mse), MAX_PSNR) if mse > 0 else MAX_PSNR


def ssim(a, b):
    """Structural similarity of two uint8 images [3, H, W], in [-1, 1] (Wang et al. 2004, 7x7 window).

    An image with a side under 7 is compared with the largest window that fits; under 3, NaN: there is no structure.
    """
    side = min(7, *a.shape[1:])
    window = side if side % 2 else side - 1
    if window < 3:
        return float("nan")
    return float(structural_similarity(a, b, channel_axis=0, data_range=255, win_size=window))
