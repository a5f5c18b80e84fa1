"""Muon: what makes its steps what they are."""

import numpy as np
import pytest

from dnnlib import tflib
from dnnlib.tflib import tf
from dnnlib.tflib.muon import MOMENTUM, RMS, orthogonalized

SHAPES = {"wide": [3, 3, 32, 32], "narrow": [3, 3, 3, 32], "bias": [32]}


@pytest.fixture(autouse=True)
def session():
    with tf.Graph().as_default(), tflib.create_session() as session:
        yield session


def matrix(rows, columns, singular_values, seed=0):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=[n, min(rows, columns)]))[0] for n in (rows, columns))
    return u, v, ((u * singular_values) @ v.T).astype(np.float32)


@pytest.mark.parametrize("rows,columns", [(90, 40), (40, 90), (40, 40)])
def test_singular_values_become_alike_and_their_vectors_stay(session, rows, columns):
    u, v, a = matrix(rows, columns, np.geomspace(1e-6, 1e-4, 40))
    result = session.run(orthogonalized(tf.constant(a)))
    inner = u.T @ result @ v  # Diagonal if the vectors are the same.
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=0.01)
    large = np.geomspace(1e-6, 1e-4, 40) > np.linalg.norm(a) / 500
    assert large.sum() > 30 and np.all((np.diag(inner)[large] > 0.65) & (np.diag(inner)[large] < 1.25))


def test_no_gradient_no_step(session):
    assert not session.run(orthogonalized(tf.zeros([40, 50]))).any()


def test_wide_kernels_take_muon_s_steps_and_all_else_adam_s(session):
    """Two steps on a linear loss, whose gradients are given."""
    _, _, gradient = matrix(9 * 32, 32, np.geomspace(0.01, 1, 32))
    gradients = {"wide": gradient.reshape(SHAPES["wide"])}
    gradients |= {name: np.ones(SHAPES[name], np.float32) for name in ("narrow", "bias")}
    variables = {name: tf.get_variable(name, initializer=tf.zeros(g.shape)) for name, g in gradients.items()}

    optimizer = tflib.Optimizer(0.01, beta1=0.9, beta2=0.99, epsilon=1e-8, kind="muon")
    _, update, _ = optimizer.minimize(linear_loss(variables, gradients), [tf.ones([1])], ["/cpu:0"])
    session.run(tf.global_variables_initializer())
    before = np.zeros([9 * 32, 32])
    for step in (1, 2):
        session.run(update)
        values = session.run(variables)
        for name in ("narrow", "bias"):
            np.testing.assert_allclose(values[name], -0.01 * step, rtol=1e-4)  # Adam: the sign of a constant gradient.
        wide = values["wide"].reshape(before.shape)
        momentum = (1 - MOMENTUM**step) * gradient
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        expected = -0.01 * RMS * np.sqrt(9 * 32) * session.run(orthogonalized(tf.constant(ahead.astype(np.float32))))
        np.testing.assert_allclose(wide - before, expected, atol=1e-5)
        assert np.sqrt(np.mean(np.square(wide - before))) == pytest.approx(0.01 * RMS, rel=0.2)
        before = wide


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_weight_decay_shrinks_kernels_and_no_biases(kind):
    gradients = {name: np.float32(np.random.default_rng(0).normal(size=shape)) for name, shape in SHAPES.items()}

    def step(weight_decay):
        with tf.Graph().as_default(), tflib.create_session() as session:
            variables = {name: tf.get_variable(name, initializer=tf.ones(shape)) for name, shape in SHAPES.items()}
            optimizer = tflib.Optimizer(0.01, 0.9, 0.99, 1e-8, kind, weight_decay)
            _, update, _ = optimizer.minimize(linear_loss(variables, gradients), [tf.ones([1])], ["/cpu:0"])
            session.run(tf.global_variables_initializer())
            session.run(update)
            return session.run(variables)

    plain, decayed = step(0.0), step(5.0)
    for name, shrinkage in {"wide": 0.05, "narrow": 0.05, "bias": 0}.items():
        np.testing.assert_allclose(plain[name] - decayed[name], shrinkage, atol=1e-6)


def linear_loss(variables, gradients):
    """A loss whose gradients by `variables` are the arrays `gradients`."""
    return lambda scale: scale[0] * tf.add_n([tf.reduce_sum(variables[name] * g) for name, g in gradients.items()])
