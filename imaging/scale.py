"""How stored samples relate to the floats of the network: their type, and the samples that are black and white."""

import dataclasses
import math

import numpy as np

import dnnlib

# {type of samples: (black, white) unless something else is said}
FULL_RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}
_BITS = (12, 14, 16)  # Bits that cameras store in 16.
_AUTO = (0.1, 99.9)  # Percentiles of the samples that are black and white with `--range auto`.
_SELECTED = 1 << 24  # Maximum number of samples of a set from which the percentiles are estimated.


@dataclasses.dataclass(frozen=True)
class Scale:
    """The type of samples, one of FULL_RANGES, and those that are black (-0.5) and white (0.5)."""

    dtype: str = "uint8"
    black: float = 0.0
    white: float = 255.0

    def __post_init__(self):
        """Raise UserError for values that make no sense; they may come from a file."""
        numbers = (self.black, self.white)
        if self.dtype not in (*FULL_RANGES,) or not all(
            isinstance(x, (int, float)) and math.isfinite(x) for x in numbers
        ):
            what = dnnlib.util.printable((self.dtype, *numbers))
            raise dnnlib.UserError(f"samples of type, black and white {what}; known are {', '.join(FULL_RANGES)}")
        if not self.black < self.white:
            raise dnnlib.UserError(f"samples {self.black:g} for black and {self.white:g} for white: not in this order")

    def __str__(self):
        return f"{self.dtype}, {self.black:.7g} is black and {self.white:.7g} white"

    @property
    def peak(self):
        """White minus black: the peak of the PSNR."""
        return self.white - self.black

    def to_float(self, samples):
        """Convert samples to float32, -0.5 is black, 0.5 is white; others lie beyond."""
        return (np.asarray(samples, np.float32) - np.float32(self.black)) / np.float32(self.peak) - np.float32(0.5)

    def to_samples(self, x):
        """Convert a float array to samples. Integers are rounded to nearest and clipped to the range of their type."""
        samples = (x + 0.5) * self.peak + self.black
        if self.dtype == "float32":
            return samples.astype(np.float32)
        return np.clip(samples + 0.5, 0, np.iinfo(self.dtype).max).astype(self.dtype)


def full_scale(dtype):
    """Return the Scale of a type unless something else is said."""
    return Scale(dtype, *FULL_RANGES[dtype])


EIGHT_BITS = full_scale("uint8")


def to_data(scale):
    """Return the field `data` of a network that was trained on samples of a Scale; 8 bits are not mentioned."""
    return {} if scale == EIGHT_BITS else {"samples": dataclasses.asdict(scale)}


def from_data(data):
    """Return the Scale in the field `data` of a network, or None. Raises UserError if it makes no sense."""
    if "samples" not in data:
        return None
    try:
        return Scale(**data["samples"])
    except TypeError:
        raise dnnlib.UserError(f"samples {dnnlib.util.printable(data['samples'])}: not known") from None


def parse_range(words):
    """Return the value of an option `--range`: (black, white), "auto", or None. Raises UserError for other words."""
    if words is None or words == ["auto"]:
        return words and "auto"
    if len(words) != 2 or "auto" in words:
        raise dnnlib.UserError(f"--range {' '.join(map(str, words))}: has to be LOW HIGH, or auto")
    if not words[0] < words[1]:
        raise dnnlib.UserError(f"--range {words[0]:g} {words[1]:g}: the first has to be less than the second")
    return tuple(words)


class Extent:
    """The extent of the samples of a set of images, which are added one by one."""

    def __init__(self, count):
        """count: Number of images."""
        self.low, self.high = math.inf, -math.inf
        self._most, self._selected = max(_SELECTED // max(count, 1), 1), []

    def add(self, samples):
        """Add the samples of an image; those that are not finite do not count."""
        samples = samples[np.isfinite(samples)]
        if not samples.size:
            return
        self.low, self.high = min(self.low, float(samples.min())), max(self.high, float(samples.max()))
        step = math.ceil(samples.size / self._most) | 1  # Odd, so that rows do not repeat the same columns.
        self._selected.append(samples[::step].astype(np.float32))

    def percentiles(self, *values):
        """Return percentiles of the samples; they are estimated from a part of a large set."""
        if not self._selected:
            raise dnnlib.UserError("no sample is a finite number")
        return np.percentile(np.concatenate(self._selected), values).tolist()


def scale_of_set(dtype, sample_range, extent):
    """Choose the scale of a set of images.

    Args:
        dtype: Type of the samples.
        sample_range: Result of `parse_range`.
        extent: Extent of the set; needed for "auto", and for other types than uint8 with None.

    Returns:
        (Scale, how it was chosen in words).

    Raises:
        UserError: The samples do not fit the range of their type.
    """
    if sample_range == "auto":
        black, white = (float(np.float32(x)) for x in extent.percentiles(*_AUTO))
        if black == white:
            raise dnnlib.UserError(f"--range auto: nearly all samples are {black:g}; name LOW HIGH")
        return Scale(dtype, black, white), f"the {_AUTO[0]} and {_AUTO[1]} % points"
    if sample_range:
        return Scale(dtype, *sample_range), "as given by --range"
    if dtype == "uint16":
        bits = next(bits for bits in _BITS if extent.high < 2**bits)
        white = 2**bits - 1
        return Scale(dtype, 0.0, float(white)), f"{bits} bits, as no sample is above {extent.high:g}; --range 0 {white}"
    scale = full_scale(dtype)
    if dtype == "float32":
        doubt = range_doubt(scale.black, scale.white, extent.low, extent.high, *extent.percentiles(1, 99))
        if doubt:
            raise dnnlib.UserError(f"{doubt}; set both by --range LOW HIGH, or by --range auto")
    return scale, "the range of the type"


def range_doubt(black, white, low, high, darkest, brightest):
    """Explain why `black` and `white` are probably wrong; None if they look right.

    They are doubtful if the samples lie far outside them, or all in the lowest quarter between them, such as 12 bits
    stored in 16.

    Args:
        low, high: The smallest and the largest sample.
        darkest, brightest: The same without a few hot pixels.
    """
    margin = (white - black) / 2  # Strong noise also reaches outside the range.
    beyond = darkest < black - margin or brightest > white + margin
    if beyond or low < high <= black + margin / 2:
        return f"its samples reach from {low:g} to {high:g}, but black is taken for {black:g} and white for {white:g}"
    return None
