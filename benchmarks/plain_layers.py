"""Plain versions of the layers in dnnlib/tflib/layers.py: the reference for their speed and their numbers."""

from dnnlib.tflib import tf


def conv2d(x, kernel, bias, slope=None):
    """Apply a 3x3 convolution, a bias, and a leaky ReLU unless `slope` is None."""
    y = tf.nn.bias_add(tf.nn.conv2d(x, tf.cast(kernel, x.dtype), 1, "SAME"), tf.cast(bias, x.dtype))
    return y if slope is None else tf.nn.leaky_relu(y, slope)


def upsampled_conv2d(x, skip, kernel, bias, slope=None):
    """Apply `conv2d` to `x`, upsampled 2x by nearest neighbours and concatenated with `skip`."""
    up = tf.image.resize_nearest_neighbor(x, 2 * tf.shape(x)[1:3])
    return conv2d(tf.concat([up, skip], axis=-1), kernel, bias, slope)


def max_pool(x):
    """Apply 2x2 max pooling."""
    return tf.nn.max_pool2d(x, 2, 2, "VALID")
