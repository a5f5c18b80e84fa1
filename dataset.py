"""Training data: minibatches of corrupted crops, each a pure function of (records, settings, seed, iteration).

Element j of iteration i is element n = i * minibatch_size + j of an endless sequence. Its scene (a record, in a file of
single images) is the one at place n % S of a permutation of the S scenes that the seed and the epoch n // S give; its
shots, crop and noise come from a generator seeded by (seed, n). Any minibatch can thus be made without those before it,
in any number of threads.
"""

import contextlib
import functools

import numpy as np
from PIL import Image

import dnnlib
from dnnlib import tflib
from dnnlib.sharding import shard_numbers
from dnnlib.tflib import tf
from records.tfrecords import ImageRecords

# What a generator is for. It comes first because NumPy seeds (a, b) and (a, b, 0) alike.
_ORDER, _ELEMENT = 1, 2


class TrainingData:
    """Crops of the images of a TFRecords file, or of noisy shots, two of a scene at a time."""

    def __init__(self, tfrecords, crop_size, seed, pairs=False, turned=False):
        """tfrecords: path; crop_size: side of the square crops, a multiple of 32 for the network's sake.

        pairs: elements are two shots; turned: crops are turned and mirrored at random. UserError if the file holds the
        other kind, or is not what it should be; the structure of every record is checked.
        """
        self.records = ImageRecords(tfrecords)
        self.records.check()
        self.crop_size, self.seed, self.shots, self.turned = crop_size, seed, 2 if pairs else 1, turned
        self.scenes = self.records.scenes()
        holds_shots = self.scenes[0, 1] > 1
        if pairs and not holds_shots:
            raise dnnlib.UserError(
                f"{tfrecords}: holds single images, and --noise none takes two noisy shots of each scene; "
                "make it with dataset_tool_tf.py --pairs or --bursts"
            )
        if holds_shots and not pairs:
            raise dnnlib.UserError(f"{tfrecords}: holds noisy shots of scenes; train on them with --noise none")
        self.error = None  # What `element` raised: TensorFlow passes on only its text.
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)  # This epoch's and the next one's.

    def element(self, n):
        """Element n of the sequence: (crops uint8 [shots, 3, size, size], noise seeds int64 [2, 2]).

        The crops are the same square of one image, or of two different shots in an order that is drawn, treated
        alike.
        """
        epoch, place = divmod(int(n), len(self.scenes))
        rng = np.random.default_rng([_ELEMENT, self.seed, int(n)])
        try:
            first, count = self.scenes[self._permutation(epoch)[place]]
            chosen = rng.choice(count, self.shots, replace=False) if count > 1 else [0]
            crops = self._crop(first + chosen, rng)
            if self.turned:
                crops = turn(crops, rng.integers(8))
        except dnnlib.UserError as error:
            self.error = error
            raise
        return crops, rng.integers(np.iinfo(np.int64).max, size=[2, 2])

    def describe(self):
        """How much there is, for the log."""
        count = len(self.records)
        return f"{count} noisy shots of {len(self.scenes)} scenes" if self.shots > 1 else f"{count} images"

    def checksum(self):
        """A number for the content of the records, by their stored checksums: copies of a file have the same."""
        return tflib.checksum(*self.records.structure(), self.scenes)

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
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.scenes))

    def _crop(self, records, rng):
        """A random square of images of one size, of side `crop_size`, or of their shorter side and then enlarged.

        Enlarging is bicubic on bytes, which keeps it in range: an overshoot below black has no Poisson noise.
        """
        _, height, width = self.records.shape(records[0])
        side = min(self.crop_size, height, width)
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crops = np.stack([self.records.crop(record, y, x, side, side) for record in records])
        if side < self.crop_size:
            crops = np.stack([_enlarge(crop, self.crop_size) for crop in crops])
        return crops


def turn(x, k):
    """Squares [..., size, size] after k % 4 quarter turns, and mirrored where k > 3: the ways to lay a square."""
    x = np.rot90(x, k % 4, axes=(-2, -1))
    return np.ascontiguousarray(x[..., ::-1] if k >= 4 else x)


def _enlarge(crop, size):
    image = Image.fromarray(crop.transpose(1, 2, 0)).resize([size, size], Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def minibatches(data, corruption, noise2noise, minibatch_size, start, stop, part=(0, 1)):
    """tf.data.Dataset of the minibatches of iterations start..stop-1, prepared in parallel ahead of their use.

    part: (w, W) for the part w of each minibatch when W workers share it, its size n = minibatch_size / W.
    Each is (input, target, weight, clean), float32 [n, 3, size, size] in [-0.5, 0.5] but for the noise. The target is
    the other image of `Corruption.pair_for_training`, or the clean one if `noise2noise` is false. Its weight, 0 or
    1, is [n, 1, size, size], or [n, 1, 1, 1] where all pixels count.
    Of noisy shots there is no clean crop: each is (input, target, weight), one shot and another.
    """
    shape = [data.shots, 3, data.crop_size, data.crop_size]

    def load(n):
        crops, seeds = tf.numpy_function(data.element, [n], [tf.uint8, tf.int64], stateful=False)
        crops, seeds = tf.ensure_shape(crops, shape), tf.ensure_shape(seeds, [2, 2])
        shots = tf.unstack(tf.cast(crops, tf.float32) / 255 - 0.5)
        noisy, target, weight, clean = corruption.pair_for_training(shots, seeds)
        if not noise2noise:
            target, weight = clean, tf.ones([1, 1, 1])
        return (noisy, target, weight) if data.shots == 2 else (noisy, target, weight, clean)

    numbers = shard_numbers(minibatch_size, start, stop, part)
    elements = numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return elements.batch(minibatch_size // part[1], drop_remainder=True).prefetch(2)
