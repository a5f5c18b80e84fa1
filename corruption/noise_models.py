"""Noise models: how images are corrupted, in training and in validation.

Corrupted images are neither clipped nor quantised, unless the model says so: clipping would bias their mean, and the
mean is what squared error makes a network learn from corrupted targets. A noise model that keeps the median or the mode
instead names the loss that finds it.

To add a noise model, write a subclass of `NoiseModel` with its equation, its strengths and `corrupt`, and list it in
NOISE_MODELS. Its strengths become options of `train` and `validate` by themselves.
"""

import dataclasses

import numpy as np

import dnnlib
from dnnlib.options import path, positive_int
from dnnlib.settings import Setting, option_of
from imaging.images import to_float, to_uint8

from . import camera
from .noise_model import ALL_PIXELS, POSITIVE, PROBABILITY, NoiseModel, Strength
from .poisson import poisson_counts
from .text_overlay import TextOverlay


class GaussianNoise(NoiseModel):
    """Additive white Gaussian noise: y = x + n, n ~ N(0, sigma^2)."""

    strengths = (Strength("sigma", (0.0, 50.0), 25.0, "Standard deviation of Gaussian noise on the scale of 0..255"),)

    def corrupt(self, x, rng, sigma):
        return x + rng.standard_normal(x.shape) * (sigma / 255)

    def sample(self, x, rng, sigma):
        return x + rng.standard_normal(x.shape, dtype=np.float32) * np.float32(sigma / 255), ALL_PIXELS


_ROUNDING = 1e-6  # Images that differ by less from 256 levels have 256 levels; a step of 16 bits is 1.5e-5.
_LAMBDA_HELP = "Mean number of photons in a white pixel of Poisson noise"


class PoissonNoise(NoiseModel):
    """Shot noise: y = Poisson(lambda (x + 0.5)) / lambda - 0.5. Below black, x < -0.5, there are no photons.

    In training, images of 256 levels take a faster way than others.
    """

    strengths = (Strength("lambda", (0.001, 50.0), 30.0, _LAMBDA_HELP, POSITIVE),)

    def corrupt(self, x, rng, lam):
        return rng.poisson(lam * np.maximum(x + 0.5, 0)) / lam - 0.5

    def sample(self, x, rng, lam):
        levels = to_uint8(x)
        if np.abs(to_float(levels) - x).max() > _ROUNDING:
            return self.corrupt(x, rng, lam).astype(np.float32), ALL_PIXELS
        return poisson_counts(levels, lam, rng) * np.float32(1 / lam) - np.float32(0.5), ALL_PIXELS


class PoissonGaussianNoise(NoiseModel):
    """Shot noise and read noise: y = Poisson(lambda (x + 0.5)) / lambda - 0.5 + n, n ~ N(0, sigma^2).

    1 / lambda is the gain from photons to the image.
    """

    strengths = (
        Strength("lambda", (1.0, 100.0), 30.0, _LAMBDA_HELP, POSITIVE),
        Strength("sigma", (0.0, 25.0), 10.0, GaussianNoise.strengths[0].help),
    )
    _shot, _read = PoissonNoise(), GaussianNoise()

    def corrupt(self, x, rng, lam, sigma):
        return self._read.corrupt(self._shot.corrupt(x, rng, lam), rng, sigma)

    def sample(self, x, rng, lam, sigma):
        return self._read.sample(self._shot.sample(x, rng, lam)[0], rng, sigma)


class BernoulliNoise(NoiseModel):
    """Missing pixels: y = m (x + 0.5) - 0.5, m of a pixel (all channels) 0 with probability p, else 1.

    A missing pixel is black, as image files have it. A pixel that is black may as well be there, so that m cannot be
    told from y: training gets it as the weight of the squared error, m (f - y)^2. Without the weight missing pixels
    would darken what is learnt.
    """

    strengths = (Strength("p", (0.0, 0.95), 0.5, "Probability that a pixel is missing", PROBABILITY),)
    mean_stays = False

    def corrupt(self, x, rng, p):
        return self.sample(x, rng, p)[0]

    def sample(self, x, rng, p):
        there = rng.random([1, *x.shape[1:]], dtype=np.float32) >= p
        return np.where(there, x, np.float32(-0.5)), there.astype(np.float32)


class ImpulseNoise(NoiseModel):
    """Random-valued impulses: y = c with probability p for each pixel, else x; c a colour uniform in [-0.5, 0.5]^C.

    Neither the mean nor the median of many such targets is x, but their mode is: the annealed loss.
    """

    strengths = (Strength("p", (0.0, 0.95), 0.7, "Probability that a pixel is replaced", PROBABILITY),)
    mean_stays = False
    loss = "annealed"

    def corrupt(self, x, rng, p):
        hit = rng.random([1, *x.shape[1:]], dtype=np.float32) < p
        return np.where(hit, rng.random(x.shape, dtype=np.float32) - 0.5, x)


class TextNoise(NoiseModel):
    """Random text over the image until about the fraction p of the pixels is covered; see text_overlay.py.

    With p below 0.5 the median of many such targets is x: absolute error.
    """

    strengths = (Strength("p", (0.0, 0.5), 0.25, "Fraction of the pixels under text", PROBABILITY),)
    more_settings = (
        Setting("font_size", (8, 40), "Smallest and largest size of text in pixels.", positive_int, nargs=2,
                metavar=("LOW", "HIGH")),
        Setting("font_dir", None, "Folder of .ttf and .otf files for text; without it, Pillow's own font.",
                path, metavar="DIR"),
    )  # fmt: skip
    mean_stays = False
    loss = "l1"

    def __init__(self, **settings):
        super().__init__(**settings)
        self._overlay = TextOverlay(self.values["font_size"], self.values["font_dir"])

    def corrupt(self, x, rng, p):
        return self._overlay.write(x, p, rng)


class CameraNoise(NoiseModel):
    """Photographs as a digital camera takes them: y = P(m + n), n ~ N(0, shot m + read); see camera.py.

    m is what the sensor would measure without noise, P is the camera's processing up to the JPEG file, and log_shot is
    log10 of shot. In training every crop is taken by another random camera. The input and the target are two shots that
    differ in noise alone, and the clean image is P(m) without JPEG. Validation uses one camera, `camera.Camera()`.
    """

    strengths = (
        Strength(
            "log_shot", (-4.0, -2.0), -3.0, "log10 of the variance of a camera's shot noise where the sensor is full",
            (lambda value: -8 <= value <= 0, "a number from -8 to 0"),
        ),
    )  # fmt: skip

    def check_images(self, channels, dtype):
        if channels != 3:
            raise dnnlib.UserError("--noise camera: simulates cameras in colour; it needs a network of --channels 3")
        if dtype != "uint8":
            raise dnnlib.UserError(f"--noise camera: develops images of 8 bits, but the training data are {dtype}")

    def corrupt(self, x, rng, log_shot):
        return to_float(camera.render(camera.Camera(), to_uint8(x), log_shot, [rng])[1])

    def reference(self, x):
        return to_float(camera.render(camera.Camera(), to_uint8(x), 0, [])[0])

    def sample(self, x, rng, log_shot):
        _, shot = camera.render(camera.draw(rng), to_uint8(x), log_shot, [rng])
        return to_float(shot), ALL_PIXELS

    def take_shots(self, pixels, rngs):
        """Photograph a scene, uint8 [3, H, W], by a random camera: [the image without noise, a shot for each of rngs].

        The first generator also draws the camera and the strength.
        """
        (log_shot,) = self.draw_strengths(rngs[0])
        return camera.render(camera.draw(rngs[0]), pixels, log_shot, rngs)

    def pair_for_training(self, shots, seeds):
        from dnnlib.tflib import tf

        def call(x, seeds):
            rngs = [np.random.default_rng(seed) for seed in seeds]
            return [to_float(image) for image in self.take_shots(to_uint8(x), rngs)]

        taken = tf.numpy_function(call, [shots[0], seeds], [tf.float32] * 3, stateful=False)
        clean, noisy, target = (tf.ensure_shape(image, shots[0].shape) for image in taken)
        return noisy, target, tf.constant(ALL_PIXELS), clean


class RecordedNoise(NoiseModel):
    """Noise that the images have already. Nothing is added; training takes two shots of each scene."""

    def corrupt(self, x, rng):
        return x


NOISE_MODELS = {
    "gaussian": GaussianNoise,
    "poisson": PoissonNoise,
    "poisson-gaussian": PoissonGaussianNoise,
    "bernoulli": BernoulliNoise,
    "text": TextNoise,
    "impulse": ImpulseNoise,
    "camera": CameraNoise,
    "none": RecordedNoise,
}


def create(name, **settings):
    """The noise model `name` with its settings. UserError for an unknown name or a strength that makes no sense."""
    if name not in NOISE_MODELS:
        raise dnnlib.UserError(f"noise '{name}' is not known; there are {', '.join(NOISE_MODELS)}")
    return NOISE_MODELS[name](**settings)


def all_settings():
    """Settings of all noise models, one for each name, whose help tells the defaults. Their default here is None."""
    declared = {}
    for noise, model in NOISE_MODELS.items():
        for setting in model.settings():
            declared.setdefault(setting.name, []).append((noise, setting))
    return [_merged(uses) for uses in declared.values()]


def _merged(uses):
    """One setting for those that several noise models declare under the same name. uses: [(noise, Setting), ...]."""
    texts = list(dict.fromkeys(setting.help for _, setting in uses))
    defaults = "; ".join(f"{noise} {_words(setting.default)}" for noise, setting in uses if setting.default is not None)
    ends = f" Default: {defaults}." if defaults else ""
    return dataclasses.replace(uses[0][1], default=None, help=" ".join(texts) + ends)


def _words(value):
    return " ".join(f"{v:g}" for v in np.ravel(value))


def chosen_settings(noise, given):
    """Settings of a noise model from {name: value} of all that were given. UserError for one of another model's."""
    own = [setting.name for setting in NOISE_MODELS[noise].settings()]
    others = {setting.name for setting in all_settings()} - set(own)
    if wrong := sorted(others & given.keys()):
        has = f"its options are {', '.join(map(option_of, own))}" if own else "it has no strengths"
        raise dnnlib.UserError(f"{option_of(wrong[0])}: does not go with --noise {noise}; {has}")
    return {name: given[name] for name in own if name in given}
