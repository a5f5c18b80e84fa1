"""Settings and commands of a program, each declared once.

A `Setting` declares a value that users can choose. Its option on the command line, its line in `--help` and the
argument of the function that uses it follow from the declaration. A `Command` is a function with the settings that it
takes. A `Program` has commands, one of which is meant where the command line names none.

To add a setting, declare it and use it. To add a command, write its function and list a `Command` with it.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

from .options import choice, closest, flag
from .util import EasyDict

REQUIRED = object()  # The default of a setting that has to be given.


@dataclasses.dataclass(frozen=True)
class Setting:
    """A value that users can choose.

    Attributes:
        name: Name of the function's argument.
        default: Value without the option; REQUIRED where there is none.
        help: What the value means, with its unit, in one or two short sentences. `--help` adds the default.
        type: Function from the option's text to the value, see options.py. An option of type `flag` may stand alone.
        choices: The allowed values, if they are few; instead of `type`.
        metavar: What stands for the value in `--help`; a tuple for `nargs` values.
        nargs: Number of values, or "+" for one or more.
        option: Name of the option; by default `--` and the setting's name with dashes. Without dashes, the setting is a
            positional argument.
        aliases: Other names of the option.
        repeatable: The option may be given several times; the value is a list.
        may_change: A resumed run may change the setting.
        launch: The setting says how and where a run is started; the run does not get it.
    """

    name: str
    default: Any
    help: str
    type: Callable = str
    choices: Any = None
    metavar: Any = None
    nargs: Any = None
    option: str | None = None
    aliases: tuple = ()
    repeatable: bool = False
    may_change: bool = False
    launch: bool = False

    @property
    def options(self):
        """Names of the option; messages show the first one."""
        return (self.option or option_of(self.name), *self.aliases)

    @property
    def default_value(self):
        """The default as the function gets it: a text is converted as the option's would be."""
        return self.type(self.default) if isinstance(self.default, str) else self.default

    def add_to(self, parser):
        """Add the option to an argparse parser or group."""
        kwargs = {"type": self.type, "metavar": self.metavar, "help": self._help()}
        if self.choices:
            kwargs |= {"type": choice(self.choices), "metavar": self.metavar or "{" + ",".join(self.choices) + "}"}
        if self.type is flag:
            kwargs["metavar"] = "{true,false}"
        if self.nargs:
            kwargs["nargs"] = self.nargs
        if self.repeatable:
            kwargs["action"] = "append"
        if self.options[0].startswith("--"):
            kwargs |= {"dest": self.name, "default": argparse.SUPPRESS, "required": self.default is REQUIRED}
        parser.add_argument(*self.options, **kwargs)

    def _help(self):
        text = self.help
        if self.default not in (REQUIRED, None, ""):
            text += f" Default: {_as_typed(self.default)}."
        return text.replace("%", "%%")


def option_of(name):
    """The usual option of a setting: `learning_rate` -> `--learning-rate`."""
    return "--" + name.replace("_", "-")


def _as_typed(value):
    """A value as a user would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


@dataclasses.dataclass(frozen=True)
class Command:
    """What a program can be told to do.

    Attributes:
        function: Called with an EasyDict of all settings and a dictionary of those that the command line gave. Its
            name, with dashes for underscores, is the command's.
        help: What the command does, in a sentence.
        groups: {title in `--help`: list of settings}.
    """

    function: Callable
    help: str
    groups: dict

    @property
    def name(self):
        """Name on the command line."""
        return self.function.__name__.replace("_", "-")

    @property
    def settings(self):
        """All settings."""
        return [setting for group in self.groups.values() for setting in group]

    @property
    def defaults(self):
        """EasyDict of the defaults."""
        return EasyDict({s.name: s.default_value for s in self.settings if s.default is not REQUIRED})

    def for_run(self, values):
        """EasyDict of those of `values` that the run gets as arguments."""
        return EasyDict({s.name: values[s.name] for s in self.settings if not s.launch})


class Program:
    """The commands of a program. Options of `common` settings may stand before or after the name of the command."""

    def __init__(self, description, commands, common, default_command):
        """Args:
        description: What `--help` says first.
        commands: List of Commands.
        common: Settings that every command has, unless it declares them differently.
        default_command: Name of the command that is meant where the command line names none.
        """
        self.description, self.common, self.default_command = description, common, default_command
        self.commands = {command.name: self._with_common(command) for command in commands}

    def run(self, argv=None):
        """Carry out a command line, by default the process's. Usage errors and `--help` end the program."""
        command, settings, given = self.parse(argv)
        return command.function(settings, given)

    def defaults(self, name):
        """EasyDict of the defaults of a command's settings."""
        return self.commands[name].defaults

    def parse(self, argv=None):
        """Returns the Command that is meant, its settings, and a dictionary of those that were given."""
        words = list(sys.argv[1:] if argv is None else argv)
        name, words = self._take_command(words)
        command = self.commands[name]
        parser, known = self._parser_of(command), _by_option(command)
        _check_options(words, known, parser)
        given = vars(parser.parse_args(_spell_out_flags(words, known)))
        return command, EasyDict(command.defaults | given), given

    def _with_common(self, command):
        own = {setting.name for setting in command.settings}
        groups = dict(command.groups)
        groups["common"] = groups.get("common", []) + [setting for setting in self.common if setting.name not in own]
        return dataclasses.replace(command, groups=groups)

    def _take_command(self, words):
        """(name of the command, the other words). Words that are values of options are no commands."""
        known, index = _by_option(self.commands[self.default_command]), 0
        while index < len(words):
            word = words[index]
            if word in self.commands:
                return word, words[:index] + words[index + 1 :]
            if word in ("-h", "--help"):
                self._parser().print_help()
                sys.exit(0)
            if not word.startswith("-"):
                self._refuse_command(word)
            if word.partition("=")[0] not in known:  # `parse` says so.
                break
            index += 1
            if word in known:
                index += _count_values(known[word], words[index:])
        return self.default_command, words

    def _refuse_command(self, word):
        meant = closest(word, self.commands)
        if meant:
            self._parser_of(self.commands[meant]).error(f"there is no command '{word}'; did you mean '{meant}'?")
        self._parser().error(f"there is no command '{word}'; there are {', '.join(self.commands)}")

    def _parser(self):
        lines = [f"  {command.name:<14}{command.help}" for command in self.commands.values()]
        parser = argparse.ArgumentParser(
            usage="%(prog)s [COMMAND] [options]",
            description=self.description,
            epilog="commands:\n" + "\n".join(lines) + f"\n\nWithout a command: {self.default_command}. "
            "COMMAND --help lists the options of a command.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for setting in self.common:
            setting.add_to(parser)
        return parser

    def _parser_of(self, command):
        prog = f"{os.path.basename(sys.argv[0])} {command.name}"
        usage = f"{prog} [options]"
        parser = argparse.ArgumentParser(prog=prog, usage=usage, description=command.help, allow_abbrev=False)
        for title, group in command.groups.items():
            section = parser.add_argument_group(title)
            for setting in group:
                setting.add_to(section)
        return parser


def _by_option(command):
    """{name of an option: its setting}."""
    return {option: setting for setting in command.settings for option in setting.options}


def _check_options(words, known, parser):
    """End the program at an option that is not among the known ones, before argparse misses another one."""
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known and name not in ("--", "--help"):
            meant = closest(name, known)
            parser.error(f"there is no option {name}" + (f"; did you mean {meant}?" if meant else ""))


def _spell_out_flags(words, known):
    """The words with `--flag` written as `--flag=true`."""
    spelt = []
    for index, word in enumerate(words):
        alone = word in known and known[word].type is flag and not _count_values(known[word], words[index + 1 :])
        spelt.append(word + "=true" if alone else word)
    return spelt


def _count_values(setting, words):
    """How many of the words that follow an option are its values."""
    if setting.type is flag:
        try:
            flag("".join(words[:1]))
        except argparse.ArgumentTypeError:
            return 0
        return 1
    if setting.nargs == "+":
        return next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return setting.nargs or 1
