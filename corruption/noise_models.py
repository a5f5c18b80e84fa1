"""Corruptions of photographs: each a small class with a form for training and one for validation.

Images are float [3, H, W] in [-0.5, 0.5]. Corrupted ones are neither clipped nor quantised: clipping would bias their
mean, and the mean is what squared error makes a network learn from corrupted targets. A corruption that spares the
median or the mode instead brings the loss that finds it (Lehtinen et al. 2018, sections 2 and 3). `Camera` is the
exception: it clips and quantises as cameras do, and docs/corruptions.md says by how much that moves the mean.

Training draws the strength anew for every image; validation uses one strength.
"""

import numpy as np

import dnnlib
from imaging.images import to_float, to_uint8

from . import camera
from .poisson import poisson_counts

# What a network learns from corrupted targets is the point that minimises the mean loss to all of them. Each loss is a
# function of the error and of the part of the run that is over, in 0..1, elementwise.
LOSSES = {
    "l2": lambda error, progress: error * error,  # The mean.
    "l1": lambda error, progress: abs(error),  # The median.
    # The mode: (|error| + 1e-8)^gamma counts, as gamma falls from 2 to 0, the targets that are not met exactly.
    "annealed": lambda error, progress: (abs(error) + 1e-8) ** (2 * (1 - progress)),
}

_ALL = np.ones([1, 1, 1], np.float32)  # The weight of pixels that count alike.

_VALID = {  # name of a strength: (whether a value makes sense, the same in words). Other strengths are 0 or more.
    "lambda": (lambda value: 0 < value < np.inf, "a number above 0"),
    "p": (lambda value: 0 <= value < 1, "a probability from 0 to below 1"),
    "log_shot": (lambda value: -8 <= value <= 0, "a number from -8 to 0"),
}
_NOT_NEGATIVE = (lambda value: 0 <= value < np.inf, "a number from 0 up")


class Corruption:
    """What the corruptions have in common: strengths drawn uniformly in training, fixed in validation."""

    loss = "l2"  # The name of the loss that suits it.

    def __init__(self, **strengths):
        """strengths: {name: ((lowest, highest) in training, the one in validation)}.

        UserError that names the setting, if a strength makes no sense.
        """
        self.train = {name: train for name, (train, _) in strengths.items()}
        self.validation = {name: validation for name, (_, validation) in strengths.items()}
        for name, (train, validation) in strengths.items():
            if np.shape(train) != (2,) or not train[0] <= train[1]:
                raise _bad_strength("train", name, train, "a pair (lowest, highest)")
            is_valid, words = _VALID.get(name, _NOT_NEGATIVE)
            if not all(map(is_valid, train)):
                raise _bad_strength("train", name, train, f"a pair of which each is {words}")
            if not is_valid(validation):
                raise _bad_strength("validation", name, validation, words)

    def for_training(self, x, seed):
        """Tensor [3, H, W], of 256 levels, and a seed [2] -> (its corruption at a random strength, weights of pixels).

        The weights, [1, H, W] or [1, 1, 1], are 0 for pixels that say nothing of the image and that are known to the
        corruption: where it is a target, the loss is to leave them out. All others are 1. The variates are NumPy's,
        which cost a third of TensorFlow's or less.
        """
        from dnnlib.tflib import tf

        def call(x, seed):
            rng = np.random.default_rng(seed)
            return self.sample(x, rng, *(rng.uniform(low, high) for low, high in self.train.values()))

        y, weight = tf.numpy_function(call, [x, seed], [tf.float32, tf.float32], stateful=False)
        return tf.ensure_shape(y, x.shape), tf.ensure_shape(weight, [1, None, None])

    def pair_for_training(self, shots, seeds):
        """Corrupt a crop twice for training, independently, strengths included.

        shots: tensors [3, H, W] of 256 levels, one crop or two shots of a scene; seeds: tensor [2, 2], a seed for the
        input and one for the target. Returns (input, target, weights of the target's pixels, clean crop).
        """
        noisy, _ = self.for_training(shots[0], seeds[0])
        return (noisy, *self.for_training(shots[-1], seeds[1]), shots[0])

    def reference(self, x):
        """Array [3, H, W] -> the clean image that its corruptions of `for_validation` are compared with."""
        return x

    def for_validation(self, x, rng):
        """Array [3, H, W] and a NumPy generator -> its corruption at the validation strength."""
        return self.corrupt(x, rng, *self.validation.values())

    def corrupt(self, x, rng, *strengths):
        """Array [3, H, W] and a NumPy generator -> its corruption at the given strengths, in the order of `train`."""
        raise NotImplementedError

    def sample(self, x, rng, *strengths):
        """What training takes for `corrupt`: the same in float32, and the weights of its pixels."""
        return self.corrupt(x, rng, *strengths), _ALL


class Gaussian(Corruption):
    """Additive white Gaussian noise: y = x + n, n ~ N(0, sigma^2), sigma given on the scale of 0..255."""

    def __init__(self, train_sigma, validation_sigma):
        super().__init__(sigma=(train_sigma, validation_sigma))

    def corrupt(self, x, rng, sigma):
        return x + rng.standard_normal(x.shape) * (sigma / 255)

    def sample(self, x, rng, sigma):
        return x + rng.standard_normal(x.shape, dtype=np.float32) * np.float32(sigma / 255), _ALL


class Poisson(Corruption):
    """Shot noise: y = Poisson(lambda (x + 0.5)) / lambda - 0.5, lambda the mean count of photons in white."""

    def __init__(self, train_lambda, validation_lambda):
        super().__init__(**{"lambda": (train_lambda, validation_lambda)})

    def corrupt(self, x, rng, lam):
        return rng.poisson(lam * (x + 0.5)) / lam - 0.5

    def sample(self, x, rng, lam):
        return poisson_counts(to_uint8(x), lam, rng) * np.float32(1 / lam) - np.float32(0.5), _ALL


class PoissonGaussian(Corruption):
    """Camera noise: y = Poisson(lambda (x + 0.5)) / lambda - 0.5 + n, n ~ N(0, sigma^2).

    lambda: mean count of photons in white, that is, 1 / lambda the gain from photons to the image; sigma: the standard
    deviation of the noise of reading out, on the scale of 0..255.
    """

    def __init__(self, train_lambda, validation_lambda, train_sigma, validation_sigma):
        super().__init__(**{"lambda": (train_lambda, validation_lambda)}, sigma=(train_sigma, validation_sigma))
        self._shot = Poisson(train_lambda, validation_lambda)
        self._read = Gaussian(train_sigma, validation_sigma)

    def corrupt(self, x, rng, lam, sigma):
        return self._read.corrupt(self._shot.corrupt(x, rng, lam), rng, sigma)

    def sample(self, x, rng, lam, sigma):
        return self._read.sample(self._shot.sample(x, rng, lam)[0], rng, sigma)


class Bernoulli(Corruption):
    """Missing pixels: y = m (x + 0.5) - 0.5, m of a pixel (all channels) 0 with probability p, else 1.

    A missing pixel is black, as image files have it: zero on the scale of 0..255. (Zero within the network, mid-grey,
    could not be written to a file of bytes.) A pixel that is black may as well be there, so m cannot be told from y:
    training gets it as the weight of the squared error, m (f - y)^2, lest missing pixels darken what is learnt.
    """

    def __init__(self, train_p, validation_p):
        super().__init__(p=(train_p, validation_p))

    def corrupt(self, x, rng, p):
        return self.sample(x, rng, p)[0]

    def sample(self, x, rng, p):
        there = rng.random([1, *x.shape[1:]], dtype=np.float32) >= p
        return np.where(there, x, np.float32(-0.5)), there.astype(np.float32)


class Impulse(Corruption):
    """Random-valued impulses: y = c with probability p for each pixel, else x; c a colour uniform in [-0.5, 0.5]^3.

    Neither mean nor median of many such targets is x, but their mode is: the annealed loss.
    """

    loss = "annealed"

    def __init__(self, train_p, validation_p):
        super().__init__(p=(train_p, validation_p))

    def corrupt(self, x, rng, p):
        hit = rng.random([1, *x.shape[1:]], dtype=np.float32) < p
        return np.where(hit, rng.random(x.shape, dtype=np.float32) - 0.5, x)


class Text(Corruption):
    """Random text over the image until about the part p of the pixels is covered; see `text_overlay`.

    With p below 0.5 the median of many such targets is x: absolute error.
    """

    loss = "l1"

    def __init__(self, train_p, validation_p, font_size, font_dir):
        """font_size: (smallest, largest) in pixels; font_dir: folder of .ttf and .otf files, None for Pillow's font."""
        from .text_overlay import TextOverlay

        super().__init__(p=(train_p, validation_p))
        self._overlay = TextOverlay(font_size, font_dir)

    def corrupt(self, x, rng, p):
        return self._overlay.write(x, p, rng)


class Camera(Corruption):
    """Photographs as a digital camera takes them: y = P(m + n), n ~ N(0, shot m + read); see `camera`.

    m is what the sensor would measure without noise, P is the camera's processing up to the JPEG file, and log_shot is
    log10 of shot. In training every crop is taken by another random camera. The input and the target are two shots that
    differ in noise alone, and the clean image is P(m) without JPEG. Validation uses one camera, `camera.Camera()`.
    """

    def __init__(self, train_log_shot, validation_log_shot, **ranges):
        """ranges: (lowest, highest) of the settings of random cameras, see `camera.draw`."""
        super().__init__(log_shot=(train_log_shot, validation_log_shot))
        for name, value in ranges.items():
            low, high = camera.LIMITS[name]
            if np.shape(value) != (2,) or not low <= value[0] <= value[1] <= high:
                words = f"a pair (lowest, highest) of numbers from {low} to {high}"
                raise dnnlib.UserError(f"NOISE in config.py: {name} = {value} is not {words}")
        self._ranges = ranges

    def corrupt(self, x, rng, log_shot):
        return to_float(camera.render(camera.Camera(), to_uint8(x), log_shot, [rng])[1])

    def reference(self, x):
        return to_float(camera.render(camera.Camera(), to_uint8(x), 0, [])[0])

    def sample(self, x, rng, log_shot):
        _, shot = camera.render(camera.draw(rng, **self._ranges), to_uint8(x), log_shot, [rng])
        return to_float(shot), _ALL

    def pair_for_training(self, shots, seeds):
        from dnnlib.tflib import tf

        def call(x, seeds):
            rngs = [np.random.default_rng(seed) for seed in seeds]
            log_shot = rngs[0].uniform(*self.train["log_shot"])
            taken = camera.render(camera.draw(rngs[0], **self._ranges), to_uint8(x), log_shot, rngs)
            return [to_float(image) for image in taken]

        taken = tf.numpy_function(call, [shots[0], seeds], [tf.float32] * 3, stateful=False)
        clean, noisy, target = (tf.ensure_shape(image, shots[0].shape) for image in taken)
        return noisy, target, tf.constant(_ALL), clean


class Recorded(Corruption):
    """Nothing is added: images come with noise of their own, and training with two shots of each scene."""

    def corrupt(self, x, rng):
        return x


def _bad_strength(phase, name, value, words):
    return dnnlib.UserError(f"NOISE in config.py: {phase}_{name} = {value} is not {words}")


CORRUPTIONS = {
    "gaussian": Gaussian,
    "poisson": Poisson,
    "poisson-gaussian": PoissonGaussian,
    "bernoulli": Bernoulli,
    "text": Text,
    "impulse": Impulse,
    "camera": Camera,
    "none": Recorded,
}


def create(name, **settings):
    """The corruption `name` with its settings. UserError for an unknown name."""
    if name not in CORRUPTIONS:
        raise dnnlib.UserError(f"noise '{name}' is not known; there are {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name](**settings)


def loss_function(name):
    """The loss `name` as a function of error and progress, see LOSSES. UserError for an unknown name."""
    if name not in LOSSES:
        raise dnnlib.UserError(f"loss '{name}' is not known; there are {', '.join(LOSSES)}")
    return LOSSES[name]


def generator(seed, name):
    """NumPy generator for the validation image `name`: its noise depends on nothing but the two."""
    return np.random.default_rng([seed, *name.encode(errors="surrogateescape")])
