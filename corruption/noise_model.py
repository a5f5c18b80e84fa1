"""What all noise models have in common: strengths that are settings, and the way into training and validation."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

import dnnlib
from dnnlib.options import finite_number
from dnnlib.settings import Setting, option_of

ALL_PIXELS = np.ones([1, 1, 1], np.float32)  # Weight of pixels that all count alike.

# Checks of a strength: a function of the value, and the values that pass in words.
NOT_NEGATIVE = (lambda value: 0 <= value < np.inf, "a number from 0")
POSITIVE = (lambda value: 0 < value < np.inf, "a number above 0")
PROBABILITY = (lambda value: 0 <= value < 1, "a probability from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class Strength:
    """A strength of a noise model.

    Attributes:
        name: Its name in the model's equation. The option `--train-<name> LOW HIGH` sets the range from which training
            draws it, uniformly for every image; `--<name>` sets the one of validation.
        train: Default range in training.
        validation: Default in validation.
        help: What it is, with its unit, without a full stop.
        check: One of the checks above.
    """

    name: str
    train: tuple
    validation: float
    help: str
    check: tuple[Callable, str] = NOT_NEGATIVE

    def settings(self):
        """The two settings: of training, of validation."""
        return (
            Setting(
                f"train_{self.name}", self.train, f"{self.help}: range in training.", nargs=2,
                metavar=("LOW", "HIGH"), type=finite_number,
            ),
            Setting(
                self.name, self.validation, f"{self.help}, in validation.", metavar=self.name.upper(),
                type=finite_number,
            ),
        )  # fmt: skip


class NoiseModel:
    """Base class of the noise models. Images are float [C, H, W] in [-0.5, 0.5]; corrupted ones may lie beyond.

    A subclass names its strengths and its loss, and says in `corrupt` how an image is corrupted. Where training has a
    faster way, or pixels that must not count, it overrides `sample`, too.
    """

    strengths: tuple[Strength, ...] = ()
    more_settings: tuple[Setting, ...] = ()  # Settings that are no strengths.
    loss = "l2"  # Name in losses.LOSSES of the loss that suits the noise.
    mean_stays = (
        True  # Whether a region of an image keeps its mean colour, up to clipping, so that denoising must, too.
    )

    @classmethod
    def settings(cls):
        """All settings of the model."""
        return [setting for strength in cls.strengths for setting in strength.settings()] + list(cls.more_settings)

    def __init__(self, **settings):
        """Args:
            settings: Values of the model's settings, such as train_sigma=(0, 50), sigma=25; others have their defaults.

        UserError that names the option if a strength makes no sense.
        """
        defaults = {setting.name: setting.default for setting in self.settings()}
        if unknown := settings.keys() - defaults.keys():
            raise dnnlib.UserError(f"{option_of(min(unknown))}: there is no such setting of this noise")
        self.values = defaults | settings
        for strength in self.strengths:
            self._check(strength)

    def _check(self, strength):
        is_valid, words = strength.check
        low_high, value = self.values[f"train_{strength.name}"], self.values[strength.name]
        if np.shape(low_high) != (2,) or not low_high[0] <= low_high[1] or not all(map(is_valid, low_high)):
            shown = " ".join(map(str, np.ravel(low_high)))
            raise dnnlib.UserError(
                f"{option_of('train_' + strength.name)} {shown}: has to be LOW HIGH, each {words}, LOW not above HIGH"
            )
        if not is_valid(value):
            raise dnnlib.UserError(f"{option_of(strength.name)} {value}: is not {words}")

    def check_images(self, channels, dtype):
        """Raise UserError if the model cannot corrupt images with that many channels, of samples of that type."""

    def corrupt(self, x, rng, *strengths):
        """Corrupt an image.

        Args:
            x: Array [C, H, W].
            rng: NumPy generator.
            strengths: Values in the order of `self.strengths`.

        Returns:
            Float array [C, H, W].
        """
        raise NotImplementedError

    def sample(self, x, rng, *strengths):
        """Corrupt an image for training: `corrupt` in float32.

        Returns:
            The corrupted image, and the weights of its pixels in the loss where it is a target, [1, H, W] or [1, 1, 1]:
            0 for pixels that are known to say nothing about the image, else 1.
        """
        return self.corrupt(x, rng, *strengths), ALL_PIXELS

    def training_ranges(self):
        """(lowest, highest) of each strength in training."""
        return [self.values[f"train_{strength.name}"] for strength in self.strengths]

    def draw_strengths(self, rng):
        """Strengths of an image in training."""
        return [rng.uniform(low, high) for low, high in self.training_ranges()]

    def validation_strengths(self):
        """Strengths in validation."""
        return [self.values[strength.name] for strength in self.strengths]

    def for_validation(self, x, seed, name):
        """Corrupt an image at the strength of validation; the noise depends on `seed` and the image's `name` only."""
        return self.corrupt(x, generator(seed, name), *self.validation_strengths())

    def reference(self, x):
        """Array [C, H, W] -> the clean image that its corruptions by `for_validation` are compared with."""
        return x

    def pair_for_training(self, shots, seeds):
        """Corrupt a crop twice, independently, strengths included: an input and a target of training.

        Args:
            shots: Tensors [C, H, W]: one crop, or two shots of a scene.
            seeds: Tensor [2, 2]: a seed for the input and one for the target.

        Returns:
            (input, target, weights of the target's pixels, clean crop).
        """
        noisy, _ = self.for_training(shots[0], seeds[0])
        return (noisy, *self.for_training(shots[-1], seeds[1]), shots[0])

    def for_training(self, x, seed):
        """Tensor [C, H, W] and a seed [2] -> `sample` at random strengths, as tensors.

        The variates are NumPy's, which cost a third of TensorFlow's or less.
        """
        from dnnlib.tflib import tf

        def call(x, seed):
            rng = np.random.default_rng(seed)
            return self.sample(x, rng, *self.draw_strengths(rng))

        y, weight = tf.numpy_function(call, [x, seed], [tf.float32, tf.float32], stateful=False)
        return tf.ensure_shape(y, x.shape), tf.ensure_shape(weight, [1, None, None])


def generator(seed, name):
    """NumPy generator for the validation image `name`: its noise depends on the seed and the name only."""
    return np.random.default_rng([seed, *os.fsencode(name)])
