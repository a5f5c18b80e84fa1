"""Training data: minibatches of corrupted crops, each a pure function of (records, settings, seed, iteration).

Element j of iteration i is element n = i * minibatch_size + j of an endless sequence. Its record is the one at place
n % R of a permutation of the R records that the seed and the epoch n // R give; its crop and its noise come from a
generator seeded by (seed, n). Any minibatch can thus be made without those before it, in any number of threads.
"""

import contextlib
import functools

import numpy as np
from PIL import Image

import dnnlib
from dnnlib.tflib import tf
from tfrecords import ImageRecords

# What a generator is for. It comes first because NumPy seeds (a, b) and (a, b, 0) alike.
_ORDER, _ELEMENT = 1, 2


class TrainingData:
    """Crops of the images of a TFRecords file."""

    def __init__(self, tfrecords, crop_size, seed):
        """tfrecords: path; crop_size: side of the square crops, a multiple of 32 for the network's sake.

        UserError if the file, or a record by its structure, is not what it should be.
        """
        self.records = ImageRecords(tfrecords)
        self.records.check()
        self.crop_size, self.seed = crop_size, seed
        self.error = None  # What `element` raised: TensorFlow passes on only its text.
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)  # This epoch's and the next one's.

    def element(self, n):
        """Element n of the sequence: (clean crop uint8 [3, size, size], noise seeds int64 [2, 2])."""
        epoch, place = divmod(int(n), len(self.records))
        rng = np.random.default_rng([_ELEMENT, self.seed, int(n)])
        try:
            crop = self._crop(self._permutation(epoch)[place], rng)
        except dnnlib.UserError as error:
            self.error = error
            raise
        return crop, rng.integers(np.iinfo(np.int64).max, size=[2, 2])

    @contextlib.contextmanager
    def errors_named(self):
        """Within this block a TensorFlow error caused by a bad record is the UserError that names the record."""
        try:
            yield
        except tf.errors.OpError:
            if self.error is None:
                raise
            raise self.error from None

    def _draw_permutation(self, epoch):
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.records))

    def _crop(self, record, rng):
        """A random square of the image, of side `crop_size`, or of the image's shorter side and then enlarged.

        Enlarging is bicubic on bytes, which keeps it in range: an overshoot below black has no Poisson noise.
        """
        _, height, width = self.records.shape(record)
        side = min(self.crop_size, height, width)
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = self.records.crop(record, y, x, side, side)
        if side < self.crop_size:
            image = Image.fromarray(crop.transpose(1, 2, 0)).resize([self.crop_size] * 2, Image.Resampling.BICUBIC)
            crop = np.asarray(image).transpose(2, 0, 1)
        return crop


def minibatches(data, corruption, noise2noise, minibatch_size, start, stop):
    """tf.data.Dataset of the minibatches of iterations start..stop-1, prepared in parallel ahead of their use.

    Each is (input, target, weight, clean), float32 [minibatch_size, 3, size, size] in [-0.5, 0.5] but for the noise.
    The target is another draw of the whole corruption, or the clean crop where `noise2noise` is false. Its weight in
    the loss, 0 or 1, is [minibatch_size, 1, size, size], or [minibatch_size, 1, 1, 1] where all pixels count.
    """
    size = data.crop_size

    def load(n):
        crop, seeds = tf.numpy_function(data.element, [n], [tf.uint8, tf.int64], stateful=False)
        crop, seeds = tf.ensure_shape(crop, [3, size, size]), tf.ensure_shape(seeds, [2, 2])
        clean = tf.cast(crop, tf.float32) / 255 - 0.5
        noisy, _ = corruption.for_training(clean, seeds[0])
        target = corruption.for_training(clean, seeds[1]) if noise2noise else (clean, tf.ones([1, 1, 1]))
        return noisy, *target, clean

    elements = tf.data.Dataset.range(start * minibatch_size, stop * minibatch_size)
    elements = elements.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return elements.batch(minibatch_size, drop_remainder=True).prefetch(2)
