"""k-space: spectra of MRI slices, their random undersampling ("bspec") and the "fspec" post-operation.

Spectra are complex64 [N, N] with the zero frequency in the centre, N odd (255 for 256x256 slices without their last
row and column), so that every frequency has its point reflection inside the array. Images are float32 [N, N] in
[-0.5, 0.5].
"""

import numpy as np
import scipy.fft


def fftshift(x):
    """Moves the zero frequency from [0, 0] to the centre, over the last two axes; any size."""
    return np.fft.fftshift(x, axes=(-2, -1))


def ifftshift(x):
    """The inverse of `fftshift`, also for odd sizes."""
    return np.fft.ifftshift(x, axes=(-2, -1))


def fft2c(image):
    """Image [..., N, N] -> its centred spectrum, complex64."""
    return fftshift(scipy.fft.fft2(image)).astype(np.complex64)


def ifft2c(spectrum):
    """Centred spectrum [..., N, N] of a real image -> that image, float32.

    Its inverse FFT, computed from the right half of the spectrum: the left half is its conjugate reflection.
    """
    n = spectrum.shape[-1]
    half = np.fft.ifftshift(spectrum[..., n // 2 :], axes=-2)
    return scipy.fft.irfft2(half, s=(n, n)).astype(np.float32, copy=False)


def keep_probability(size, p_at_edge):
    """Probability of keeping each frequency, float32 [size, size]: p_at_edge^(r / (size // 2)).

    r is the distance from the centre, so it is 1 at the centre and p_at_edge at the middle of each edge.
    """
    axis = np.arange(size) - size // 2
    r = np.hypot(axis[:, None], axis[None, :])
    return (p_at_edge ** (r / (size // 2))).astype(np.float32)


def draw_mask(probability, rng):
    """Draws the kept frequencies: bool [N, N], symmetric about the centre, each kept with its probability.

    A frequency and its reflection are kept if both of two draws say so; each says so with the square root of the
    probability (u^2 < m for uniform u). The centre, its own reflection, has probability 1.
    """
    keep = np.square(rng.random(probability.shape, dtype=np.float32)) < probability
    return keep & keep[::-1, ::-1]


def undersample(spectrum, mask, probability):
    """Image seen through the symmetric `mask`: kept frequencies divided by their probability, others zero.

    Its expectation over masks is the clean image: that is what makes it a target for Noise2Noise.
    """
    return ifft2c(spectrum * (mask / probability))


def translate(image, spectrum, dy, dx):
    """Cyclic translation of an image and of its centred spectrum by `dy` rows and `dx` columns."""
    n = image.shape[-1]
    frequency = np.arange(n) - n // 2
    phase_y, phase_x = (np.exp(-2j * np.pi * d * frequency / n).astype(np.complex64) for d in (dy, dx))
    return np.roll(image, (dy, dx), axis=(-2, -1)), spectrum * phase_y[:, None] * phase_x[None, :]
