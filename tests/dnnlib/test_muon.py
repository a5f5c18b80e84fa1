"""Adam, Muon and weight decay against the implementation in reference.py."""

import numpy as np
import pytest
import reference

from dnnlib import tflib
from dnnlib.tflib import tf
from dnnlib.tflib.muon import orthogonalized


@pytest.fixture(autouse=True)
def session():
    with tf.Graph().as_default(), tflib.create_session() as session:
        yield session


def matrix(rows, columns, singular_values, seed=0):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=[n, min(rows, columns)]))[0] for n in (rows, columns))
    return u, v, ((u * singular_values) @ v.T).astype(np.float32)


@pytest.mark.parametrize("rows,columns", [(90, 40), (40, 90), (40, 40)])
def test_orthogonalized_singular_values(session, rows, columns):
    u, v, a = matrix(rows, columns, np.geomspace(1e-6, 1e-4, 40))
    result = session.run(orthogonalized(tf.constant(a)))
    inner = u.T @ result @ v  # Diagonal if the singular vectors are unchanged.
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=0.01)
    large = np.geomspace(1e-6, 1e-4, 40) > np.linalg.norm(a) / 500
    assert large.sum() > 30 and np.all((np.diag(inner)[large] > 0.65) & (np.diag(inner)[large] < 1.25))


def test_zero_stays_zero(session):
    assert not session.run(orthogonalized(tf.zeros([40, 50]))).any()


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("weight_decay", [0.0, 5.0])
def test_steps(session, kind, weight_decay):
    """Take three steps on linear losses with given gradients. The kernel `flat` has more columns than rows."""
    shapes = {"tall": [3, 3, 32, 32], "flat": [1, 1, 32, 64], "narrow": [3, 3, 3, 32], "matrix": [64, 64], "bias": [32]}
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    variables = {name: tf.get_variable(name, initializer=np.float32(value)) for name, value in values.items()}
    given = {name: tf.placeholder(tf.float32, shape) for name, shape in shapes.items()}
    rate, settings = tf.placeholder(tf.float32, []), {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}

    def loss(scale):
        return scale[0] * tf.add_n([tf.reduce_sum(variables[name] * given[name]) for name in shapes])

    optimizer = tflib.Optimizer(rate, **settings, kind=kind, weight_decay=weight_decay)
    _, update, _ = optimizer.minimize(loss, [tf.ones([1])], ["/cpu:0"])
    session.run(tf.global_variables_initializer())
    expected = reference.Optimizer(kind, **settings, weight_decay=weight_decay)
    for lr in (0.01, 0.02, 0.005):
        gradients = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        session.run(update, {rate: lr} | {given[name]: gradients[name] for name in shapes})
        values = expected.updated(values, gradients, lr)
    for name, value in session.run(variables).items():
        np.testing.assert_allclose(value, values[name], rtol=0, atol=2e-5, err_msg=name)
