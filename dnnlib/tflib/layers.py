"""The layers of a U-Net, [N, H, W, C]: what TensorFlow's own layers compute, by faster ways to the same numbers.

Every transformation is exact, that is, differs by the rounding of floats only; benchmarks/plain_layers.py has the same
layers written plainly, and tests compare values and gradients. Kernels and biases are float32 variables; a layer
computes in the type of its input.

- The gradient of leaky ReLU is taken from its output, whose sign is that of the input. Nothing else then needs the
  input, and TensorFlow fuses convolution, bias and activation into one operation that never stores it.
- The gradient of a bias is a product with a vector of ones: matrix products use all cores, BiasAddGrad does not.
- A convolution after 2x nearest-neighbour upsampling repeats itself: `upsampled_conv2d` needs 4/9 of its products.
- The gradient of a convolution by its input is a convolution with the flipped kernel, which has the fastest code.
- On CPUs without AVX-512 the gradient by the kernel is made of matrix products: oneDNN has no fast kernel for it there.
  And a single image is convolved as a batch of strips: of one image oneDNN first copies every channel 9 times.
"""

import contextlib

import numpy as np

from .tfutil import on_plain_cpu, tf

_STRIPS = 4  # That a single image is cut into; any number from 2 on has much the same speed on two cores.
_strips = False  # Whether it is.


def conv2d(x, kernel, bias, slope=None):
    """3x3 convolution, borders padded with zeros: [N, H, W, in] -> [N, H, W, out], plus `bias` [out].

    kernel: [3, 3, in, out]; slope: of a leaky ReLU after it, max(y, slope y), 0 < slope < 1; None: none.
    """
    return _convolve(x, tf.cast(kernel, x.dtype), lambda y: _leaky_relu(_bias_add(y, bias), slope))


def upsampled_conv2d(x, skip, kernel, bias, slope=None):
    """`conv2d` of 2x nearest-neighbour upsampled `x` [N, H, W, c] and `skip` [N, 2H, 2W, s], concatenated.

    kernel: [3, 3, c + s, out]. Returns [N, 2H, 2W, out].

    Of `x`, an output pixel sees 2x2 pixels only, each times a sum of kernel entries that depends on whether its row and
    its column are even. So one 2x2 convolution at the low resolution makes all four kinds of pixels, as channels, which
    `depth_to_space` interleaves. (The sub-pixel convolution of Shi et al. 2016, from the other end.)
    """
    kernel_up, kernel_skip = tf.split(kernel, [x.shape[-1], skip.shape[-1]], axis=2)
    channels = kernel.shape[-1]
    sums = tf.matmul(tf.constant(_SUBPIXEL_SUMS), tf.reshape(kernel_up, [9, -1]))
    sums = tf.reshape(sums, [4, 2, 2, x.shape[-1], channels])  # [kind, row, column, in, out]
    sums = tf.reshape(tf.transpose(sums, [1, 2, 3, 0, 4]), [2, 2, x.shape[-1], 4 * channels])
    # The bias is added here, not to the other part: TensorFlow 2.21 would fuse convolution, bias, sum and activation
    # into one operation of oneDNN's, which gives other numbers.
    up = _convolve(x, tf.cast(sums, x.dtype), lambda y: _bias_add(y, tf.tile(bias, [4])))
    up = tf.slice(tf.nn.depth_to_space(up, 2), [0, 1, 1, 0], tf.concat([tf.shape(skip)[:3], [channels]], axis=0))
    up = tf.ensure_shape(up, [*skip.shape[:3], channels])
    with tf.control_dependencies([up]):  # Else TensorFlow may do this first, and keep it while it does all below.
        y = up + _convolve(skip, tf.cast(kernel_skip, x.dtype))
    return _leaky_relu(y, slope)


def max_pool(x):
    """2x2 max pooling: [N, H, W, C] -> [N, H/2, W/2, C], H and W even."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")


def _subpixel_sums():
    """[4 kinds x 2x2 taps, 3x3]: which kernel entries are added up for each tap of each kind of pixel.

    Along one axis, with kernel (a, b, c): pixel 2i is a x[i-1] + (b + c) x[i], pixel 2i+1 is (a + b) x[i] + c x[i+1].
    Tap windows start at every x[p-1] of the padded input, so the even pixel of window p is 2p, the odd one 2p-1: the
    odd ones come first, and the whole begins one pixel early.
    """
    odd, even = [[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]
    return np.concatenate([np.kron(rows, columns) for rows in (odd, even) for columns in (odd, even)])


_SUBPIXEL_SUMS = _subpixel_sums().astype(np.float32)


@contextlib.contextmanager
def in_strips():
    """Networks made in this context are for images one by one: a CPU without AVX-512 convolves them by strips."""
    global _strips
    before, _strips = _strips, on_plain_cpu()
    try:
        yield
    finally:
        _strips = before


def _convolve(x, kernel, finish=lambda y: y):
    """finish(convolution of `x` [N, H, W, C], padded with a pixel of zeros on all sides).

    kernel: [size, size, C, out]; finish: what is done to every number of the result. With size 3 that has H rows, with
    size 2 at least H + 1.
    """
    size = kernel.shape[0]
    if _strips:
        y = _convolve_strips(x, kernel, finish)
        return tf.ensure_shape(y[:, : tf.shape(x)[1]], [*x.shape[:3], kernel.shape[-1]]) if size == 3 else y
    if size == 3:
        return finish(_conv(x, kernel, "SAME"))
    return finish(_conv(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, "VALID"))


def _convolve_strips(x, kernel, finish):
    """The same, with up to _STRIPS - 1 more rows. A strip has the rows of its neighbours that the kernel sees."""
    size, shape = kernel.shape[0], tf.shape(x)
    height = shape[1] + (3 - size)
    rows = -(-height // _STRIPS)
    x = tf.pad(x, [[0, 0], [1, 1 + _STRIPS * rows - height], [1, 1], [0, 0]])
    x = tf.gather(x, rows * np.arange(_STRIPS)[:, None] + tf.range(rows + size - 1), axis=1)
    y = finish(_conv(tf.reshape(x, [-1, rows + size - 1, shape[2] + 2, x.shape[-1]]), kernel, "VALID"))
    return tf.reshape(y, [-1, _STRIPS * rows, shape[2] + (3 - size), kernel.shape[-1]])


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
    """Operations of these types made in this context have the registered gradients of these names."""
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
    margin = (size - 1) // 2 if op.get_attr("padding") == b"SAME" else 0
    return _input_gradient(op, dy), _kernel_gradient(x, dy, size, margin)


def _input_gradient(op, dy):
    kernel = op.inputs[1]
    border = kernel.shape[0] - 1
    padding = "SAME" if op.get_attr("padding") == b"SAME" else [[0, 0], [border] * 2, [border] * 2, [0, 0]]
    flipped = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    return tf.nn.conv2d(dy, flipped, strides=1, padding=padding)


def _kernel_gradient(x, dy, size, margin):
    """[size, size, in, out]: for each tap, the sum over pixels p of the products x[p + tap] dy[p].

    With images padded and their pixels in one long row, p + tap is a shift of the row, so a tap is one matrix product
    of shifted rows; zeros in the margins take care of pixels beyond the borders. Shifts are slices of whole rows, which
    TensorFlow does not copy. Taps beside each other share a product: the narrower factor is written out once for each.
    """
    border = size - 1
    width = tf.shape(x)[2] + 2 * margin
    x_rows = _rows(x, [[margin] * 2, [margin] * 2])
    count = tf.shape(x_rows)[0] - border * width
    if dy.shape[-1] < x.shape[-1]:
        dy_rows = _rows(dy, [[0, border], [border, 0]])
        dy_rows = tf.concat([_shift(dy_rows, border - column, count) for column in range(size)], axis=-1)
        products = [tf.matmul(_shift(x_rows, row * width, count), dy_rows, transpose_a=True) for row in range(size)]
        gradient = tf.reshape(tf.stack(products), [size, x.shape[-1], size, dy.shape[-1]])
        return tf.transpose(gradient, [0, 2, 1, 3])
    count -= border
    dy_rows = _shift(_rows(dy, [[0, border], [0, border]]), 0, count)
    x_rows = tf.concat([_shift(x_rows, column, count + border * width) for column in range(size)], axis=-1)
    products = [tf.matmul(_shift(x_rows, row * width, count), dy_rows, transpose_a=True) for row in range(size)]
    return tf.reshape(tf.stack(products), [size, size, x.shape[-1], dy.shape[-1]])


def _rows(x, margins):
    """[N, H, W, C], padded with zeros in H and W -> [pixels, C]."""
    return tf.reshape(tf.pad(x, [[0, 0], *margins, [0, 0]]), [-1, x.shape[-1]])


def _shift(rows, start, count):
    return tf.slice(rows, tf.stack([start, 0]), tf.stack([count, -1]))
