"""Corruptions of photographs: each a small class with a TensorFlow form for training and a NumPy form for validation.

Images are float [3, H, W] in [-0.5, 0.5]. Corrupted ones are neither clipped nor quantised: clipping would bias their
mean, and the mean is what a network trained on corrupted targets learns.

Training draws the strength anew for every image; validation uses one strength.
"""

import numpy as np

import dnnlib


class Gaussian:
    """Additive white Gaussian noise: y = x + n, n ~ N(0, sigma^2), sigma given on the scale of 0..255."""

    def __init__(self, train_sigma, validation_sigma):
        """train_sigma: (lowest, highest), drawn uniformly; validation_sigma: one value."""
        self.train_sigma, self.validation_sigma = train_sigma, validation_sigma

    def for_training(self, x, seed):
        """Tensor [3, H, W] and a stateless seed [2] -> its corruption at a random strength."""
        from dnnlib.tflib import tf

        strength_seed, noise_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        low, high = self.train_sigma
        sigma = tf.random.stateless_uniform([], strength_seed, low, high) / 255
        return x + tf.random.stateless_normal(tf.shape(x), noise_seed) * sigma

    def for_validation(self, x, rng):
        """Array [3, H, W] and a NumPy generator -> its corruption at the validation strength."""
        return x + rng.standard_normal(x.shape) * (self.validation_sigma / 255)


class Poisson:
    """Shot noise: y = Poisson(lambda (x + 0.5)) / lambda - 0.5, lambda the mean count of photons in white."""

    def __init__(self, train_lambda, validation_lambda):
        """train_lambda: (lowest, highest), drawn uniformly; validation_lambda: one value."""
        self.train_lambda, self.validation_lambda = train_lambda, validation_lambda

    def for_training(self, x, seed):
        """Tensor [3, H, W] and a stateless seed [2] -> its corruption at a random strength."""
        from dnnlib.tflib import tf

        strength_seed, noise_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        low, high = self.train_lambda
        lam = tf.random.stateless_uniform([], strength_seed, low, high)
        counts = tf.random.stateless_poisson(tf.shape(x), noise_seed, lam * (x + 0.5), dtype=tf.float32)
        return counts / lam - 0.5

    def for_validation(self, x, rng):
        """Array [3, H, W] and a NumPy generator -> its corruption at the validation strength."""
        return rng.poisson(self.validation_lambda * (x + 0.5)) / self.validation_lambda - 0.5


CORRUPTIONS = {"gaussian": Gaussian, "poisson": Poisson}


def create(name, **settings):
    """The corruption `name` with its settings. UserError for an unknown name."""
    if name not in CORRUPTIONS:
        raise dnnlib.UserError(f"noise '{name}' is not known; there are {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name](**settings)


def generator(seed, name):
    """NumPy generator for the validation image `name`: its noise depends on nothing but the two."""
    return np.random.default_rng([seed, *name.encode()])
