"""k-space in NumPy: spectra of MRI slices and their random undersampling ("bspec").

Spectra are complex64 [N, N] with the zero frequency in the centre. N is odd (255: 256x256 slices without their last row
and column), so that every frequency has its point reflection in the array. Images are float32 [N, N] in [-0.5, 0.5].
"""

import numpy as np
import scipy.fft


def fftshift(x):
    """Move the zero frequency from [0, 0] to the centre of the last two axes, of any size."""
    return np.fft.fftshift(x, axes=(-2, -1))


def ifftshift(x):
    """Move the zero frequency from the centre to [0, 0]: the inverse of `fftshift`, for odd sizes too."""
    return np.fft.ifftshift(x, axes=(-2, -1))


def fft2c(image):
    """Return the centred spectrum of an image [..., N, N] as complex64."""
    return fftshift(scipy.fft.fft2(image)).astype(np.complex64)


def ifft2c(spectrum):
    """Return the real image whose centred spectrum is `spectrum` [..., N, N], as float32.

    The inverse FFT uses the right half of the spectrum only: the left half is its conjugate reflection.
    """
    n = spectrum.shape[-1]
    half = np.fft.ifftshift(spectrum[..., n // 2 :], axes=-2)
    return scipy.fft.irfft2(half, s=(n, n)).astype(np.float32, copy=False)


def keep_probability(size, p_at_edge):
    """Return the probability of keeping each frequency, float32 [size, size].

    At distance r from the centre it is p_at_edge^(r / (size // 2)), which is p_at_edge in the middle of each edge.
    """
    axis = np.arange(size) - size // 2
    r = np.hypot(axis[:, None], axis[None, :])
    return (p_at_edge ** (r / (size // 2))).astype(np.float32)


def draw_mask(probability, rng):
    """Draw a mask of kept frequencies: bool [N, N], symmetric about the centre.

    A frequency and its reflection are kept if both of two draws succeed. Each succeeds with the square root of the
    probability (u^2 < m for uniform u), so that both do with the probability itself. The centre is always kept.
    """
    keep = np.square(rng.random(probability.shape, dtype=np.float32)) < probability
    return keep & keep[::-1, ::-1]


def undersample(spectrum, mask, probability):
    """Return the undersampled image: kept frequencies are divided by their probability, the others are zero.

    Its expectation over masks is the clean image, which makes it a target for Noise2Noise. `mask` must be symmetric.
    """
    return ifft2c(spectrum * (mask / probability))


def translate(image, spectrum, dy, dx):
    """Translate an image and its centred spectrum cyclically by `dy` rows and `dx` columns."""
    n = image.shape[-1]
    frequency = np.arange(n) - n // 2
    phase_y, phase_x = (np.exp(-2j * np.pi * d * frequency / n).astype(np.complex64) for d in (dy, dx))
    return np.roll(image, (dy, dx), axis=(-2, -1)), spectrum * phase_y[:, None] * phase_x[None, :]
