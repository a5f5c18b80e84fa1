"""The fast layers against plain ones, in values and in gradients."""

import numpy as np
import pytest

import network
from benchmarks import plain_layers
from dnnlib import tflib
from dnnlib.tflib import layers, tf

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def values_and_gradients(function, arrays, static):
    """Return the output of `function` and its gradients with respect to the arrays, for a fixed dy."""
    with tf.Graph().as_default(), tflib.create_session() as session:
        tensors = [
            tf.placeholder(tf.float32, a.shape if static or a.ndim < 4 else [None] * 3 + [a.shape[3]]) for a in arrays
        ]
        tensors[-2].set_shape(arrays[-2].shape)  # A kernel is a variable: its shape is static.
        output = function(*tensors)
        dy = tf.sin(tf.cast(tf.reshape(tf.range(tf.size(output)), tf.shape(output)), tf.float32))
        gradients = tf.gradients(output, tensors, dy)
        return session.run([output, *gradients], dict(zip(tensors, arrays)))


def assert_same(fast, plain, tolerance=2e-5):
    for a, b in zip(fast, plain):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def test_skip_waits_for_its_summand():
    """Otherwise its result, one of the largest tensors, is held in memory while the layers in between are computed."""
    with tf.Graph().as_default() as graph:
        x, skip = (tf.placeholder(tf.float32, [1, n, n, 16]) for n in (4, 8))
        layers.upsampled_conv2d(x, skip, tf.zeros([3, 3, 32, 8]), tf.zeros([8]))
        (of_skip,) = (op for op in graph.get_operations() if op.type == "Conv2D" and op.inputs[0] is skip)
        assert [op.type for op in of_skip.control_inputs] == ["EnsureShape"]  # The other summand.


@pytest.mark.parametrize("by_products", [False, True])
@pytest.mark.parametrize("size,static", [((2, 6, 10), True), ((1, 2, 2), False), ((3, 1, 5), False)])
@pytest.mark.parametrize("channels", [(5, 4, 7), (16, 16, 8)])
def test_convolutions(monkeypatch, size, channels, static, by_products):
    monkeypatch.setattr(layers, "on_plain_cpu", lambda: by_products)
    (n, h, w), (c, s, out) = size, channels
    arrays = [draw(n, h, w, c), draw(n, 2 * h, 2 * w, s), draw(3, 3, c + s, out), draw(out)]

    def compute(layers, x, skip, kernel, bias):
        return layers.upsampled_conv2d(x, skip, kernel, bias, 0.1)

    results = [
        values_and_gradients(lambda *args, of=of: compute(of, *args), arrays, static) for of in (layers, plain_layers)
    ]
    assert_same(*results)

    arrays = [draw(n, h, w, c), draw(3, 3, c, out), draw(out)]
    results = [
        values_and_gradients(lambda *args, of=of: of.conv2d(*args, 0.1), arrays, static)
        for of in (layers, plain_layers)
    ]
    assert_same(*results)


def step(layers_used, dtype, monkeypatch, x):
    """Return the output and the gradients of the RGB network for a minibatch."""
    monkeypatch.setattr(network, "layers", layers_used)
    with tf.Graph().as_default(), tflib.create_session() as session:
        tf.set_random_seed(1)
        net = network.create_autoencoder(dtype)
        images = tf.constant(x)
        output = net.get_output_for(images)
        gradients = tf.gradients(tf.reduce_mean(tf.square(output - images)), list(net.vars.values()))
        session.run(tf.global_variables_initializer())
        assert output.dtype == tf.float32
        return session.run([output, *gradients])


@pytest.mark.parametrize("by_products", [False, True])
def test_network_in_both_precisions(monkeypatch, by_products):
    """Up to rounding in float32, which may change signs before a leaky ReLU; roughly in bfloat16, which has 8 bits."""
    x = np.random.default_rng(1).uniform(-0.5, 0.5, [2, 3, 64, 32]).astype(np.float32)
    plain = step(plain_layers, tf.float32, monkeypatch, x)
    monkeypatch.setattr(layers, "on_plain_cpu", lambda: by_products)
    assert_same(step(layers, tf.float32, monkeypatch, x), plain, tolerance=1e-3)
    for a, b in zip(step(layers, tf.bfloat16, monkeypatch, x), plain):
        assert np.abs(a - b).max() < 0.25 * np.abs(b).max()
        assert np.vdot(a, b) > 0.97 * np.linalg.norm(a) * np.linalg.norm(b)


def test_precision_auto_follows_the_hardware(monkeypatch, capsys):
    for flags, expected in (({"avx2"}, tf.float32), ({"avx512f", "amx_bf16"}, tf.bfloat16)):
        monkeypatch.setattr(tflib.tfutil, "cpu_flags", lambda flags=flags: flags)
        assert tflib.pick_dtype("auto") == expected
        assert f"Precision: {expected.name}." in capsys.readouterr().out
    monkeypatch.setattr(tflib.tfutil, "cpu_flags", lambda: {"avx2"})
    assert tflib.pick_dtype("bfloat16") == tf.bfloat16
    assert "slowly" in capsys.readouterr().out


@pytest.mark.parametrize("skip_channels", [4, 16])
@pytest.mark.parametrize("size,static", [((2, 2), False), ((9, 7), False), ((6, 5), True)])
def test_strips(monkeypatch, size, static, skip_channels):
    monkeypatch.setattr(layers, "on_plain_cpu", lambda: True)
    (h, w), (c, s, out) = size, (5, skip_channels, 7)
    x, skip, kernel, bias = draw(1, h, w, c), draw(1, 2 * h, 2 * w, s), draw(3, 3, c + s, out), draw(out)
    for function, arrays in (("upsampled_conv2d", [x, skip, kernel, bias]), ("conv2d", [x, kernel[:, :, :c], bias])):
        with layers.in_strips():
            fast = values_and_gradients(lambda *args, f=function: getattr(layers, f)(*args, 0.1), arrays, static)
        plain = values_and_gradients(lambda *args, f=function: getattr(plain_layers, f)(*args, 0.1), arrays, static)
        assert_same(fast, plain)
