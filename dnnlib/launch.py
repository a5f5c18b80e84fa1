"""How commands start: runs that are submitted or resumed, and functions that are called."""

import os
import pkgutil
from typing import Any

from .options import (
    decay,
    flag,
    name_and_value,
    name_part,
    nonnegative_int,
    nonnegative_number,
    path,
    positive_int,
    positive_number,
)
from .settings import REQUIRED, Setting, option_of
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

_KEPT: dict[str, Any] = {"launch": True}  # A resumed run keeps its own.
_EACH_START: dict[str, Any] = {"launch": True, "may_change": True}  # Each start of a run may have another.

RUN = [  # Settings of every command that makes a run directory.
    Setting("desc", "", "Text that is added to the name of the run directory.", name_part, metavar="TEXT", **_KEPT),
    Setting("run_dir_root", "results", "Folder of the run directories.", path, metavar="DIR", **_KEPT),
    Setting(
        "num_gpus", 1, "GPUs to use, in each worker. Without any, the CPU.", positive_int, metavar="N", **_EACH_START
    ),
    Setting("dry_run", False, "Print every setting, check what the run would refuse, and stop.", flag, **_EACH_START),
]
PRECISION = Setting(
    "precision",
    "auto",
    "Arithmetic of the network. auto is bfloat16 where the hardware computes it natively, about twice as fast as "
    "float32, else float32.",
    choices=("auto", "float32", "bfloat16"),
    may_change=True,
)
# Pictures are computed in float32, so that they are the same on every machine. bfloat16 rounds to 8 significant bits.
PICTURE_PRECISION = Setting(
    "precision", "float32", f"{PRECISION.help} bfloat16 rounds to 8 significant bits.", choices=PRECISION.choices
)
MICROBATCHES = Setting(
    "microbatches", 1, "Gradient accumulation: minimum number of microbatches per minibatch.", positive_int, metavar="N"
)
CHECKPOINT_MINUTES = Setting(
    "checkpoint_minutes", 5, "Minutes between checkpoints. Every evaluation saves one, too.", positive_number,
    metavar="N", may_change=True,
)  # fmt: skip
OPTIMIZER = [
    Setting("optimizer", "adam", "Optimizer. Muon takes fewer iterations than Adam.", choices=("adam", "muon")),
    Setting("beta1", 0.9, "Decay of Adam's first moment.", decay, metavar="B"),
    Setting("beta2", 0.99, "Decay of Adam's second moment.", decay, metavar="B"),
    Setting("epsilon", 1e-8, "Term in Adam's denominator.", positive_number, metavar="E"),
    Setting(
        "weight_decay", 0.0, "Decoupled weight decay: each iteration shrinks the kernels by this times the learning "
        "rate.", nonnegative_number, metavar="D",
    ),
]  # fmt: skip
EXPORT = {  # Settings of a command that calls `tflib.export`.
    "network": [
        Setting("network_snapshot", REQUIRED, "Network.", path, metavar="FILE"),
        Setting(
            "out", REQUIRED, "*.pickle, *.safetensors, *.onnx, or a new folder for a TensorFlow SavedModel.", path,
            metavar="PATH",
        ),
    ],
}  # fmt: skip
DISTRIBUTED = [  # Settings of a training that say where it runs.
    Setting(
        "resume", None, "Go on with an interrupted run from its checkpoint, with its settings.", path,
        metavar="RUN_DIR", **_EACH_START,
    ),
    Setting(
        "local_workers", None, "Share the work among N processes of this machine.", positive_int,
        metavar="N", **_EACH_START,
    ),
    Setting("workers", None, "Addresses of all workers, instead of TF_CONFIG.", metavar="HOST:PORT,...", **_EACH_START),
    Setting("task", None, "Number of this worker, from 0.", nonnegative_int, metavar="N", **_EACH_START),
    Setting(
        "join_seconds", 300, "Seconds that workers wait for each other at the start.", positive_number,
        metavar="N", **_EACH_START,
    ),
    Setting(
        "submit", "local", "Where the training runs: here, or as a job of SLURM.",
        choices=("local", "slurm"), **_EACH_START,
    ),
    Setting("nodes", 1, "Number of SLURM nodes; one worker runs on each.", positive_int, metavar="N", **_EACH_START),
    Setting(
        "time", 24 * 60, "Time limit of a SLURM job in minutes; then it is queued again and goes on.", positive_int,
        metavar="MINUTES", **_EACH_START,
    ),
    Setting(
        "slurm", None, "Option of sbatch; may be repeated.", name_and_value,
        metavar="NAME=VALUE", repeatable=True, **_EACH_START,
    ),
]  # fmt: skip


def submit(args, given, name, suffix, function, settings, needs):
    """Submit a run in the run directory NNNNN-<name><--desc><suffix>.

    With `--dry-run`, print every setting and go through the start of the run, which may refuse it.

    Args:
        args, given: All settings of the command; those that the command line gave.
        function: "module.function" that is called with the SubmitConfig and the `settings`.
        settings: Arguments of the function.
        needs: {path of a file or folder that must exist: how to get it}.
    """
    desc = name + ("-" if args.desc and not args.desc.startswith("-") else "") + args.desc + suffix
    submit_config = SubmitConfig(run_dir_root=args.run_dir_root, run_desc=desc, num_gpus=args.num_gpus)
    submit_config.update(_target(args, given))
    if args.dry_run:
        print("\n".join(format_settings(submit_config) + format_settings(settings)), flush=True)
    _check_split(args, settings)
    if Workers.from_environment().first:  # The other workers need less, and say what.
        check_exist(needs)
    if args.dry_run:
        _rehearse(submit_config, function, settings)
        return
    _become_worker(args)
    submit_run(submit_config, function, **settings)


def resume(args, given, function, command, needs, length=None):
    """Resume the run `args.resume` of `function`. Options that are given must agree with its settings or be allowed.

    Args:
        command: The Command, whose settings say which of them a resumed run may change.
        needs: Function from the settings to {path of a file or folder that must exist: how to name another one}.
        length: Name of the setting that says how many steps the run has: more than were done at the checkpoint.
    """
    submit_config = load_submit_config(args.resume)
    if submit_config.run_func_name != function:
        raise UserError(f"{args.resume}: is a run of {submit_config.run_func_name}, not of {function}")
    changes = _changes(given, submit_config, command.settings)
    settings = EasyDict(submit_config.run_func_kwargs | changes)
    where = _target(args, given) | {name: args[name] for name in ("num_gpus",) if name in given}
    if args.dry_run:
        print("\n".join(format_settings(settings)), flush=True)
    _check_split(args, settings)
    if not args.dry_run:
        _become_worker(args)
    if Workers.from_environment().first:
        check_not_finished(args.resume)
        step, _ = newest_checkpoint(args.resume)
        if changes.get(length, step + 1) <= step:
            option = next(s.options[0] for s in command.settings if s.name == length)
            raise UserError(f"{option} {changes[length]}: the run has done {step} already; name more")
        check_exist(needs(settings))
    if args.dry_run:
        _rehearse(submit_config | where | {"run_dir": args.resume, "resuming": True}, function, settings)
        return
    resume_run(args.resume, changes, **where)


def call(args, function, settings, needs):
    """Call "module.function" with `settings`, without a run directory. With `--dry-run`, print them instead."""
    if args.dry_run:
        print("\n".join(format_settings(settings)), flush=True)
    check_exist(needs)
    if not args.dry_run:
        pkgutil.resolve_name(function)(**settings)  # The import of TensorFlow takes seconds, so it comes last.


def target_name(args):
    """The part of a run directory's name that says where it runs: `-1gpu-L`, or `-4gpu-S` for a job of SLURM.

    The number is that of the GPUs asked for in each worker.
    """
    return f"-{args.num_gpus}gpu-{'S' if args.submit == 'slurm' else 'L'}"


def own_network(name):
    """The path of the network `name`, a file in the program's folder; None if it is missing."""
    path = os.path.join(SOURCE_ROOT, *name.split("/"))
    return path if os.path.exists(path) else None


def find_network(name, tell=True):
    """`own_network`, and print that no other one is named. UserError if it is missing."""
    path = own_network(name)
    if path is None:
        raise UserError(f"{name}: there is no such network; name one by --network-snapshot")
    if tell:
        print(f"Network: {name}, as --network-snapshot names no other.")
    return path


def check_exist(needs):
    """UserError for the first path of {path: how to get it} that does not exist."""
    for name, hint in needs.items():
        if not os.path.exists(name):
            raise UserError(f"{name}: no such file or folder" + (f"; {hint}" if hint else ""))


def _target(args, given):
    """The fields of the SubmitConfig that the options of training say: where it runs."""
    if "submit" not in args:
        return {}
    where = {"submit_target": "LOCAL", "join_seconds": args.join_seconds}
    if args.submit == "slurm":
        if args.workers or args.local_workers or os.environ.get("TF_CONFIG"):
            raise UserError("--submit slurm: its workers are tasks of the job, one for each of --nodes")
        others = dict(args.slurm or ())
        where |= {"submit_target": "SLURM", "slurm": {"nodes": args.nodes, "minutes": args.time, "others": others}}
    elif only_slurm := {"nodes", "time", "slurm"} & given.keys():
        raise UserError(f"--{min(only_slurm)}: goes with --submit slurm only")
    return where


def _check_split(args, settings):
    """UserError before anything is made, if a minibatch cannot be split evenly over the workers."""
    if "submit" in args and "minibatch_size" in settings:
        named = len(args.workers.split(",")) if args.workers else Workers.from_environment().count
        count = args.nodes if args.submit == "slurm" else args.local_workers or named
        split_minibatch(settings["minibatch_size"], count, microbatches=settings["microbatches"])


def _become_worker(args):
    """Make this process the worker that the options say. Only training is distributed."""
    if "workers" in args:
        configure_workers(args.workers, args.task, args.local_workers)
    else:
        os.environ.pop("TF_CONFIG", None)


def _rehearse(submit_config, function, settings):
    os.environ.pop("TF_CONFIG", None)  # One worker finds the mistakes.
    rehearse(submit_config, function, **settings)


def _changes(given, submit_config, settings):
    """The settings that options change. UserError for an option that disagrees with what the run keeps."""
    declared, changes = {setting.name: setting for setting in settings}, {}
    recorded = submit_config | submit_config.run_func_kwargs
    recorded |= {k: v for group in recorded.values() if isinstance(group, dict) for k, v in group.items()}
    for name, value in given.items():
        setting = declared[name]
        if (setting.launch and setting.may_change) or (name in recorded and recorded[name] == value):
            continue
        if not setting.may_change:
            option = f"{option_of(name)} {value}"
            if name not in recorded:
                raise UserError(f"{option}: a run that is resumed keeps its own; leave it out")
            has = "was started without it" if recorded[name] is None else f"has {recorded[name]!r}"
            raise UserError(f"{option}: the run to be resumed {has}; leave it out")
        changes[name] = value
    return changes
