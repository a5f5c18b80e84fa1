"""The U-Net of Noise2Noise (Lehtinen et al. 2018, appendix A.1) for images and for MRI slices, and its snapshots.

Public tensors are channel-first. Inside, tensors are [N, H, W, C], the fastest layout for convolutions on CPUs; on
GPUs, TensorFlow's layout optimiser chooses the layout. `dtype` is the type of the arithmetic in all layers except the
last. Input, output and variables are float32.
"""

import contextlib
import math
import zlib

import numpy as np

import dnnlib
from dnnlib import tflib
from dnnlib.tflib import layers, tf

LEAKY_SLOPE = 0.1
RELU_GAIN = math.sqrt(2)  # Gain of the initialisation by He et al. 2015.
RGB, GREY = 3, 1  # Channels.
MULTIPLE = 32  # Sides must be multiples of 2^5, because there are five poolings.


def autoencoder(x, dtype=tf.float32, channels=RGB):
    """Build the network of images: [N, channels, H, W] of any size to the same shape.

    Sides that are not known to be multiples of 32 are padded by reflection at the bottom and right, then cropped.
    """
    x.shape.assert_is_compatible_with([None, channels, None, None])
    height, width = tf.shape(x)[2], tf.shape(x)[3]
    y = unet(_pad_reflect(tf.transpose(x, [0, 2, 3, 1])), dtype, weight="weight", bias="bias")
    y = tf.transpose(y, [0, 3, 1, 2])[:, :, :height, :width]
    return tf.ensure_shape(y, x.shape)


def autoencoder_mri(x, dtype=tf.float32):
    """Build the MRI network: [N, 255, 255] to the same shape, padded to 256 by a row and a column of -0.5 (black)."""
    padded = tf.pad(x[..., None], [[0, 0], [0, 1], [0, 1], [0, 0]], constant_values=-0.5)
    return unet(padded, dtype, weight="W", bias="b")[:, :-1, :-1, 0]


def unet(x, dtype, weight, bias):
    """Build the U-Net: [N, H, W, C] to the same shape, H and W multiples of 32.

    Args:
        x: Input, float32.
        dtype: Type of the arithmetic.
        weight, bias: Names of the variables of each layer.
    """

    def variables(name, channels_in, channels, gain=RELU_GAIN):
        with tf.variable_scope(name):
            init = _he_init(gain, seed_name=name)
            w = tf.get_variable(weight, [3, 3, channels_in, channels], initializer=init)
            return w, tf.get_variable(bias, [channels], initializer=tf.zeros_initializer())

    def conv(x, name, channels):
        w, b = variables(name, x.shape[-1], channels)
        return layers.conv2d(x, w, b, LEAKY_SLOPE)

    def conv_up(x, skip, name, channels):
        """Convolve upsampled `x`, concatenated with `skip`."""
        w, b = variables(name, x.shape[-1] + skip.shape[-1], channels)
        return layers.upsampled_conv2d(x, skip, w, b, LEAKY_SLOPE)

    channels_out = x.shape[-1]
    x = tf.cast(x, dtype)
    skips = [x]
    x = conv(x, "enc_conv0", 48)
    x = layers.max_pool(conv(x, "enc_conv1", 48))
    for layer in (2, 3, 4, 5):
        skips.append(x)
        x = layers.max_pool(conv(x, f"enc_conv{layer}", 48))
    x = conv(x, "enc_conv6", 48)
    for layer in (5, 4, 3, 2):
        x = conv_up(x, skips.pop(), f"dec_conv{layer}", 96)
        x = conv(x, f"dec_conv{layer}b", 96)
    x = conv_up(x, skips.pop(), "dec_conv1a", 64)
    x = tf.cast(conv(x, "dec_conv1b", 32), tf.float32)  # An output in bfloat16 would have steps of 1/512.
    return layers.conv2d(x, *variables("dec_conv1", 32, channels_out, gain=1.0))


def receptive_field():
    """Return the radius of the receptive field of `unet`: how many pixels an output pixel sees to each side.

    A 3x3 convolution at scale 1/s adds s pixels. Upsampling from scale 1/s adds up to s/2 pixels, because it rounds
    outwards to blocks of s pixels. Pooling adds none, because its blocks have the same borders.
    """
    convolutions = {1: 5, 2: 3, 4: 3, 8: 3, 16: 3, 32: 1}  # {s: number of convolutions}
    return sum(s * count for s, count in convolutions.items()) + sum(s // 2 for s in convolutions)


def _pad_reflect(x):
    """Pad [N, H, W, C] to multiples of 32 by reflection, also images that are narrower than their padding."""
    for axis in (1, 2):
        if x.shape[axis] is None or x.shape[axis] % MULTIPLE:
            size = tf.shape(x)[axis]
            period = tf.maximum(2 * size - 2, 1)  # 0 1 2 3 2 1 | 0 1 2 ...
            position = tf.range(-(-size // MULTIPLE) * MULTIPLE) % period
            x = tf.gather(x, tf.minimum(position, period - position), axis=axis)
    return x


def _he_init(gain, seed_name):
    """Return an initialiser: normal with standard deviation gain / sqrt(fan in) (He et al. 2015).

    The values depend on the graph's seed and the layer's name only, not on the rest of the graph.
    """

    def initializer(shape, dtype=tf.float32, partition_info=None):
        seed = [tf.get_default_graph().seed or 0, zlib.crc32(seed_name.encode())]
        fan_in = int(np.prod(shape[:-1]))
        return tf.random.stateless_normal(shape, seed, stddev=gain / math.sqrt(fan_in), dtype=dtype)

    return initializer


def create_autoencoder(dtype=tf.float32, scope=None, minibatch_size=None, channels=RGB):
    """Create a network of images with 3 channels, or 1 for greyscale, on the default graph."""
    recorded = {} if channels == RGB else {"channels": channels}  # The published snapshots record nothing.
    return tflib.Network("autoencoder", autoencoder, [minibatch_size, channels, None, None], dtype, scope, **recorded)


def channels_of(network):
    """Return the number of channels of a network of images."""
    return int(network.input.shape[1])


def create_autoencoder_mri(dtype=tf.float32):
    """Create an MRI network on the default graph."""
    return tflib.Network("autoencoder_mri", autoencoder_mri, [None, 255, 255], dtype)


def load_autoencoder(path: str, dtype=tf.float32, portable: bool = False) -> tflib.Network:
    """Create the network of a snapshot, ours or a published one, on the default graph and session.

    It takes one image at a time, or, if `portable`, minibatches of any size on any machine. Raises UserError if the
    file is not a snapshot of this network.
    """
    state, channels = _load_state(path)
    with contextlib.nullcontext() if portable else layers.in_strips():
        network = create_autoencoder(dtype, minibatch_size=None if portable else 1, channels=channels)
    network.set_values(state.variables, source=path)
    network.data = state.get("data", {})
    return network


def load_values(network, path):
    """Set the values of a network of images from a snapshot. Raise UserError if it is one of another network."""
    state, channels = _load_state(path)
    if channels != channels_of(network):
        raise dnnlib.UserError(f"{path}: is a network of --channels {channels}, not of {channels_of(network)}")
    network.set_values(state.variables, source=path)


def _load_state(path):
    """Return (state, number of channels) of a snapshot of a network of images."""
    state = tflib.load_snapshot(path)
    function = state.get("build_func_name", autoencoder.__name__)
    if function != autoencoder.__name__:
        name = dnnlib.util.printable(function)
        raise dnnlib.UserError(f"{path}: a snapshot of '{name}'; only '{autoencoder.__name__}' is known")
    channels = state.get("static_kwargs", {}).get("channels", RGB)
    if not isinstance(channels, int) or channels not in (RGB, GREY):
        raise dnnlib.UserError(f"{path}: a network of {dnnlib.util.printable(channels)} channels; 1 or 3 are known")
    return state, channels
