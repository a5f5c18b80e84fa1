"""PSNR and SSIM: values known beforehand, and the ends of their ranges."""

import math

import numpy as np
import pytest

import metrics


@pytest.mark.parametrize("peak, difference", [(255, 1), (255, 255), (1, 0.1)])
def test_psnr_of_a_constant_difference(peak, difference):
    a = np.zeros([3, 5, 7])
    assert metrics.psnr(a, a + difference, peak) == pytest.approx(20 * math.log10(peak / difference), abs=1e-9)


def test_psnr_of_bytes_does_not_wrap_around():
    a, b = np.full([3, 4, 4], 250, np.uint8), np.full([3, 4, 4], 5, np.uint8)
    assert metrics.psnr(a, b, 255) == metrics.psnr(b, a, 255) == pytest.approx(20 * math.log10(255 / 245))


def test_psnr_of_identical_images_is_a_number():
    a = np.ones([3, 4, 4])
    assert metrics.psnr(a, a, 255) == metrics.psnr(a, a + 1e-12, 255) == 100


def test_ssim():
    rng = np.random.default_rng(0)
    clean = rng.integers(40, 216, [3, 32, 40]).astype(np.uint8)
    noisy = [(clean + rng.normal(0, sigma, clean.shape)).clip(0, 255).astype(np.uint8) for sigma in (5, 50)]
    assert metrics.ssim(clean, clean) == pytest.approx(1)
    assert 1 > metrics.ssim(clean, noisy[0]) > metrics.ssim(clean, noisy[1]) > 0


@pytest.mark.parametrize("height, width", [(6, 20), (20, 3)])
def test_ssim_of_images_smaller_than_its_window(height, width):
    a = np.random.default_rng(0).integers(0, 256, [3, height, width], dtype=np.uint8)
    assert metrics.ssim(a, a) == pytest.approx(1)
    assert math.isnan(metrics.ssim(a[:, :2], a[:, :2]))


def test_block_shift_is_that_of_the_worst_block_and_channel():
    clean = np.zeros([3, 70, 100])
    noisy, restored = clean.copy(), clean.copy()
    noisy[1, 32:64, 64:96] = 0.1
    restored[1, 32:64, 64:96] = -0.3  # 0.2 further from the clean block than it was.
    restored[0, :16, :32] = 0.25  # Half a block: its mean moves by 0.125.
    restored[2, 64:, 96:] = 9.0  # In no whole block.
    assert metrics.block_shift(clean, noisy, restored) == pytest.approx(0.2)
    assert metrics.block_shift(clean, restored, noisy) == pytest.approx(0.0)
    assert np.isnan(metrics.block_shift(clean[:, :31], noisy[:, :31], restored[:, :31]))
