"""MRI data: slices with their spectra from the pickles of dataset_tool_mri.py, and training elements made from them.

An element is a pure function of data, settings, seed, epoch and position. Elements can therefore be made in any order
and in parallel, and a resumed run makes the same ones.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import dnnlib
from dnnlib import safe_pickle
from imaging.images import to_float
from mri import kspace

SIZE = 255  # Slices are 256x256. With an odd size, every frequency has its point reflection (see kspace.py).

# The purpose of a random generator, the first number of its seed: NumPy treats the seeds (a, b) and (a, b, 0) alike.
_ORDER, _TRAINING, _VALIDATION = 1, 2, 3


@dataclass(frozen=True)
class MriData:
    """Slices in memory: `images` uint8 [n, 256, 256], `spectra` complex64 [n, 255, 255] from `kspace.fft2c`."""

    images: np.ndarray
    spectra: np.ndarray

    def __len__(self):
        return len(self.images)

    def checksum(self):
        """Return a checksum of the images, from which the spectra are made."""
        from dnnlib import tflib

        return tflib.checksum(self.images)

    def image(self, index):
        """Return slice `index` without its last row and column: float32 [255, 255] in [-0.5, 0.5]."""
        return to_float(self.images[index, :SIZE, :SIZE])


class Undersampling:
    """Random undersampling of k-space ("bspec"): x' = IFFT(k / m * FFT(x)), k(f) is 0 or 1, P[k(f) = 1] = m(f).

    At distance r from the zero frequency, m is p_at_edge^(r / (size // 2)). The mask k is symmetric, so x' is real. The
    expectation of x' is x. Images x are in [-0.5, 0.5]; x' exceeds this range and is not clipped.
    """

    def __init__(self, p_at_edge=0.025, size=SIZE):
        if not 0 < p_at_edge <= 1:
            raise dnnlib.UserError(f"Bernoulli probability at edge {p_at_edge}: must be above 0 and at most 1")
        self.p_at_edge = p_at_edge
        self.probability = kspace.keep_probability(size, p_at_edge)

    def __call__(self, spectrum, rng):
        """Undersample a centred spectrum, complex64 [N, N].

        Returns:
            (image float32 [N, N], mask of the kept frequencies bool [N, N])
        """
        mask = kspace.draw_mask(self.probability, rng)
        return kspace.undersample(spectrum, mask, self.probability), mask


@dataclass(frozen=True)
class Settings:
    """How elements are made from slices."""

    undersampling: Undersampling
    corrupt_targets: bool = True  # False: the target is the clean image.
    augment_translation: int = 64  # Maximum cyclic shift in pixels along both axes; training only.


class Element(NamedTuple):
    """Input of the network, its target, and what the losses need."""

    input: np.ndarray  # float32 [255, 255], undersampled.
    target: np.ndarray  # float32 [255, 255]: undersampled independently of the input, or clean.
    mask: np.ndarray  # bool [255, 255]: the frequencies kept in `input`; zero frequency in the centre.
    known: np.ndarray  # complex64 [255, 255]: the clean spectrum where `mask` is set, zero elsewhere.
    weight: np.ndarray  # float32 [255, 255]: target spectrum / clean spectrum. 0 or 1/m; 1 if clean.


_DTYPES = "float32", "float32", "bool", "complex64", "float32"  # Types of the fields of an Element.


def load(path):
    """Read a pickle of (images uint8 [n, 256, 256], spectra complex64 [n, 255, 255]) as MriData.

    Code in the file is not run. Raises UserError if the file holds something else.
    """
    print(f"Loading dataset from {path}", flush=True)
    content = safe_pickle.load(path)
    if not (isinstance(content, (tuple, list)) and [type(x) for x in content] == [np.ndarray] * 2):
        raise dnnlib.UserError(f"{path}: not a pair of images and spectra; make it with dataset_tool_mri.py genpkl")
    for what, array, dtype, size in (
        ("images", content[0], "uint8", SIZE + 1),
        ("spectra", content[1], "complex64", SIZE),
    ):
        if array.dtype != dtype or array.ndim != 3 or array.shape[1:] != (size, size):
            found = f"{array.dtype} {list(array.shape)}"
            raise dnnlib.UserError(f"{path}: {what} are {found}, not {dtype} [n, {size}, {size}]")
    data = MriData(*content)
    if len(data.images) != len(data.spectra) or len(data) == 0:
        raise dnnlib.UserError(f"{path}: holds {len(data.images)} images and {len(data.spectra)} spectra")
    spectrum = kspace.fft2c(data.image(0))
    if not np.allclose(data.spectra[0], spectrum, rtol=0, atol=1e-4 * np.abs(spectrum).max()):
        raise dnnlib.UserError(f"{path}: spectra are not those of the images; make it with dataset_tool_mri.py genpkl")
    return data


def training_element(data, settings, seed, epoch, position):
    """Return element `position` of an epoch, which takes the slices in random order, and again after the last one."""
    index = _order(len(data), seed, epoch)[position % len(data)]
    rng = np.random.default_rng((_TRAINING, seed, epoch, position))
    image, spectrum = data.image(index), data.spectra[index]
    limit = settings.augment_translation
    if limit > 0:
        dy, dx = rng.integers(-limit, limit, size=2, endpoint=True)
        image, spectrum = kspace.translate(image, spectrum, dy, dx)
    corrupted, mask = settings.undersampling(spectrum, rng)
    if not settings.corrupt_targets:
        return Element(corrupted, image, mask, spectrum * mask, np.ones_like(image))
    target, target_mask = settings.undersampling(spectrum, rng)
    return Element(corrupted, target, mask, spectrum * mask, target_mask / settings.undersampling.probability)


def validation_element(data, settings, seed, index):
    """Return the element of slice `index`: not translated, the same mask in every evaluation, the target clean."""
    rng = np.random.default_rng((_VALIDATION, seed, index))
    spectrum = data.spectra[index]
    corrupted, mask = settings.undersampling(spectrum, rng)
    image = data.image(index)
    return Element(corrupted, image, mask, spectrum * mask, np.ones_like(image))


@functools.lru_cache(maxsize=4)  # Elements of consecutive epochs are made at the same time.
def _order(count, seed, epoch):
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count)


def minibatches_per_epoch(num_images, minibatch_size):
    """Return the number of minibatches per epoch, at least 1: fewer images than that are repeated."""
    return max(1, num_images // minibatch_size)


def minibatches(data, settings, seed, minibatch_size, start, stop, part=(0, 1)):
    """Return a tf.data.Dataset of the minibatches `start` to `stop` - 1, counted over the whole run.

    One dataset serves all epochs, so that the first minibatches of an epoch are prepared during the epoch before it.

    Args:
        part: (w, W) for shard w of each minibatch when W workers share it.

    Returns:
        A dataset of Elements whose tensors have minibatch_size / W as their first dimension.
    """
    from dnnlib import tflib
    from dnnlib.tflib import tf

    per_epoch = minibatches_per_epoch(len(data), minibatch_size) * minibatch_size

    def make(number):
        return training_element(data, settings, seed, *map(int, divmod(number, per_epoch)))

    def make_tensors(number):
        tensors = tf.numpy_function(make, [number], Element(*map(tf.as_dtype, _DTYPES)))
        for tensor in tensors:
            tensor.set_shape([SIZE, SIZE])
        return Element(*tensors)

    numbers = tflib.shard_numbers(minibatch_size, start, stop, part)
    elements = numbers.map(make_tensors, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return elements.batch(minibatch_size // part[1], drop_remainder=True).prefetch(2)
