"""The "fspec" post-operation and the loss over measured frequencies, in TensorFlow."""

from dnnlib.tflib import tf


def restore_known(output, mask, known):
    """Replace the network's frequencies by the measured ones: the "fspec" post-operation.

    Args:
        output: Output of the network, [N, 255, 255].
        mask: [N, 255, 255], set where a frequency was measured; zero frequency in the centre.
        known: Measured frequencies, complex64 [N, 255, 255], 0 elsewhere; zero frequency in the centre.

    Returns:
        Images [N, 255, 255].
    """
    return tf.math.real(tf.signal.ifft2d(restored_spectrum(output, mask, known)))


def restored_spectrum(output, mask, known):
    """Return the spectrum of `restore_known`, complex64 [N, 255, 255], zero frequency at [0, 0]."""
    mask, known = _zero_first(tf.cast(mask, tf.complex64)), _zero_first(known)
    return fft2(output) * (1 - mask) + known


def fft2(images):
    """Return the spectra of real images [N, H, W] as complex64, zero frequency at [0, 0]."""
    return tf.signal.fft2d(tf.cast(images, tf.complex64))


def measured_error(spectrum, target, weight):
    """Mean squared error over the frequencies measured in the target, weighted by 1 / probability.

    With the output's spectrum Y, the clean spectrum X and P[k(f) = 1] = m(f), the loss is the sum over frequencies f of
    k(f)/m(f) |Y(f) - X(f)|^2. Its expectation over targets is the squared error to the clean image (Parseval). The
    squared error to the target, |Y(f) - k(f)/m(f) X(f)|^2, has the same expectation up to a constant, but a noisier
    gradient: it varies with X, this one only with the remaining error Y - X.

    Args:
        spectrum: Y, complex64 [N, H, W], zero frequency at [0, 0].
        target: Images [N, H, W] with the spectrum `weight` * X.
        weight: k/m, [N, H, W], zero frequency in the centre; 1 for clean targets.

    Returns:
        A scalar: the mean over images and pixels.

    References:
        Yaman et al. 2020 (SSDU): errors at measured frequencies only. Millard & Chiew 2023: the weights.
    """
    weight = _zero_first(weight)
    error = tf.cast(weight, tf.complex64) * spectrum - fft2(target)
    squared = (tf.square(tf.math.real(error)) + tf.square(tf.math.imag(error))) / tf.maximum(weight, 1.0)
    pixels = tf.cast(tf.reduce_prod(tf.shape(target)[1:]), tf.float32)
    return tf.reduce_mean(squared) / pixels


def _zero_first(x):
    """Move the zero frequency of [N, H, W] from the centre to [0, 0]."""
    return tf.signal.ifftshift(x, axes=(1, 2))
