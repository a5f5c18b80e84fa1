"""Image quality metrics: PSNR, SSIM and the shift of block means."""

import numpy as np
from skimage.metrics import structural_similarity

MAX_PSNR = 100.0  # dB; the value for identical images, where the formula gives infinity.
BLOCK = 32  # Side in pixels of the blocks whose mean colour a denoiser should keep.


def psnr(a, b, peak):
    """Return the peak signal-to-noise ratio 10 log10(peak^2 / mean squared error) in dB, at most MAX_PSNR.

    Args:
        a, b: Arrays of the same shape; the mean runs over all elements.
        peak: Largest possible value: 255 for bytes, 1 for MRI.
    """
    mse = np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)))
    return min(10 * np.log10(peak**2 / mse), MAX_PSNR) if mse > 0 else MAX_PSNR


def ssim(a, b, peak):
    """Return the structural similarity index (SSIM) of two images [C, H, W], the mean over pixels and channels.

    The window is that of Wang et al. 2004: 11x11 pixels, Gaussian weights with a standard deviation of 1.5 pixels. An
    image with a side of less than 11 pixels has no SSIM: NaN.
    """
    if min(a.shape[1:]) < 11:
        return float("nan")
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, channel_axis=0, data_range=peak, **window))


def block_shift(clean, before, after, size=BLOCK):
    """Return the largest error that denoising adds to the mean colour of a block, as a fraction of the range.

    A denoiser should keep the mean of a large block. The value is the maximum of
    |mean(after) - mean(clean)| - |mean(before) - mean(clean)| over the channels and over all blocks of a grid that
    starts in the top left corner.

    Args:
        clean, before, after: Float images [C, H, W] in [-0.5, 0.5]; values outside are not clipped.
        size: Side of a block in pixels. Partial blocks at the right and bottom are ignored.

    Returns:
        A float; NaN if no block fits.
    """
    clean, before, after = (_block_means(x, size) for x in (clean, before, after))
    shift = np.abs(after - clean) - np.abs(before - clean)
    return float(shift.max()) if shift.size else float("nan")


def block_change(before, after, size=BLOCK):
    """Return the largest change of the mean colour of a block by denoising, as a fraction of the range, and its place.

    Args:
        before, after: Float images [C, H, W] in [-0.5, 0.5].
        size: Side of a block in pixels, see `block_shift`.

    Returns:
        (change, (top, left) of the block in pixels). The change is 0 if no block fits.
    """
    change = np.abs(_block_means(after, size) - _block_means(before, size))
    if not change.size:
        return 0.0, (0, 0)
    _, row, column = np.unravel_index(change.argmax(), change.shape)
    return float(change.max()), (int(row) * size, int(column) * size)


def _block_means(x, size):
    channels, height, width = x.shape[0], x.shape[1] // size, x.shape[2] // size
    blocks = x[:, : height * size, : width * size].astype(np.float64).reshape(channels, height, size, width, size)
    return blocks.mean(axis=(2, 4))
