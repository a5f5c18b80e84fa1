"""Command lines of programs with subcommands that share options and end in a run."""

import argparse
import os
import pkgutil
import sys

from .options import (
    ArgumentParser,
    name_and_value,
    name_part,
    nonnegative_int,
    positive_int,
    positive_number,
)
from .sharding import split_minibatch
from .submission import (
    SOURCE_ROOT,
    SubmitConfig,
    format_settings,
    load_submit_config,
    newest_checkpoint,
    rehearse,
    resume_run,
    submit_run,
)
from .submission.submit import check_not_finished
from .submission.workers import Workers
from .submission.workers import configure as configure_workers
from .util import EasyDict, UserError

# Options that a resumed run need not agree with: where it runs.
_OF_THIS_START = {"command", "resume", "dry_run", "num_gpus"}
_OF_THIS_START |= {"workers", "task", "local_workers", "join_seconds", "submit", "nodes", "time", "slurm"}


class Parser:
    """argparse, where common options may stand before or after the subcommand."""

    def __init__(self, description):
        self._parser = ArgumentParser(description=description)
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
        self.common("--desc", default="", type=name_part, metavar="TEXT", help="added to the run directory's name")
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
            "--slurm", action="append", type=name_and_value, metavar="NAME=VALUE", help="option of sbatch; repeatable"
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
            _, unknown = self._parser.parse_known_args([default_command, *argv])
            if not unknown or unknown[0].startswith("-"):  # Otherwise it may be a misspelt subcommand.
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

    With `--dry-run`, prints every setting instead, and goes through the start of the run, which may refuse it.
    needs: {path of a file or folder that must exist: how to get it}.
    """
    desc = name + ("-" if args.desc and not args.desc.startswith("-") else "") + args.desc + suffix
    submit_config = SubmitConfig(run_dir_root=args.run_dir_root, run_desc=desc, num_gpus=args.num_gpus)
    submit_config.update(_of_this_start(args))
    if args.dry_run:
        print("\n".join(format_settings(submit_config) + format_settings(settings)), flush=True)
    _check_split(args, settings)
    if Workers.from_environment().first:  # The others need less, and say what.
        check_exist(needs)
    if args.dry_run:
        _rehearse(submit_config, function, settings)
        return
    _become_worker(args)
    submit_run(submit_config, function, **settings)


def _rehearse(submit_config, function, settings):
    os.environ.pop("TF_CONFIG", None)  # One worker finds the mistakes.
    rehearse(submit_config, function, **settings)


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
        print("\n".join(format_settings(settings)), flush=True)
    check_exist(needs)
    if args.dry_run:
        return
    pkgutil.resolve_name(function)(**settings)  # Imported only now: TensorFlow takes seconds.


def resume(args, function, may_change, needs, length=None):
    """Resumes the run `args.resume` of `function`. Options that are given have to agree with its settings.

    may_change: settings that options may override.
    needs: function of the settings that returns {path of a file or folder that must exist: how to name another one}.
    length: (setting, option) that say how many steps the run has: more than were done at the checkpoint.
    """
    submit_config = load_submit_config(args.resume)
    if submit_config.run_func_name != function:
        raise UserError(f"{args.resume}: is a run of {submit_config.run_func_name}, not of {function}")
    changes = _changes(args, submit_config, may_change)
    settings = EasyDict(submit_config.run_func_kwargs | changes)
    where = _of_this_start(args) | {name: args[name] for name in {"num_gpus"} & args.given.keys()}
    if args.dry_run:
        print("\n".join(format_settings(settings)), flush=True)
    _check_split(args, settings)
    if not args.dry_run:
        _become_worker(args)
    if Workers.from_environment().first:
        check_not_finished(args.resume)
        step, _ = newest_checkpoint(args.resume)
        if length and changes.get(length[0], step + 1) <= step:
            raise UserError(f"{length[1]} {changes[length[0]]}: the run has done {step} already; name more")
        check_exist(needs(settings))
    if args.dry_run:
        _rehearse(submit_config | where | {"run_dir": args.resume, "resuming": True}, function, settings)
        return
    resume_run(args.resume, changes, **where)


def _changes(args, submit_config, may_change):
    """The settings that options change. UserError for an option that disagrees with what the run keeps."""
    recorded, changes = submit_config.run_func_kwargs, {}
    flat = submit_config | recorded
    flat |= {k: v for group in recorded.values() if isinstance(group, dict) for k, v in group.items()}
    for name, value in args.given.items():
        if name in _OF_THIS_START or (name in flat and flat[name] == value):
            continue
        if name not in may_change:
            option = f"--{name.replace('_', '-')} {value}"
            if name not in flat:
                raise UserError(f"{option}: a run that is resumed keeps its own; leave it out")
            has = "was started without it" if flat[name] is None else f"has {flat[name]!r}"
            raise UserError(f"{option}: the run to be resumed {has}; leave it out")
        changes[name] = value
    return changes


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
