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
_FEW = 8  # Channels of a skip connection, at most, that are convolved along with what is upsampled.


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
    then change places. (The sub-pixel convolution of Shi et al. 2016, from the other end.) A `skip` of few channels
    goes along, its blocks of 2x2 pixels as channels: 16/9 of the products, but no convolution and no sum of its own.
    """
    kernel_up, kernel_skip = tf.split(kernel, [x.shape[-1], skip.shape[-1]], axis=2)
    along = skip.shape[-1] <= _FEW
    subpixel = _subpixel_kernel(kernel_up, _TAPS_OF_UPSAMPLED)
    if along:
        x = tf.concat([x, tf.nn.space_to_depth(skip, 2)], axis=-1)
        subpixel = tf.concat([subpixel, _subpixel_kernel(kernel_skip, _TAPS_OF_BLOCKS)], axis=2)

    def finish(y):
        return _leaky_relu(_bias_add(y, tf.tile(bias, [4])), slope if along else None)

    y = _interleaved(_convolve(x, tf.cast(subpixel, x.dtype), finish))
    y = tf.slice(y, [0, 1, 1, 0], tf.concat([tf.shape(skip)[:3], [kernel.shape[-1]]], axis=0))
    y = tf.ensure_shape(y, [*skip.shape[:3], kernel.shape[-1]])
    if along:
        return y
    # The bias is not added here: TensorFlow 2.21 would fuse convolution, bias, sum and activation into one operation of
    # oneDNN's, which gives other numbers.
    with tf.control_dependencies([y]):  # Else TensorFlow may do this first, and keep it while it does all above.
        y += _convolve(skip, tf.cast(kernel_skip, x.dtype))
    return _leaky_relu(y, slope)


def max_pool(x):
    """2x2 max pooling: [N, H, W, C] -> [N, H/2, W/2, C], H and W even."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")


# Along one axis, with kernel (a, b, c): window p sees the pixels p-1 and p at the low resolution, its taps, and makes
# the pixels 2p-1, odd, and 2p, even. (So the odd ones come first, and the whole begins one pixel early.)
# [odd or even, tap, part of the tap, entry of the kernel]: whether the entry is added up.
_TAPS_OF_UPSAMPLED = np.array(
    [
        [[[1, 1, 0]], [[0, 0, 1]]],  # (a + b) x[p-1] + c x[p]
        [[[1, 0, 0]], [[0, 1, 1]]],  # a x[p-1] + (b + c) x[p]
    ]
)
_TAPS_OF_BLOCKS = np.array(
    [
        [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 0]]],  # a x[2p-2] + b x[2p-1] + c x[2p]
        [[[0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]],  # a x[2p-1] + b x[2p] + c x[2p+1]
    ]
)


def _subpixel_kernel(kernel, taps):
    """[3, 3, in, out] -> [2, 2, parts of a tap x in, 4 kinds x out]."""
    channels, out = kernel.shape[2:]
    both_axes = np.einsum("ktpe,luqf->tupqklef", taps, taps).reshape(-1, 9).astype(np.float32)
    sums = tf.matmul(tf.constant(both_axes), tf.reshape(kernel, [9, -1]))
    sums = tf.reshape(sums, [2, 2, -1, 4, channels, out])  # [tap, tap, part, kind, in, out]
    return tf.reshape(tf.transpose(sums, [0, 1, 2, 4, 3, 5]), [2, 2, -1, 4 * out])


def _interleaved(y):
    """`depth_to_space` by 2 of [N, H, W, 4 C], faster: pixels of a row are beside each other, so only rows move."""
    shape, channels = tf.shape(y), y.shape[-1] // 4
    rows = tf.transpose(tf.reshape(y, [-1, shape[2], 2, 2 * channels]), [0, 2, 1, 3])
    return tf.reshape(rows, [shape[0], 2 * shape[1], 2 * shape[2], channels])


@contextlib.contextmanager
def in_strips():
    """Networks made in this context take one image at a time: a CPU without AVX-512 convolves it by strips."""
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
    """The same of one image, with up to _STRIPS - 1 more rows. A strip has the rows of its neighbours that it needs."""
    size, channels = kernel.shape[0], x.shape[-1]
    image = tf.ensure_shape(x, [1, None, None, channels])[0]
    height, width, _ = tf.unstack(tf.shape(image))
    rows = -(-(height + 3 - size) // _STRIPS)
    seen = rows + size - 1
    pieces = []
    for strip in range(_STRIPS):
        start, above = rows * strip - 1, int(strip == 0)
        inside = image[tf.maximum(start, 0) : start + seen]  # Not a copy.
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
