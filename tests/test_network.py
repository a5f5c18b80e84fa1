"""Tests of the networks and the optimizer, some against the published system's numbers (tests/golden/README.md)."""

import concurrent.futures
import os

import numpy as np
import pytest
from conftest import GOLDEN_DIR
from scipy import ndimage

import dnnlib
import network
from dnnlib import tflib
from dnnlib.tflib import tf
from inference import tiling
from mri import dataset_mri, kspace
from mri.losses import fft2, measured_error
from mri.model import Model

LAYERS = [f"enc_conv{i}" for i in range(7)]
LAYERS += [f"dec_conv{i}{b}" for i in (5, 4, 3, 2) for b in ("", "b")] + ["dec_conv1a", "dec_conv1b", "dec_conv1"]


@pytest.fixture
def graph():
    with tf.Graph().as_default(), tflib.create_session(num_cpu_devices=2):
        yield


def set_golden_weights(net, seed, weight, bias):
    """Set the weights by the recipe of the golden files."""
    rng, values = np.random.RandomState(seed), {}
    for layer in LAYERS:
        shape = net.vars[f"{layer}/{weight}"].shape.as_list()
        values[f"{layer}/{weight}"] = rng.standard_normal(shape) * np.sqrt(2) / np.sqrt(9 * shape[2])
        values[f"{layer}/{bias}"] = rng.standard_normal(shape[3]) * 0.05
    net.set_values({name: value.astype(np.float32) for name, value in values.items()}, "recipe")


def golden(name):
    return np.load(os.path.join(GOLDEN_DIR, f"{name}.npz"))


def check_variables(arrays, names, norms, heads):
    for name, norm, head in zip(names, norms, heads):
        value = arrays[str(name)]
        assert np.linalg.norm(value) == pytest.approx(norm, rel=1e-3), name
        np.testing.assert_allclose(value.ravel()[: len(head)], head, rtol=2e-2, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("devices", [["/cpu:0"], ["/cpu:0", "/cpu:1"]])
def test_golden_rgb(graph, devices):
    z = golden("rgb_network")
    net = network.create_autoencoder()
    rate = tf.placeholder(tf.float32, [])
    optimizer = tflib.Optimizer(rate, beta1=0.9, beta2=0.99, epsilon=1e-8)
    x, t = tf.constant(z["step_x"]), tf.constant(z["step_t"])
    loss, update, skipped = optimizer.minimize(
        lambda x, t: tf.reduce_mean(tf.square(net.get_output_for(x) - t)), [x, t], devices
    )
    gradients = tf.gradients(tf.reduce_mean(tf.square(net.get_output_for(x) - t)), list(net.vars.values()))
    session = tf.get_default_session()
    session.run(tf.global_variables_initializer())
    set_golden_weights(net, 20180307, "weight", "bias")

    np.testing.assert_allclose(net.run(z["x"]), z["y"], atol=1e-4)
    check_variables(dict(zip(net.vars, session.run(gradients))), z["names"], z["grad_norm"], z["grad_head"])
    for lr, expected in zip(z["step_lr"], z["step_loss"]):
        value, _, bad = session.run([loss, update, skipped], {rate: lr})
        assert value == pytest.approx(expected, rel=1e-4)
        assert bad == 0
    check_variables(net.get_values(), z["names"], z["after_norm"], z["after_head"])


def test_golden_mri(graph):
    z = golden("mri_network")
    model = Model("fspec")
    mask, variables = z["mask"].astype(bool), model.network.vars
    known = kspace.fft2c(z["image"]) * mask
    element = dataset_mri.Element(z["input"], z["target"], mask, known, np.ones_like(z["target"]))
    rate, beta1 = tf.placeholder(tf.float32, []), tf.placeholder_with_default(z["step_beta1"][0], [])
    optimizer = tflib.Optimizer(rate, beta1=beta1, beta2=0.99, epsilon=1e-8)
    inputs = [tf.constant(field[None]) for field in element]
    loss, update, _ = optimizer.minimize(model.losses["image"], inputs, ["/cpu:0"])
    session = tf.get_default_session()
    session.run(tf.global_variables_initializer())
    set_golden_weights(model.network, 20180308, "W", "b")

    (result,) = model.run([element])
    np.testing.assert_allclose(result.output, z["output"], atol=1e-4)
    np.testing.assert_allclose(result.restored, z["output_fspec"], atol=1e-4)
    errors = 10 ** (-np.array(result.decibels()[1:]) / 10)
    assert errors == pytest.approx([float(z["loss"]), float(z["loss_clamped"][0])], rel=1e-4)
    # Adam's first step is the sign of each gradient, and many are near rounding noise here: 1e-6 of noise on the input
    # moves the later losses by 5e-4 and 4e-3, and float64 differs from the published float32 by 1e-5 and 2e-3.
    tolerances = 1e-4, 1e-3, 1e-2
    for step, tolerance in enumerate(tolerances):
        feed = {rate: z["step_lr"][step], beta1: z["step_beta1"][step]}
        assert session.run([loss, update], feed)[0] == pytest.approx(z["step_loss"][step], rel=tolerance)
        if step == 0:
            moments = session.run({name: optimizer.adam.get_slot(v, "m") for name, v in variables.items()})
    values = model.network.get_values()
    # The post-operation cancels the effect of the last bias, whose gradient is rounding noise.
    keys, kept = ("names", "grad_norm", "grad_head", "after_norm", "after_head"), z["names"] != "dec_conv1/b"
    names, grad_norms, grad_heads, *after = (z[key][kept] for key in keys)
    gradients = {name: moment / (1 - 0.9) for name, moment in moments.items()}
    check_variables(gradients, names, grad_norms, grad_heads)
    for name, norm, head in zip(names, *after):
        assert np.linalg.norm(values[name]) == pytest.approx(norm, rel=2e-3), name
        # The three steps move a weight by up to 2.3e-3.
        np.testing.assert_allclose(values[name].ravel()[:1], head, rtol=0, atol=5e-4, err_msg=name)


def test_skipped_update(graph):
    """An update that is not finite changes no variable, Adam's moments and powers included."""
    net = network.create_autoencoder()
    x = tf.placeholder(tf.float32, [2, 3, 32, 32])
    optimizer = tflib.Optimizer(1e-3, beta1=0.9, beta2=0.99, epsilon=1e-8)
    _, update, skipped = optimizer.minimize(lambda x: tf.reduce_mean(net.get_output_for(x)), [x], ["/cpu:0"])
    session = tf.get_default_session()
    session.run(tf.global_variables_initializer())
    before = session.run(tf.global_variables())
    assert session.run([skipped, update], {x: np.full([2, 3, 32, 32], np.nan)})[0] == 1
    for old, new in zip(before, session.run(tf.global_variables())):
        np.testing.assert_array_equal(old, new)  # Adam's moments and powers as well.


def test_too_many_skips(monkeypatch):
    monkeypatch.setattr(tflib.optimizer, "MOST_SKIPPED", 2)
    skipped = tflib.SkippedUpdates(in_a_row=1)
    for bad in (1, 0, 1, 1):
        skipped.count(7, bad, float("nan"), 0.1)
    with pytest.raises(dnnlib.UserError, match=r"iteration 8: 3 updates in a row .* --learning-rate below 0\.1"):
        skipped.count(8, 1, float("nan"), 0.1)


@pytest.mark.parametrize("height,width", [(1, 1), (7, 100), (33, 65), (64, 96)])
def test_any_size(graph, height, width):
    tf.set_random_seed(3)
    net = network.create_autoencoder()
    tf.get_default_session().run(tf.global_variables_initializer())
    x = np.random.default_rng(0).uniform(-0.5, 0.5, [2, 3, height, width]).astype(np.float32)
    pad = [(0, 0), (0, 0), (0, -height % 32), (0, -width % 32)]
    expected = net.run(np.pad(x, pad, mode="reflect"))[:, :, :height, :width]
    np.testing.assert_allclose(net.run(x), expected, atol=1e-6)


def test_other_threads(snapshot):
    images = np.random.default_rng(0).uniform(-0.5, 0.5, [2, 3, 40, 50]).astype(np.float32)
    with tf.Graph().as_default(), tflib.create_session():
        net = network.load_autoencoder(snapshot)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            outputs = list(pool.map(lambda x: tiling.denoise(net, x), images))
    np.testing.assert_allclose(outputs, images, atol=1e-5)  # This network gives back its input.


def test_initial_weights(graph):
    """Weights are normal as in He et al. 2015 and depend on the seed; biases are zero."""

    def initial(seed):
        with tf.Graph().as_default(), tflib.create_session() as session:
            tf.set_random_seed(seed)
            net = network.create_autoencoder()
            session.run(tf.global_variables_initializer())
            return net.get_values()

    a, b, c = initial(1), initial(1), initial(2)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name])
        if name.endswith("bias"):
            assert not value.any()
            continue
        assert not np.array_equal(value, c[name])
        gain = 1 if name == "dec_conv1/weight" else np.sqrt(2)
        assert value.std() == pytest.approx(gain / np.sqrt(9 * value.shape[2]), rel=5 / np.sqrt(2 * value.size))


def test_moving_average():
    with tf.Graph().as_default(), tflib.create_session() as session:
        net, average = network.create_autoencoder(), network.create_autoencoder(scope="moving_average")
        follow = average.follow(net, decay=0.75)
        session.run(tf.global_variables_initializer())
        start = net.get_values()
        np.testing.assert_array_equal(average.get_values()["enc_conv0/weight"], start["enc_conv0/weight"])
        net.set_values({name: value + 1 for name, value in start.items()}, source="")
        for _ in range(2):
            session.run(follow)
        for name, value in average.get_values().items():
            np.testing.assert_allclose(value, start[name] + 1 - 0.75**2, atol=1e-6)


def test_measured_error(graph):
    """The squared error for clean targets; the same in the mean for undersampled ones, with a steadier gradient."""
    rng = np.random.default_rng(0)
    undersampling = dataset_mri.Undersampling(0.1, size=31)
    clean, output = (ndimage.gaussian_filter(rng.normal(size=[31, 31]), 2).astype(np.float32) for _ in range(2))
    output = clean + 0.1 * output
    spectrum = kspace.fft2c(clean)
    targets, masks = zip(*(undersampling(spectrum, rng) for _ in range(2000)))
    weights = np.stack(masks) / undersampling.probability
    y, t, w = (tf.placeholder(tf.float32, [None, 31, 31]) for _ in range(3))
    error = measured_error(fft2(y), t, w)
    session = tf.get_default_session()

    squared = np.mean(np.square(output - clean))
    of_clean = {y: output[None], t: clean[None], w: np.ones([1, 31, 31])}
    assert session.run(error, of_clean) == pytest.approx(squared, rel=1e-4)
    gradient = session.run(tf.gradients(error, y)[0], of_clean)[0]
    np.testing.assert_allclose(gradient, 2 * (output - clean) / 31**2, atol=1e-6 * np.abs(gradient).max() + 1e-9)

    draws = {y: np.stack([output] * 2000), t: np.stack(targets), w: weights}
    assert session.run(error, draws) == pytest.approx(squared, rel=0.03)
    by_draw = session.run(tf.gradients(error, y)[0], draws) * 2000
    np.testing.assert_allclose(by_draw.mean(axis=0), gradient, atol=0.15 * np.abs(gradient).max())
    of_images = 2 * (output - np.stack(targets)) / 31**2
    assert by_draw.var() < 0.1 * of_images.var()
