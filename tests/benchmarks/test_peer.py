"""benchmarks/peer.py computes what network.py computes."""

import numpy as np
import pytest

import network
from dnnlib import tflib
from dnnlib.tflib import tf

torch = pytest.importorskip("torch")


def test_same_network():
    from benchmarks import peer

    x = np.random.default_rng(0).uniform(-0.5, 0.5, [2, 3, 64, 32]).astype(np.float32)
    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder()
        session.run(tf.global_variables_initializer())
        expected, values = net.run(x), net.get_values()
    other = peer.UNet(3)
    other.set_values(values)
    with torch.inference_mode():
        np.testing.assert_allclose(other(torch.from_numpy(x)).numpy(), expected, atol=1e-5)
