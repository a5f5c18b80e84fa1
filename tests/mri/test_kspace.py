"""Tests of k-space against NumPy, and against the published system's numbers (tests/golden/README.md)."""

import os

import numpy as np
import pytest
from conftest import GOLDEN_DIR

from mri import kspace

GOLDEN = np.load(os.path.join(GOLDEN_DIR, "mri_data.npz"))


def test_golden_spectrum():
    expected = GOLDEN["spectrum"]
    np.testing.assert_allclose(kspace.fft2c(GOLDEN["image"]), expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(kspace.ifft2c(expected), GOLDEN["image"], atol=1e-6)


def test_golden_shifts():
    x = GOLDEN["fftshift_in"]
    np.testing.assert_array_equal(kspace.fftshift(x), GOLDEN["fftshift"])
    np.testing.assert_array_equal(kspace.ifftshift(x), GOLDEN["ifftshift"])
    np.testing.assert_array_equal(kspace.ifftshift(kspace.fftshift(x)), x)


def test_golden_probability():
    probability = kspace.keep_probability(255, 0.025)
    np.testing.assert_allclose(probability, GOLDEN["keep_probability"], atol=1e-6)
    assert probability.mean() == pytest.approx(0.10477, abs=5e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_golden_undersampling(dtype):
    mask = GOLDEN["mask0"].astype(dtype)
    image = kspace.undersample(GOLDEN["spectrum"], mask, GOLDEN["keep_probability"])
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, GOLDEN["corrupted0"], atol=1e-5)


def test_undersampling():
    rng = np.random.default_rng(1)
    spectra = kspace.fft2c(rng.random((3, 31, 31), dtype=np.float32) - 0.5)
    probability = kspace.keep_probability(31, 0.1)
    mask = kspace.draw_mask(probability, rng)
    plain = np.fft.ifft2(np.fft.ifftshift(np.where(mask, spectra / probability, 0), axes=(-2, -1)))
    assert np.abs(plain.imag).max() < 1e-6
    np.testing.assert_allclose(kspace.undersample(spectra, mask, probability), plain.real, atol=1e-5)


def test_golden_translation():
    image, _ = kspace.translate(GOLDEN["image"], GOLDEN["spectrum"], 31, 20)
    np.testing.assert_array_equal(image, GOLDEN["aug0_img"])


@pytest.mark.parametrize("dy,dx", [(0, 0), (1, 0), (0, -64), (64, 13), (-5, 250)])
def test_translation(dy, dx):
    image, spectrum = kspace.translate(GOLDEN["image"], GOLDEN["spectrum"], dy, dx)
    assert spectrum.dtype == np.complex64
    expected = kspace.fft2c(np.roll(GOLDEN["image"], (dy, dx), (0, 1)))
    np.testing.assert_allclose(spectrum, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(kspace.ifft2c(spectrum), image, atol=1e-5)


def test_masks():
    size, draws = 31, 4000
    rng = np.random.default_rng(2)
    probability = kspace.keep_probability(size, 0.025)
    masks = np.stack([kspace.draw_mask(probability, rng) for _ in range(draws)])
    np.testing.assert_array_equal(masks, masks[:, ::-1, ::-1])
    assert masks[:, size // 2, size // 2].all()
    deviation = np.sqrt(probability * (1 - probability) / draws)
    # 480 independent frequencies: one beyond 5 standard deviations would come up once in thousands of seeds.
    assert (np.abs(masks.mean(axis=0) - probability) <= 5 * deviation).all()


def test_unbiased_image():
    """The mean of undersampled images is the image."""
    rng = np.random.default_rng(3)
    image = rng.random((15, 15), dtype=np.float32) - 0.5
    spectrum, probability = kspace.fft2c(image), kspace.keep_probability(15, 0.2)
    draws = 20000
    images = np.stack(
        [kspace.undersample(spectrum, kspace.draw_mask(probability, rng), probability) for _ in range(draws)]
    )
    deviation = images.std(axis=0) / np.sqrt(draws)
    assert (np.abs(images.mean(axis=0) - image) < 5 * deviation).all()
