"""Corruptions of photographs: each a small class with a TensorFlow form for training and a NumPy form for validation.

Images are float [3, H, W] in [-0.5, 0.5]. Corrupted ones are neither clipped nor quantised: clipping would bias their
mean, and the mean is what a network trained on corrupted targets learns.

Training draws the strength anew for every image; validation uses one strength.
"""

import numpy as np

import dnnlib
from images import to_uint8


class Gaussian:
    """Additive white Gaussian noise: y = x + n, n ~ N(0, sigma^2), sigma given on the scale of 0..255."""

    def __init__(self, train_sigma, validation_sigma):
        """train_sigma: (lowest, highest), drawn uniformly; validation_sigma: one value."""
        self.train_sigma, self.validation_sigma = train_sigma, validation_sigma

    def for_training(self, x, seed):
        """Tensor [3, H, W] and a seed [2] -> its corruption at a random strength."""

        def corrupt(x, rng):
            sigma = np.float32(rng.uniform(*self.train_sigma) / 255)
            return x + rng.standard_normal(x.shape, dtype=np.float32) * sigma

        return _in_numpy(corrupt, x, seed)

    def for_validation(self, x, rng):
        """Array [3, H, W] and a NumPy generator -> its corruption at the validation strength."""
        return x + rng.standard_normal(x.shape) * (self.validation_sigma / 255)


class Poisson:
    """Shot noise: y = Poisson(lambda (x + 0.5)) / lambda - 0.5, lambda the mean count of photons in white."""

    def __init__(self, train_lambda, validation_lambda):
        """train_lambda: (lowest, highest), drawn uniformly; validation_lambda: one value."""
        self.train_lambda, self.validation_lambda = train_lambda, validation_lambda

    def for_training(self, x, seed):
        """Tensor [3, H, W], of 256 levels, and a seed [2] -> its corruption at a random strength."""

        def corrupt(x, rng):
            lam = rng.uniform(*self.train_lambda)
            return poisson_counts(to_uint8(x), lam, rng) * np.float32(1 / lam) - np.float32(0.5)

        return _in_numpy(corrupt, x, seed)

    def for_validation(self, x, rng):
        """Array [3, H, W] and a NumPy generator -> its corruption at the validation strength."""
        return rng.poisson(self.validation_lambda * (x + 0.5)) / self.validation_lambda - 0.5


def poisson_counts(levels, white, rng):
    """Photon counts: uint8 levels of any shape -> float32 Poisson variates of mean white * level / 255.

    Of the few means there are, tables of the distribution function are inverted, with a guide table to begin the search
    (Chen and Asau 1974): six times as fast as variates for means in general. Exact but for uniform variates of 24 bits.
    """
    levels, shape = levels.ravel(), levels.shape
    occurs = np.bincount(levels, minlength=256) > 0
    rows, rank = np.count_nonzero(occurs), np.cumsum(occurs) - 1
    mean = white / 255 * np.flatnonzero(occurs)[:, None]
    counts = int(white + 8 * np.sqrt(white)) + 12  # P[n > counts] < 1e-13.
    ratios = np.concatenate([np.exp(-mean), mean / np.arange(1, counts)], axis=1)
    below = np.cumsum(np.cumprod(ratios, axis=1), axis=1).astype(np.float32)  # P[n <= count]
    below[:, -1] = 1.5  # Ends every search.
    cells = 64 if levels.size > 1 << 16 else 16
    cell = np.arange(rows)[:, None] * (cells + 1) + np.ceil(np.minimum(below, 1) * cells).astype(np.int64)
    guide = np.cumsum(np.bincount(cell.ravel(), minlength=rows * (cells + 1)).reshape(rows, -1), axis=1)
    guide = (guide + np.arange(rows)[:, None] * counts).astype(np.int32).ravel()  # Where to begin, in `table`.

    # The mode of `take` that does not check its index, which would cost more than all the rest.
    uniform, table = rng.random(levels.size, dtype=np.float32), below.ravel()
    rank = rank.astype(np.int32)
    found = guide[np.take(rank * (cells + 1), levels, mode="clip") + (uniform * cells).astype(np.int32)]
    search = np.flatnonzero(uniform >= table[found])
    while search.size:
        found[search] += 1
        search = search[uniform[search] >= table[found[search]]]
    return (found - np.take(rank * counts, levels, mode="clip")).astype(np.float32).reshape(shape)


def _in_numpy(corrupt, x, seed):
    """The tensor `corrupt`(array of `x`, NumPy generator): NumPy's variates cost a third of TensorFlow's or less."""
    from dnnlib.tflib import tf

    def call(x, seed):
        return corrupt(x, np.random.default_rng(seed))

    return tf.ensure_shape(tf.numpy_function(call, [x, seed], tf.float32, stateful=False), x.shape)


CORRUPTIONS = {"gaussian": Gaussian, "poisson": Poisson}


def create(name, **settings):
    """The corruption `name` with its settings. UserError for an unknown name."""
    if name not in CORRUPTIONS:
        raise dnnlib.UserError(f"noise '{name}' is not known; there are {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name](**settings)


def generator(seed, name):
    """NumPy generator for the validation image `name`: its noise depends on nothing but the two."""
    return np.random.default_rng([seed, *name.encode()])
