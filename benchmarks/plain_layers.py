"""The layers of dnnlib/tflib/layers.py as one writes them first: the measure of its speed and numbers."""

from dnnlib.tflib import tf


def conv2d(x, kernel, bias):
    """3x3 convolution plus bias."""
    return tf.nn.bias_add(tf.nn.conv2d(x, tf.cast(kernel, x.dtype), 1, "SAME"), tf.cast(bias, x.dtype))


def upsampled_conv2d(x, skip, kernel, bias):
    """`conv2d` of 2x nearest-neighbour upsampled `x` and `skip`, concatenated."""
    up = tf.image.resize_nearest_neighbor(x, 2 * tf.shape(x)[1:3])
    return conv2d(tf.concat([up, skip], axis=-1), kernel, bias)


def leaky_relu(x, slope):
    """max(x, slope x)."""
    return tf.nn.leaky_relu(x, slope)


def max_pool(x):
    """2x2 max pooling."""
    return tf.nn.max_pool2d(x, 2, 2, "VALID")
