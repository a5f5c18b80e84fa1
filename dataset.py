"""Training data: minibatches of corrupted crops, each a pure function of (records, settings, seed, iteration).

Element j of iteration i is element n = i * minibatch_size + j of an endless sequence. Seed and epoch n // S determine a
permutation of the S scenes, and element n shows the scene at position n % S of it; in a file of single images a scene
is one record. A generator seeded with (seed, n) draws the shots, the crop and the noise. So any minibatch can be made
without those before it, in any number of threads.
"""

import contextlib
import functools

import numpy as np
from PIL import Image

import dnnlib
from dnnlib import tflib
from dnnlib.tflib import tf
from imaging import images
from imaging.scale import EIGHT_BITS
from records.tfrecords import ImageRecords

# First number of the seeds of generators, one per purpose: NumPy seeds (a, b) and (a, b, 0) alike.
_ORDER, _ELEMENT = 1, 2


class TrainingData:
    """Random crops of the images of a TFRecords file, or of two noisy shots of a scene."""

    def __init__(self, tfrecords, crop_size, seed, pairs=False, turned=False, channels=3):
        """Open a TFRecords file and check the structure of every record.

        Args:
            tfrecords: Path of the file.
            crop_size: Side of the square crops in pixels; the network needs a multiple of 32.
            seed: Seed of order, crops and noise.
            pairs: Whether an element is two shots of a scene; otherwise it is one image.
            turned: Whether to augment crops by random quarter turns and reflections.
            channels: 3, or 1 for greyscale; colour becomes grey.

        Raises:
            UserError: The file is damaged, holds images instead of shots or shots instead of images, or lacks colour.
        """
        self.records = ImageRecords(tfrecords)
        self.records.check()
        self.crop_size, self.seed, self.shots, self.turned = crop_size, seed, 2 if pairs else 1, turned
        self.channels, self.scale = channels, self.records.scale()
        if self.records.shape(0)[0] < channels:
            raise dnnlib.UserError(f"{tfrecords}: holds greyscale images; train on them with --channels 1")
        self.scenes = self.records.scenes()
        holds_shots = self.scenes[0, 1] > 1
        if pairs and not holds_shots:
            raise dnnlib.UserError(
                f"{tfrecords}: holds single images, and --noise none needs two noisy shots of each scene; "
                "make it with dataset_tool_tf.py --pairs or --bursts"
            )
        if holds_shots and not pairs:
            raise dnnlib.UserError(f"{tfrecords}: holds noisy shots of scenes; train on them with --noise none")
        self.error = None  # Exception of `element`, of which TensorFlow passes on only the text.
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)  # This epoch and the next.

    def element(self, n):
        """Return element n of the sequence: (crops [shots, C, size, size], noise seeds int64 [2, 2]).

        The crops are one crop of an image, or the same crop of two different shots in random order.
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
        """Describe the data, for the log."""
        count, samples = len(self.records), "" if self.scale == EIGHT_BITS else f", {self.scale},"
        what = f"{count} noisy shots of {len(self.scenes)} scenes" if self.shots > 1 else f"{count} images"
        return what + samples

    def checksum(self):
        """Return a checksum of the records, from their stored checksums; it is the same for copies of the file."""
        return tflib.checksum(*self.records.structure(), self.scenes)

    @contextlib.contextmanager
    def errors_named(self):
        """Replace a TensorFlow error that a bad record causes in the block by the UserError that names the record."""
        try:
            yield
        except tf.errors.OpError:
            if self.error is None:
                raise
            raise self.error from None

    def _draw_permutation(self, epoch):
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.scenes))

    def _crop(self, records, rng):
        """Return the same random crop of images of one size, samples [n, C, size, size]; small images are enlarged."""
        _, height, width = self.records.shape(records[0])
        side = min(self.crop_size, height, width)
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crops = np.stack([self.records.crop(record, y, x, side, side) for record in records])
        if len(crops[0]) > self.channels:
            crops = np.stack([images.to_grey(crop) for crop in crops])
        if side < self.crop_size:
            crops = np.stack([_enlarge(crop, self.crop_size) for crop in crops])
        return crops


def turn(x, k):
    """Return squares [..., size, size] after k % 4 quarter turns, mirrored if k >= 4; k is 0 to 7."""
    x = np.rot90(x, k % 4, axes=(-2, -1))
    return np.ascontiguousarray(x[..., ::-1] if k >= 4 else x)


def _enlarge(crop, size):
    """Enlarge samples [C, side, side] bicubically, with overshoot clipped: Poisson noise is undefined below black."""
    if crop.dtype == np.uint8:
        image = images.to_pillow(crop).resize([size, size], Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1)
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in crop)
    large = np.stack([np.asarray(plane.resize([size, size], Image.Resampling.BICUBIC)) for plane in planes])
    large = large.clip(crop.min(), crop.max())
    return (large if crop.dtype.kind == "f" else np.rint(large)).astype(crop.dtype)


def minibatches(data, corruption, noise2noise, minibatch_size, start, stop, shard=(0, 1)):
    """Return a tf.data.Dataset of the minibatches of iterations start..stop-1, prepared in parallel ahead of use.

    Args:
        data: TrainingData.
        corruption: Noise model.
        noise2noise: Whether targets are noisy; otherwise they are clean.
        minibatch_size: Elements per minibatch over all workers.
        start, stop: First iteration, and the one after the last.
        shard: (w, W): the shard of worker w of W, with n = minibatch_size / W elements.

    Returns:
        Dataset of (input, target, weight, clean): float32 [n, C, size, size], in [-0.5, 0.5] before noise is added. The
        weight of the target pixels is 0 or 1, [n, 1, size, size], or [n, 1, 1, 1] if all pixels count. Noisy shots give
        (input, target, weight) without a clean image.
    """
    shape = [data.shots, data.channels, data.crop_size, data.crop_size]

    def load(n):
        crops, seeds = tf.numpy_function(data.element, [n], [data.scale.dtype, tf.int64], stateful=False)
        crops, seeds = tf.ensure_shape(crops, shape), tf.ensure_shape(seeds, [2, 2])
        shots = tf.unstack((tf.cast(crops, tf.float32) - data.scale.black) / data.scale.peak - 0.5)
        noisy, target, weight, clean = corruption.pair_for_training(shots, seeds)
        if not noise2noise:
            target, weight = clean, tf.ones([1, 1, 1])
        return (noisy, target, weight) if data.shots == 2 else (noisy, target, weight, clean)

    numbers = tflib.shard_numbers(minibatch_size, start, stop, shard)
    elements = numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return elements.batch(minibatch_size // shard[1], drop_remainder=True).prefetch(2)
