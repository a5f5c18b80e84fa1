"""Layers of a U-Net on feature maps [N, H, W, C]: the values of TensorFlow's own layers, computed faster.

Every rewriting is exact up to the rounding of floats. Tests compare values and gradients with the plain layers in
benchmarks/plain_layers.py; docs/performance.md has the measured gains. Kernels and biases are float32 variables; a
layer computes in the type of its input.

- Leaky ReLU takes its gradient from its output, which has the sign of its input. The input is then not needed, and
  TensorFlow fuses convolution, bias and activation into one operation that does not store it.
- The gradient of a bias is a matrix product with a vector of ones. Matrix products use all cores; BiasAddGrad does not.
- `upsampled_conv2d` needs 4/9 of the products of 2x nearest-neighbour upsampling followed by a convolution.
- The gradient of a convolution with respect to its input is a convolution with the flipped kernel: the fastest code.
- CPUs without AVX-512 compute the gradient with respect to the kernel from matrix products (87 to 130 GFLOP/s), because
  oneDNN's own kernel for it is slow there (25 to 40 GFLOP/s).
"""

import contextlib
import itertools

import numpy as np

from .tfutil import on_plain_cpu, tf

_STRIPS = 4  # Strips per example; any number from 2 on is about equally fast on two cores.
_strips = False  # Whether layers convolve in strips; set by `in_strips`.
_FEW = 8  # Maximum number of channels of a skip connection that is convolved together with the upsampled input.


def conv2d(x, kernel, bias, slope=None):
    """3x3 convolution with zero padding: [N, H, W, in] -> [N, H, W, out].

    Args:
        kernel: [3, 3, in, out].
        bias: [out], added to the result.
        slope: Slope in (0, 1) of the leaky ReLU that follows, max(y, slope y). None: no activation.
    """
    return _convolve(x, tf.cast(kernel, x.dtype), lambda y: _leaky_relu(_bias_add(y, bias), slope))


def upsampled_conv2d(x, skip, kernel, bias, slope=None):
    """`conv2d` of the concatenation of `x`, upsampled 2x by nearest neighbour, and `skip`.

    A 3x3 window on the upsampled `x` covers only 2x2 different pixels of `x`. Each is multiplied by a sum of kernel
    entries, which depends on whether the row and the column of the output pixel are even. One 2x2 convolution at the
    low resolution therefore computes all four kinds of output pixels as channels, which are then interleaved (the
    sub-pixel convolution of Shi et al. 2016). A `skip` of few channels is convolved along with `x`, its 2x2 blocks as
    channels: this takes 16/9 of the products, but saves a convolution and a sum.

    Args:
        x: [N, H, W, c].
        skip: [N, 2H, 2W, s].
        kernel: [3, 3, c + s, out].
        bias, slope: See `conv2d`.

    Returns:
        [N, 2H, 2W, out].
    """
    kernel_up, kernel_skip = tf.split(kernel, [x.shape[-1], skip.shape[-1]], axis=2)
    along = skip.shape[-1] <= _FEW
    subpixel = _subpixel_kernel(kernel_up, upsampled=True)
    if along:
        x = tf.concat([x, tf.nn.space_to_depth(skip, 2)], axis=-1)
        subpixel = tf.concat([subpixel, _subpixel_kernel(kernel_skip, upsampled=False)], axis=2)

    def finish(y):
        return _leaky_relu(_bias_add(y, tf.tile(bias, [4])), slope if along else None)

    y = _interleaved(_convolve(x, tf.cast(subpixel, x.dtype), finish))
    y = tf.slice(y, [0, 1, 1, 0], tf.concat([tf.shape(skip)[:3], [kernel.shape[-1]]], axis=0))
    y = tf.ensure_shape(y, [*skip.shape[:3], kernel.shape[-1]])
    if along:
        return y
    # The bias must not be added here: TensorFlow 2.21 would fuse convolution, bias, sum and activation into one oneDNN
    # operation that returns wrong numbers.
    with tf.control_dependencies([y]):  # Otherwise the result may be computed first and held until `y` is ready.
        y += _convolve(skip, tf.cast(kernel_skip, x.dtype))
    return _leaky_relu(y, slope)


def max_pool(x):
    """2x2 max pooling: [N, H, W, C] -> [N, H/2, W/2, C], H and W even."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")


def _subpixel_kernel(kernel, upsampled):
    """Kernel of a 2x2 convolution of blocks of 2x2 pixels that computes a 3x3 convolution of the pixels.

    A window covers two blocks above each other, four rows of pixels, and makes two output rows: the second row of the
    upper block, for which the kernel lies on the first three rows, and the first row of the lower block, for which it
    lies on the last three. The same holds for columns, so that a window makes four kinds of output pixels.

    Args:
        kernel: [3, 3, in, out].
        upsampled: Whether the four pixels of a block are equal, so that one stands for the block. Otherwise the pixels
            are channels, as `tf.nn.space_to_depth` makes them.

    Returns:
        [2, 2, in, 4 out] if `upsampled`, otherwise [2, 2, 4 in, 4 out].
    """
    channels, out = kernel.shape[2:]
    entries = np.eye(9, dtype=np.float32).reshape(3, 3, 9)
    kinds = [np.pad(entries, [[r, 1 - r], [c, 1 - c], [0, 0]]) for r, c in itertools.product((0, 1), repeat=2)]
    windows = np.reshape(
        kinds, [4, 2, 2, 2, 2, 9]
    )  # [kind, block, row in it, block, column in it, entry of the kernel]
    if upsampled:
        windows = windows.sum(axis=(2, 4), keepdims=True)
    # One matrix product adds up the entries. Sums of slices of the kernel take 1.3 to 4 times as long.
    table = windows.transpose(1, 3, 2, 4, 0, 5).reshape(-1, 9)
    sums = tf.reshape(tf.matmul(tf.constant(table), tf.reshape(kernel, [9, -1])), [2, 2, -1, 4, channels, out])
    return tf.reshape(tf.transpose(sums, [0, 1, 2, 4, 3, 5]), [2, 2, -1, 4 * out])


def _interleaved(y):
    """`tf.nn.depth_to_space(y, 2)` of [N, H, W, 4 C].

    Faster, because it moves whole rows: depth_to_space moves pixels one by one.
    """
    shape, channels = tf.shape(y), y.shape[-1] // 4
    rows = tf.transpose(tf.reshape(y, [-1, shape[2], 2, 2 * channels]), [0, 2, 1, 3])
    return tf.reshape(rows, [shape[0], 2 * shape[1], 2 * shape[2], channels])


@contextlib.contextmanager
def in_strips():
    """Networks made in this context take one example at a time; a CPU without AVX-512 convolves it as 4 strips.

    oneDNN copies every channel 9 times before it convolves a batch of one. In strips, an example of 0.4 megapixels
    takes half the time and two thirds of the memory. The larger graph takes 0.8 s longer to build.
    """
    global _strips
    before, _strips = _strips, on_plain_cpu()
    try:
        yield
    finally:
        _strips = before


def _convolve(x, kernel, finish=lambda y: y):
    """Convolve `x` [N, H, W, C], padded with one pixel of zeros on all sides, and apply `finish` to the result.

    Args:
        kernel: [size, size, C, out], size 2 or 3.
        finish: Elementwise function.

    Returns:
        [N, H, W, out] for size 3; for size 2 [N, H + 1, W + 1, out], possibly with further rows.
    """
    size = kernel.shape[0]
    if _strips:
        y = _convolve_strips(x, kernel, finish)
        return tf.ensure_shape(y[:, : tf.shape(x)[1]], [*x.shape[:3], kernel.shape[-1]]) if size == 3 else y
    if size == 3:
        return finish(_conv(x, kernel, "SAME"))
    return finish(_conv(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, "VALID"))


def _convolve_strips(x, kernel, finish):
    """`_convolve` for N = 1, with up to _STRIPS - 1 more rows. Strips overlap by the rows that the kernel needs."""
    size, channels = kernel.shape[0], x.shape[-1]
    example = tf.ensure_shape(x, [1, None, None, channels])[0]
    height, width, _ = tf.unstack(tf.shape(example))
    rows = -(-(height + 3 - size) // _STRIPS)
    seen = rows + size - 1
    pieces = []
    for strip in range(_STRIPS):
        start, above = rows * strip - 1, int(strip == 0)
        inside = example[tf.maximum(start, 0) : start + seen]  # Not a copy.
        below = seen - above - tf.shape(inside)[0]
        zeros = [tf.zeros([count, width, channels], x.dtype) for count in (above, below)]
        pieces += [zeros[0], inside, zeros[1]]
    x = tf.reshape(tf.concat(pieces, axis=0), [_STRIPS, seen, width, channels])
    y = finish(tf.nn.conv2d(x, kernel, strides=1, padding=[[0, 0], [0, 0], [1, 1], [0, 0]]))
    return tf.reshape(y, [1, _STRIPS * rows, width + (3 - size), kernel.shape[-1]])


def _leaky_relu(x, slope):
    if slope is None:
        return x
    with _gradient(LeakyRelu="LeakyReluFromOutput"):
        return tf.nn.leaky_relu(x, slope)


def _conv(x, kernel, padding):
    with _gradient(Conv2D="Conv2DByProducts" if on_plain_cpu() else "Conv2DByForward"):
        return tf.nn.conv2d(x, kernel, strides=1, padding=padding)


def _bias_add(x, bias):
    with _gradient(BiasAdd="BiasAddByProduct"):
        return tf.nn.bias_add(x, tf.cast(bias, x.dtype))


def _gradient(**names):
    """Context in which operations of these types get the registered gradients of these names."""
    return tf.get_default_graph().gradient_override_map(names)


@tf.RegisterGradient("LeakyReluFromOutput")
def _leaky_relu_gradient(op, dy):
    return tf.raw_ops.LeakyReluGrad(gradients=dy, features=op.outputs[0], alpha=op.get_attr("alpha"))


@tf.RegisterGradient("BiasAddByProduct")
def _bias_gradient(op, dy):
    rows = tf.reshape(dy, [-1, dy.shape[-1]])
    return dy, tf.matmul(tf.ones([1, tf.shape(rows)[0]], dy.dtype), rows)[0]


@tf.RegisterGradient("Conv2DByForward")
def _conv_gradient(op, dy):
    x, kernel = op.inputs
    dkernel = tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=dy, strides=[1] * 4, padding=op.get_attr("padding")
    )
    return _input_gradient(op, dy), dkernel


@tf.RegisterGradient("Conv2DByProducts")
def _conv_gradient_by_products(op, dy):
    x, kernel = op.inputs
    size = kernel.shape[0]
    padding = (size - 1) // 2 if op.get_attr("padding") == b"SAME" else 0
    return _input_gradient(op, dy), _kernel_gradient(x, dy, size, padding, 0)


def _input_gradient(op, dy):
    kernel = op.inputs[1]
    border = kernel.shape[0] - 1
    padding = "SAME" if op.get_attr("padding") == b"SAME" else [[0, 0], [border] * 2, [border] * 2, [0, 0]]
    flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    return tf.nn.conv2d(dy, flipped, strides=1, padding=padding)


def _kernel_gradient(x, dy, size, x_padding, dy_padding):
    """Gradient with respect to the kernel: for each tap, the sum over the pixels p of x[p + tap] dy[p].

    With all padded pixels in one long row, p + tap is a shift of the row, so the sum is a matrix product of shifted
    rows; zeros in `dy` cancel the pixels beyond the borders. A shift is a slice of whole rows, which TensorFlow does
    not copy. The taps of a kernel row share one product: the narrower of `x` and `dy` is copied `size` times, side by
    side.

    Args:
        x: [N, H, W, in].
        dy: Gradient of the output, [N, H', W', out].
        x_padding, dy_padding: Width of the zeros around them, where H' + 2 dy_padding = H + 2 x_padding - size + 1.

    Returns:
        [size, size, in, out].
    """
    border = size - 1
    if dy.shape[-1] < x.shape[-1]:  # x[p + tap] dy[p] = dy[q - tap] x[q]: the same with x and dy exchanged.
        exchanged = _kernel_gradient(dy, x, size, dy_padding + border, x_padding)
        return tf.transpose(tf.reverse(exchanged, [0, 1]), [0, 1, 3, 2])
    x_rows = _rows(x, [x_padding, x_padding])
    dy_rows = _rows(dy, [dy_padding, dy_padding + border])
    width = tf.shape(x)[2] + 2 * x_padding
    count = tf.shape(x_rows)[0] - border * width - border
    dy_rows = _shift(dy_rows, 0, count)
    x_rows = tf.concat([_shift(x_rows, column, count + border * width) for column in range(size)], axis=-1)
    products = [tf.matmul(_shift(x_rows, row * width, count), dy_rows, transpose_a=True) for row in range(size)]
    return tf.reshape(tf.stack(products), [size, size, x.shape[-1], dy.shape[-1]])


def _rows(x, padding):
    """Pad the height and the width of [N, H, W, C] with zeros, [before, after]: -> [pixels, C]."""
    return tf.reshape(tf.pad(x, [[0, 0], padding, padding, [0, 0]]), [-1, x.shape[-1]])


def _shift(rows, start, count):
    return tf.slice(rows, tf.stack([start, 0]), tf.stack([count, -1]))
