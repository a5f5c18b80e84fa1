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
    """Structural similarity index (SSIM) of two uint8 images [3, H, W], in [-1, 1]; the mean over pixels and channels.

    The window is that of Wang et al. 2004: 11x11 pixels, Gaussian weights of standard deviation 1.5. It must lie within
    the image; an image with a side under 11 pixels has no SSIM: NaN.
    """
    if min(a.shape[1:]) < 11:
        return float("nan")
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, channel_axis=0, data_range=255, **window))


def block_shift(clean, before, after, size=32):
    """How much further from the clean image any block's mean colour gets, as a fraction of the range.

    A denoiser must not invent: it leaves the mean of a large block about where it was in the noisy image. The value is
    the largest, over all blocks of the grid from the top left corner and over the channels, of
    |mean(after) - mean(clean)| - |mean(before) - mean(clean)|.

    Args:
        clean, before, after: Float images [C, H, W] in [-0.5, 0.5]; values beyond count as they are.
        size: Side of a block in pixels. Blocks that do not fit at the right and bottom are left out.

    Returns:
        A float; NaN where no block fits.
    """
    clean, before, after = (_block_means(x, size) for x in (clean, before, after))
    shift = np.abs(after - clean) - np.abs(before - clean)
    return float(shift.max()) if shift.size else float("nan")


def _block_means(x, size):
    channels, height, width = (x.shape[0], x.shape[1] // size, x.shape[2] // size)
    blocks = x[:, : height * size, : width * size].astype(np.float64).reshape(channels, height, size, width, size)
    return blocks.mean(axis=(2, 4))
