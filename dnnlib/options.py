"""What the command lines of all programs have in common: a parser that helps with typing errors, types of options.

A type takes the text of an option and returns its value, or raises an error that says what the text should be.
"""

import argparse
import difflib
import itertools
import math
import os
import re
import sys


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser with help for typing errors and for paths.

    Errors suggest what a misspelt command, option or choice may have meant. In the values of options whose metavar has
    FILE, DIR or PATH in it, `~` stands for the home folder: the shell does not expand it in `--out=~/x.png`.
    """

    def __init__(self, *args, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs):
        super().__init__(*args, formatter_class=formatter_class, **kwargs)

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        parsers = self._named_in(words)
        self._check_options(words, parsers)
        args, unknown = self.parse_known_args(words, namespace)
        if unknown:
            parsers[-1].error(f"unrecognized arguments: {' '.join(unknown)}")
        return args

    def _named_in(self, words):
        """The parsers of the subcommands among `words`, or this one."""
        commands = self._subparsers._group_actions[0].choices if self._subparsers else {}
        return [commands[word] for word in words if word in commands] or [self]

    def _check_options(self, words, parsers):
        """Refuses an unknown option before argparse finds that another one is missing."""
        if self._subparsers and parsers == [self]:
            return  # argparse refuses the subcommand.
        known = [name for parser in (self, *parsers) for name in parser._option_string_actions]
        for word in itertools.takewhile(lambda word: word != "--", words):
            name = word.partition("=")[0]
            if word.startswith("--") and not any(option.startswith(name) for option in known):
                meant = _closest(name, known)
                parsers[-1].error(f"there is no option {name}" + (f"; did you mean {meant}?" if meant else ""))

    def _get_value(self, action, text):
        value = super()._get_value(action, text)
        is_path = isinstance(value, str) and re.search("FILE|DIR|PATH", str(action.metavar))
        return os.path.expanduser(value) if is_path else value

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = _closest(value, action.choices)
            if not meant:
                raise
            if isinstance(action, argparse._SubParsersAction):
                action.choices[meant].error(f"there is no command '{value}'; did you mean '{meant}'?")
            raise argparse.ArgumentError(action, f"{error.message}; did you mean '{meant}'?") from None


def _closest(word, known):
    return next(iter(difflib.get_close_matches(str(word), known, 1)), None)


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
