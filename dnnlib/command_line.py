"""Command lines of programs with subcommands that share options and end in a run."""

import argparse
import math
import os
import pkgutil
import sys

from .submission import SOURCE_ROOT, SubmitConfig, format_settings, load_submit_config, resume_run, submit_run
from .submission.workers import Workers, split_minibatch
from .submission.workers import configure as configure_workers
from .util import EasyDict, UserError

# Options that a resumed run need not agree with: where it runs.
_OF_THIS_START = {"command", "resume", "dry_run"}
_OF_THIS_START |= {"workers", "task", "local_workers", "join_seconds", "submit", "nodes", "time", "slurm"}


class Parser:
    """argparse, where common options may stand before or after the subcommand."""

    def __init__(self, description):
        self._parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self._commands = self._parser.add_subparsers(dest="command", metavar="COMMAND")
        self._common, self._defaults = [], EasyDict()

    def common(self, name, default=None, **kwargs):
        """Adds an option to the program and, from here on, to every subcommand."""
        if kwargs.get("action") == "store_true":
            default = False
        self._defaults[name.lstrip("-").replace("-", "_")] = default
        self._common.append((name, kwargs))
        self._add_common(self._parser, name, kwargs)

    def submission_options(self, defaults):
        """Adds the common options of `submit`; `defaults` has run_dir_root and num_gpus."""
        self.common("--desc", default="", metavar="TEXT", help="added to the run directory's name")
        self.common(
            "--run-dir-root", default=defaults.run_dir_root, metavar="DIR", help="folder of the run directories"
        )
        self.common("--num-gpus", default=defaults.num_gpus, type=positive_int, metavar="N", help="GPUs to use, if any")
        self.common("--dry-run", action="store_true", help="print every setting of the run, and stop")

    def precision_option(self, default, default_help):
        """Adds the common option of `tflib.pick_dtype`. default_help: the default in words."""
        self.common(
            "--precision",
            default=default,
            choices=("auto", "float32", "bfloat16"),
            help="arithmetic of the network. auto: bfloat16 where the hardware computes it natively, about twice as "
            f"fast as float32, else float32. Default: {default_help}",
        )

    @staticmethod
    def optimizer_option(parser, default):
        """Adds the option of `tflib.Optimizer`."""
        parser.add_argument("--optimizer", default=default, choices=("adam", "muon"), help="muon: fewer iterations")

    @staticmethod
    def training_options(parser, defaults):
        """Adds the options of `resume` and of where it runs; `defaults` has submit, nodes, time and join_seconds."""
        option = parser.add_argument
        option(
            "--resume", metavar="RUN_DIR", help="go on with an interrupted run, with its settings, from its checkpoint"
        )
        option(
            "--local-workers", type=positive_int, metavar="N", help="share the work among N processes of this machine"
        )
        option(
            "--submit", default=defaults.submit, choices=("local", "slurm"), help="run it here, or as a job of SLURM"
        )
        option("--nodes", default=defaults.nodes, type=positive_int, metavar="N", help="of SLURM: a worker on each")
        option("--time", default=defaults.time, type=positive_int, metavar="MINUTES", help="of a job; then it goes on")
        option(
            "--slurm", action="append", type=_name_and_value, metavar="NAME=VALUE", help="option of sbatch; repeatable"
        )
        option("--workers", metavar="HOST:PORT,...", help="addresses of all workers; instead of TF_CONFIG")
        option("--task", type=nonnegative_int, metavar="N", help="which of the workers this one is, from 0")
        seconds = defaults.join_seconds
        option(
            "--join-seconds", default=seconds, type=positive_number, metavar="N", help="workers wait so long for others"
        )

    def export_command(self):
        """Adds the subcommand `export`, see `tflib.export`."""
        parser = self.command("export", "write a network as another kind of snapshot or as a TensorFlow SavedModel")
        parser.add_argument("--network-snapshot", required=True, metavar="FILE", help="the network")
        parser.add_argument(
            "--out", required=True, metavar="PATH", help="*.pickle, *.safetensors, or a new folder for a SavedModel"
        )

    def command(self, name, help_text):
        """Adds a subcommand; returns its argparse parser, for `add_argument`."""
        parser = self._commands.add_parser(
            name, help=help_text, description=help_text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        for common_name, kwargs in self._common:
            self._add_common(parser, common_name, kwargs)
        return parser

    def parse(self, argv=None, default_command=None):
        """Parses the command line into an EasyDict; without a subcommand in it, as options of `default_command`.

        Usage errors and `--help` end the program.
        """
        argv = sys.argv[1:] if argv is None else argv
        if not {*argv} & {*self._commands.choices, "-h", "--help"}:
            argv = [default_command, *argv]
        args = self._parser.parse_args(argv)
        if args.command is None:  # The word was some option's value, as in `--desc validate`.
            args = self._parser.parse_args([default_command, *argv])
        return EasyDict(self._defaults | vars(args), given=self._given(argv, args))

    def _given(self, argv, args):
        """The options that stand on the command line, {name: value}: those that parsing without defaults gives."""
        for parser in (self._parser, *self._commands.choices.values()):
            for action in parser._actions:
                action.default = argparse.SUPPRESS
                action.required = False
        argv = argv if args.command in argv else [args.command, *argv]
        return vars(self._parser.parse_args(argv))

    @staticmethod
    def _add_common(parser, name, kwargs):
        # No default here, or the subcommand's would overwrite what stood before it.
        parser.add_argument(name, default=argparse.SUPPRESS, **kwargs)


def submit(args, name, suffix, function, settings, needs):
    """Submits a run of `function` with `settings`, in the run directory NNNNN-<name><--desc><suffix>.

    With `--dry-run`, prints every setting instead. needs: {path of a file or folder that must exist: how to get it}.
    """
    desc = name + ("-" if args.desc and not args.desc.startswith("-") else "") + args.desc + suffix
    submit_config = SubmitConfig(run_dir_root=args.run_dir_root, run_desc=desc, num_gpus=args.num_gpus)
    submit_config.update(_of_this_start(args))
    if args.dry_run:
        print("\n".join(format_settings(submit_config) + format_settings(settings)))
        return
    _check_split(args, settings)
    if Workers.from_environment().first:  # The others need less, and say what.
        check_exist(needs)
    _become_worker(args)
    submit_run(submit_config, function, **settings)


def where_it_runs(args):
    """The part of a run directory's name that says where it runs: `-1gpu-L`, or `-4gpu-S` for a job of SLURM.

    The number is that of --num-gpus: the GPUs of each worker.
    """
    return f"-{args.num_gpus}gpu-{'S' if args.submit == 'slurm' else 'L'}"


def _of_this_start(args):
    """Of the SubmitConfig, what the options of training say about where it runs."""
    if "submit" not in args:
        return {}
    where = {"submit_target": "LOCAL", "join_seconds": args.join_seconds}
    if args.submit == "slurm":
        if args.workers or args.local_workers or os.environ.get("TF_CONFIG"):
            raise UserError("--submit slurm: its workers are tasks of the job, one for each of --nodes")
        others = dict(args.slurm or ())
        where |= {"submit_target": "SLURM", "slurm": {"nodes": args.nodes, "minutes": args.time, "others": others}}
    elif given := {"nodes", "time", "slurm"} & args.given.keys():
        raise UserError(f"--{min(given)}: goes with --submit slurm only")
    return where


def _check_split(args, settings):
    """UserError before anything is made, if a minibatch cannot be split evenly over the workers."""
    if "submit" in args and "minibatch_size" in settings:
        named = len(args.workers.split(",")) if args.workers else Workers.from_environment().count
        count = args.nodes if args.submit == "slurm" else args.local_workers or named
        split_minibatch(settings["minibatch_size"], count, microbatches=settings["microbatches"])


def _become_worker(args):
    """Makes this process the worker that the options say. Only training is distributed."""
    if "workers" in args:
        configure_workers(args.workers, args.task, args.local_workers)
    else:
        os.environ.pop("TF_CONFIG", None)


def call(args, function, settings, needs):
    """Calls "module.function" with `settings`, without a run directory. With `--dry-run`, prints them instead."""
    if args.dry_run:
        print("\n".join(format_settings(settings)))
        return
    check_exist(needs)
    pkgutil.resolve_name(function)(**settings)  # Imported only now: TensorFlow takes seconds.


def resume(args, function, may_change):
    """Resumes the run `args.resume` of `function`. Options that are given have to agree with its settings.

    may_change: settings that options may override.
    """
    settings = load_submit_config(args.resume)
    if settings.run_func_name != function:
        raise UserError(f"{args.resume}: is a run of {settings.run_func_name}, not of {function}")
    recorded, changes = settings.run_func_kwargs, {}
    flat = dict(recorded) | {k: v for group in recorded.values() if isinstance(group, dict) for k, v in group.items()}
    for name, value in args.given.items():
        if name in _OF_THIS_START or (name in flat and flat[name] == value):
            continue
        if name not in may_change:
            has = f"has {flat[name]!r}" if name in flat else "was started without it"
            raise UserError(f"--{name.replace('_', '-')} {value}: the run to be resumed {has}; leave it out")
        changes[name] = value
    if args.dry_run:
        print("\n".join(format_settings(recorded | changes)))
        return
    where = _of_this_start(args)
    _check_split(args, recorded)
    _become_worker(args)
    resume_run(args.resume, changes, **where)


def find_network(path, default):
    """`path`, or for None `default`, a file in the program's folder, and says so. UserError if it is missing."""
    if path is not None:
        return path
    found = os.path.join(SOURCE_ROOT, *default.split("/"))
    if not os.path.exists(found):
        raise UserError(f"{default}: there is no such network; name one by --network-snapshot")
    print(f"Network: {default}, as --network-snapshot names no other.")
    return found


def check_exist(needs):
    """UserError for the first path of {path: how to get it} that does not exist."""
    for path, hint in needs.items():
        if not os.path.exists(path):
            raise UserError(f"{path}: no such file or folder" + (f"; {hint}" if hint else ""))


def _name_and_value(text):
    name, _, value = text.partition("=")
    if not name.replace("-", "_").isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def flag(text):
    """`true` or `false`, for options such as `--noise2noise=false`."""
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return values[text.lower()]


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
