"""The "fspec" post-operation on the network's output, and the loss where the target was measured, on tensors."""

from dnnlib.tflib import tf


def restore_known(output, mask, known):
    """The "fspec" post-operation: the frequencies that were measured replace the network's own.

    output: [N, 255, 255]; mask: [N, 255, 255], set where a frequency is known; known: complex64 [N, 255, 255], its
    value, zero elsewhere; both with the zero frequency in the centre. Returns [N, 255, 255].
    """
    return tf.math.real(tf.signal.ifft2d(restored_spectrum(output, mask, known)))


def restored_spectrum(output, mask, known):
    """The spectrum of `restore_known`, complex64 [N, 255, 255], the zero frequency first."""
    mask, known = _zero_first(tf.cast(mask, tf.complex64)), _zero_first(known)
    return fft2(output) * (1 - mask) + known


def fft2(images):
    """Real images [N, H, W] -> their spectra, complex64, the zero frequency first."""
    return tf.signal.fft2d(tf.cast(images, tf.complex64))


def measured_error(spectrum, target, weight):
    """Squared error where the target was measured, over the probability of that: a mean over pixels, a scalar.

    spectrum: complex64 [N, H, W], of an output, the zero frequency first; target: [N, H, W], whose spectrum is the
    clean one, X, times `weight`, 0 or 1/m, with the zero frequency in the centre.

    The mean over targets of sum_f k(f)/m(f) |Y(f) - X(f)|^2, P[k(f) = 1] = m(f), is the squared error to the clean one
    (Parseval). So is, but for a constant, that of the squared error to the target, |Y(f) - k(f)/m(f) X(f)|^2, whose
    gradient however varies as X does, this one's as what is left to be learnt, Y - X. Both are Noise2Noise; errors at
    measured frequencies alone: Yaman et al. 2020 (SSDU), so weighted: Millard & Chiew 2023.
    """
    weight = _zero_first(weight)
    error = tf.cast(weight, tf.complex64) * spectrum - fft2(target)
    squared = (tf.square(tf.math.real(error)) + tf.square(tf.math.imag(error))) / tf.maximum(weight, 1.0)
    pixels = tf.cast(tf.reduce_prod(tf.shape(target)[1:]), tf.float32)
    return tf.reduce_mean(squared) / pixels


def _zero_first(x):
    """[N, H, W] with the zero frequency in the centre -> the same with it at [0, 0]."""
    return tf.signal.ifftshift(x, axes=(1, 2))
