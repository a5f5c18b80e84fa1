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


def positive_int(text):
    """A whole number from 1."""
    return _number(text, int, lambda n: n >= 1, "a whole number from 1")


def multiple_of(n):
    """Type of a whole number that is a positive multiple of `n`."""
    return lambda text: _number(text, int, lambda value: value > 0 and value % n == 0, f"a positive multiple of {n}")


def one_of(*numbers):
    """Type of a whole number that is one of `numbers`."""
    return lambda text: _number(text, int, numbers.__contains__, " or ".join(map(str, numbers)))


def nonnegative_int(text):
    """A whole number from 0."""
    return _number(text, int, lambda n: n >= 0, "a whole number from 0")


def probability(text):
    """A number above 0, at most 1."""
    return _number(text, float, lambda p: 0 < p <= 1, "a number above 0 and at most 1")


def part(text):
    """A number from 0 to 1."""
    return _number(text, float, lambda p: 0 <= p <= 1, "a number from 0 to 1")


def decay(text):
    """A number from 0 to below 1."""
    return _number(text, float, lambda d: 0 <= d < 1, "a number from 0 to below 1")


def seed(text):
    """A seed: a whole number from 0 to 2^31 - 1."""
    return _number(text, int, lambda n: 0 <= n < 2**31, "a whole number from 0 to 2147483647")


def positive_number(text):
    """A number above 0."""
    return _number(text, float, lambda n: 0 < n < math.inf, "a number above 0")


def nonnegative_number(text):
    """A number from 0."""
    return _number(text, float, lambda n: 0 <= n < math.inf, "a number from 0")


def finite_number(text):
    """Any number but infinities and NaN."""
    return _number(text, float, math.isfinite, "a number")


def range_end(text):
    """Any number but infinities and NaN, or `auto`."""
    return text if text == "auto" else _number(text, float, math.isfinite, "a number, or auto")


def memory_size(text):
    """Bytes, from such as `4GiB`, `512MiB` or, in GiB, `4`."""
    units = {"mib": 2**20, "mb": 10**6, "gib": 2**30, "gb": 10**9, "": 2**30}

    def parse(text):
        number = text.lower().rstrip("gimb ")
        return float(number) * units.get(text.lower()[len(number) :].strip(), math.nan)

    return int(_number(text, parse, lambda n: 1 <= n < math.inf, "a size such as 4GiB or 512MiB"))


def _number(text, kind, admitted, words):
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not admitted(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not {words}")
    return value
