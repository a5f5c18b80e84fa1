"""PSNR, SSIM and block shift: known values and limits."""

import math

import numpy as np
import pytest
from conftest import textured_image
from scipy import ndimage

from imaging import metrics


@pytest.mark.parametrize("peak, difference", [(255, 1), (255, 255), (1, 0.1)])
def test_psnr_of_constant_difference(peak, difference):
    a = np.zeros([3, 5, 7])
    assert metrics.psnr(a, a + difference, peak) == pytest.approx(20 * math.log10(peak / difference), abs=1e-9)


def test_psnr_of_bytes_does_not_overflow():
    a, b = np.full([3, 4, 4], 250, np.uint8), np.full([3, 4, 4], 5, np.uint8)
    assert metrics.psnr(a, b, 255) == metrics.psnr(b, a, 255) == pytest.approx(20 * math.log10(255 / 245))


def test_psnr_of_identical_images():
    a = np.ones([3, 4, 4])
    assert metrics.psnr(a, a, 255) == metrics.psnr(a, a + 1e-12, 255) == 100


def test_ssim_matches_wang_2004():
    rng = np.random.default_rng(0)
    a = np.clip(textured_image(40, 50, seed=0), 0, 255).astype(np.uint8)
    b = np.clip(a + rng.normal(0, 25, a.shape), 0, 255).astype(np.uint8)
    # Equation 13 of the paper, K1 = 0.01, K2 = 0.03, over all places of the window that lie within the image.
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights)[None] / weights.sum() ** 2

    def local_mean(x):
        return ndimage.convolve(x, weights)[:, 5:-5, 5:-5]

    x, y = a.astype(float), b.astype(float)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x) - mean_x**2 + local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = 2.55**2, 7.65**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    assert 0.1 < similarity.mean() < 0.9
    assert metrics.ssim(a, b, 255) == pytest.approx(similarity.mean(), abs=1e-9)
    assert metrics.ssim(a, a, 255) == pytest.approx(1)


@pytest.mark.parametrize("height, width, known", [(11, 11, True), (10, 20, False), (20, 3, False)])
def test_ssim_of_small_images(height, width, known):
    a = np.random.default_rng(0).integers(0, 256, [3, height, width], dtype=np.uint8)
    assert metrics.ssim(a, a, 255) == 1 if known else math.isnan(metrics.ssim(a, a, 255))


def test_block_shift_of_worst_block():
    clean = np.zeros([3, 70, 100])
    noisy, restored = clean.copy(), clean.copy()
    noisy[1, 32:64, 64:96] = 0.1
    restored[1, 32:64, 64:96] = -0.3  # Adds an error of 0.2.
    restored[0, :16, :32] = 0.25  # Half a block: its mean moves by 0.125.
    restored[2, 64:, 96:] = 9.0  # Not in a whole block.
    assert metrics.block_shift(clean, noisy, restored) == pytest.approx(0.2)
    assert metrics.block_shift(clean, restored, noisy) == pytest.approx(0.0)
    assert np.isnan(metrics.block_shift(clean[:, :31], noisy[:, :31], restored[:, :31]))
