"""Types of options, and a parser for scripts.

A type takes the text of an option and returns its value, or raises an error that says what the text should be.
"""

import argparse
import difflib
import math
import os
import re


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser for scripts with few options.

    It suggests what a misspelt option may have meant. The value of an option whose metavar has FILE, DIR or PATH in it
    is a path, see `path`.
    """

    def __init__(self, **kwargs):
        self.names = []
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def add_argument(self, *names, **kwargs):
        self.names += names
        if re.search("FILE|DIR|PATH", str(kwargs.get("metavar"))):
            kwargs.setdefault("type", path)
        return super().add_argument(*names, **kwargs)

    def parse_args(self, args=None, namespace=None):
        args, unknown = self.parse_known_args(args, namespace)
        if unknown:
            meant = closest(unknown[0].partition("=")[0], self.names)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {meant}?" if meant else ""))
        return args


def closest(word, known):
    """The one of the known words that `word` resembles most, or None."""
    return next(iter(difflib.get_close_matches(word, known, 1)), None)


def path(text):
    """A path, where `~` stands for the home folder: shells do not expand it in `--out=~/x.png`."""
    return os.path.expanduser(text)


def choice(values):
    """Type of an option that takes one of `values`."""

    def parse(text):
        if text not in values:
            meant = closest(text, values)
            hint = f"did you mean '{meant}'?" if meant else f"choose from {', '.join(values)}"
            raise argparse.ArgumentTypeError(f"invalid choice: '{text}'; {hint}")
        return text

    return parse


def name_part(text):
    """A part of a run directory's name."""
    if os.path.basename(text) != text:
        raise argparse.ArgumentTypeError(f"'{text}' is part of a folder's name and cannot hold '{os.sep}'")
    return text


def name_and_value(text):
    """(name, value) from NAME=VALUE."""
    name, _, value = text.partition("=")
    if not name.replace("-", "_").isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def flag(text):
    """`true` or `false`, for options such as `--noise2noise=false`."""
    for value, words in {True: ("true", "t", "yes", "y", "1"), False: ("false", "f", "no", "n", "0")}.items():
        if text.lower() in words:
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


def number(kind, admitted, words):
    """Type of a number.

    Args:
        kind: Function from the text to the number, such as `int`.
        admitted: Function that says whether a number is allowed.
        words: What the text should be, in words.
    """

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not admitted(value):
            raise argparse.ArgumentTypeError(f"'{text}' is not {words}")
        return value

    return parse


positive_int = number(int, lambda n: n >= 1, "a whole number from 1")
nonnegative_int = number(int, lambda n: n >= 0, "a whole number from 0")
seed = number(int, lambda n: 0 <= n < 2**31, "a whole number from 0 to 2147483647")
probability = number(float, lambda p: 0 < p <= 1, "a number above 0 and at most 1")
part = number(float, lambda p: 0 <= p <= 1, "a number from 0 to 1")
decay = number(float, lambda d: 0 <= d < 1, "a number from 0 to below 1")
percentile = number(float, lambda p: 0 < p <= 100, "a number above 0 and at most 100")
positive_number = number(float, lambda n: 0 < n < math.inf, "a number above 0")
nonnegative_number = number(float, lambda n: 0 <= n < math.inf, "a number from 0")
finite_number = number(float, math.isfinite, "a number")


def multiple_of(n):
    """Type of a whole number that is a positive multiple of `n`."""
    return number(int, lambda value: value > 0 and value % n == 0, f"a positive multiple of {n}")


def one_of(*numbers):
    """Type of a whole number that is one of `numbers`."""
    return number(int, numbers.__contains__, " or ".join(map(str, numbers)))


def range_end(text):
    """A finite number, or `auto`."""
    return text if text == "auto" else number(float, math.isfinite, "a number, or auto")(text)


def memory_size(text):
    """Bytes, from such as `4GiB`, `512MiB` or, in GiB, `4`."""
    units = {"mib": 2**20, "mb": 10**6, "gib": 2**30, "gb": 10**9, "": 2**30}

    def parse(text):
        digits = text.lower().rstrip("gimb ")
        return float(digits) * units.get(text.lower()[len(digits) :].strip(), math.nan)

    return int(number(parse, lambda n: 1 <= n < math.inf, "a size such as 4GiB or 512MiB")(text))
