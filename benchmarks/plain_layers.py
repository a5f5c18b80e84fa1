"""The layers of dnnlib/tflib/layers.py as one writes them first: the measure of its speed and numbers."""

from dnnlib.tflib import tf


def conv2d(x, kernel, bias, slope=None):
    """3x3 convolution plus bias, and leaky ReLU."""
    y = tf.nn.bias_add(tf.nn.conv2d(x, tf.cast(kernel, x.dtype), 1, "SAME"), tf.cast(bias, x.dtype))
    return y if slope is None else tf.nn.leaky_relu(y, slope)


def upsampled_conv2d(x, skip, kernel, bias, slope=None):
    """`conv2d` of 2x nearest-neighbour upsampled `x` and `skip`, concatenated."""
    up = tf.image.resize_nearest_neighbor(x, 2 * tf.shape(x)[1:3])
    return conv2d(tf.concat([up, skip], axis=-1), kernel, bias, slope)


def max_pool(x):
    """2x2 max pooling."""
    return tf.nn.max_pool2d(x, 2, 2, "VALID")
