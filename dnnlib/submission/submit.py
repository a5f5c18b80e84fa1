"""Makes run directories and runs a function in one."""

import ast
import contextlib
import getpass
import importlib
import os
import platform
import pprint
import re
import shlex
import shutil
import subprocess
import sys
import time
import traceback

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

from .. import safe_pickle
from ..util import EasyDict, Stopped, UserError, describe_error, format_time, open_atomic
from . import slurm
from .logger import Logger
from .resume import checkpoint_steps, final_network, newest_checkpoint, rewind
from .run_context import RehearsalEnd
from .workers import Workers

SOURCE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_MAX_SETTINGS = 100_000  # Characters; parsing takes some 500 bytes for each.
_NOBODY = {"run_name": "", "host_name": "", "user_name": "", "command": ""}  # Where there is no run directory.
_NUMBERED = re.compile(r"(\d{5,})(-.*)?$")


class SubmitConfig(EasyDict):
    """What is submitted, and where.

    run_dir_root: folder of the numbered run directories, made if missing.
    run_desc: what follows the number in the run directory's name.
    num_gpus: number of GPUs the run may use; the CPU is used when there are none.
    submit_target: "LOCAL", to run it here, or "SLURM", to submit a job, by the settings `slurm`: see `slurm.submit`.
    resuming: the run goes on from a checkpoint.
    join_seconds: how long the workers of a distributed run wait for each other at the start.
    The other fields are filled in by `submit_run`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(
            run_dir_root="results", run_desc="", num_gpus=1, submit_target="LOCAL", resuming=False, join_seconds=300
        )
        self.update(*args, **kwargs)


def submit_run(submit_config, run_func_name, **run_func_kwargs):
    """Calls "module.function" in a new run directory, as `function(submit_config, **run_func_kwargs)`.

    `submit_config` and the keyword arguments hold plain Python values, for they are written to `submit_config.txt`.
    A run begins when the function enters its `RunContext`. If a user's mistake ends it before, its directory is
    removed. A run that fails later says so in `_failed.txt` and `run.txt`, one that is stopped in `_stopped.txt`; a
    complete run leaves `_finished.txt`. Runs that are not complete end in SystemExit with status 1, or 130 where
    Ctrl-C stopped a run that has no checkpoints.
    """
    config = SubmitConfig(**submit_config)
    config.run_func_name, config.run_func_kwargs = run_func_name, run_func_kwargs
    if not Workers.from_environment().first:
        return _run_silently(config)
    if config.submit_target == "SLURM":
        slurm.check(config.slurm)
    config.run_dir = _make_run_dir(config.run_dir_root, config.run_desc)
    config.run_name = os.path.basename(config.run_dir)
    config.run_id = int(_NUMBERED.match(config.run_name)[1])
    config.host_name, config.user_name = platform.node(), _user_name()
    config.command, config.commit = shlex.join([os.path.basename(sys.executable), *sys.argv]), _commit()
    _write_settings(config)
    _copy_source(os.path.join(config.run_dir, "src"))
    if config.submit_target == "SLURM":
        try:
            return slurm.submit(config)
        except UserError:
            shutil.rmtree(config.run_dir)
            raise
    with _alone(config.run_dir):
        return _run(config, take_back=lambda: shutil.rmtree(config.run_dir, ignore_errors=True))


def rehearse(submit_config, run_func_name, **run_func_kwargs):
    """Calls "module.function" up to where the run would begin, without a run directory: UserError if it is refused.

    With `submit_config.resuming`, the run in `submit_config.run_dir` is resumed so far; its directory stays as it is.
    """
    config = SubmitConfig({"run_dir": None} | submit_config, rehearsal=True)
    config.update(run_func_name=run_func_name, run_func_kwargs=run_func_kwargs, **_NOBODY)
    if config.submit_target == "SLURM":
        slurm.check(config.slurm)
    with contextlib.suppress(RehearsalEnd):
        _call(config)


def resume_run(run_dir, changes=None, **submit_changes):
    """Goes on with the run in `run_dir` from its newest checkpoint, under its own settings but for `changes`.

    `submit_changes` are of the SubmitConfig.

    The function is called as by `submit_run`, with `submit_config.resuming` set; it finds its checkpoint by
    `newest_checkpoint`. UserError if the run is finished, still running, or cannot be resumed.
    """
    config, before = load_submit_config(run_dir), load_submit_config(run_dir)
    check_not_finished(run_dir)
    config.update(submit_changes)
    config.run_func_kwargs.update(changes or {})
    if not Workers.from_environment().first:
        return _run_silently(SubmitConfig(config, resuming=True))
    newest_checkpoint(run_dir)  # UserError where there is none.
    config.run_dir = before.run_dir = run_dir  # It may have been moved.
    if config.submit_target == "SLURM":
        slurm.check(config.slurm)
    with _alone(run_dir):
        if changes:
            _write_settings(config)
        if config.submit_target == "LOCAL":
            rewind(run_dir)
            return _run(SubmitConfig(config, resuming=True), take_back=lambda: _write_settings(before))
    return slurm.submit(config)  # Whose job may start at once.


def check_not_finished(run_dir):
    """UserError if the run in `run_dir` is complete."""
    if os.path.exists(os.path.join(run_dir, "_finished.txt")):
        network = final_network(run_dir)
        further = f"to train its network further, start a run with --load-network {network}" if network else ""
        raise UserError(f"{run_dir}: is finished; {further or 'there is nothing to resume'}")


def go_on(run_dir):
    """Does here what was submitted as the run in `run_dir`: starts it, or resumes it if it has got to a checkpoint."""
    if checkpoint_steps(run_dir):
        resume_run(run_dir, submit_target="LOCAL")
        return
    config = SubmitConfig(load_submit_config(run_dir), submit_target="LOCAL", run_dir=run_dir)
    if Workers.from_environment().first:
        with _alone(run_dir):
            _run(config)
    else:
        _run_silently(config)


def _call(config):
    module_name, function_name = config.run_func_name.rsplit(".", 1)
    return getattr(importlib.import_module(module_name), function_name)(config, **config.run_func_kwargs)


def _run_silently(config):
    """A worker that is not the first: no run directory, no output but for errors."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return _call(SubmitConfig(config, run_dir=None, **_NOBODY))


def _run(config, take_back=None):
    """take_back: called where a user's mistake ends the run before it begins."""
    run_func_name = config.run_func_name
    with contextlib.ExitStack() as afterwards, Logger(os.path.join(config.run_dir, "log.txt")):
        print(f"dnnlib: Running {run_func_name}() on localhost...")
        start = time.time()
        try:
            result = _call(config)
        except BaseException as error:
            refused = take_back and not config.get("begun") and _line_of(error) is not None
            if refused:
                afterwards.callback(take_back)
            raise SystemExit(_report_end(config.run_dir, error, refused)) from error
        took = format_time(time.time() - start)
        print(f"dnnlib: Finished {run_func_name}() in {took}.")
        with open_atomic(os.path.join(config.run_dir, "_finished.txt")) as f:
            f.write(f"finished in {took}\n")
    return result


def load_submit_config(path):
    """Reads back the `submit_config.txt` of a run directory, that file itself, or its twin `submit_config.pkl`.

    They hold plain values, no code.

    UserError if it is something else. Whoever calls the function it names has to see to it that it is a trusted one.
    """
    if os.path.isdir(path):
        path = os.path.join(path, "submit_config.txt")
    try:
        if path.endswith(".pkl"):
            settings = safe_pickle.load(path)
        else:
            with open(path, encoding="utf-8") as f:
                settings = ast.literal_eval(f.read(_MAX_SETTINGS))  # More are cut short, and no literal then.
        config = SubmitConfig(**settings)
        config.run_func_name, config.run_func_kwargs = str(config.run_func_name), EasyDict(config.run_func_kwargs)
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        raise UserError(f"{path}: not the settings of a run") from None
    return config


def format_settings(settings, prefix=""):
    """Nested dictionaries of settings -> lines `name = value`, names joined by dots."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            lines += format_settings(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name} = {value!r}")
    return lines


def _make_run_dir(root, desc):
    """Makes `root/NNNNN-desc`, NNNNN one more than the largest there, though other runs start at the same moment.

    The bare number is claimed first: mkdir fails if another process holds it. If that process has finished naming its
    directory between our listing and our mkdir, a second listing shows it.
    """
    os.makedirs(root, exist_ok=True)
    while True:
        number = f"{max(_numbers(root), default=-1) + 1:05d}"
        claim = os.path.join(root, number)
        try:
            os.mkdir(claim)
        except FileExistsError:
            continue
        if _numbers(root).count(int(number)) == 1:
            break
        os.rmdir(claim)
    if not desc:
        return claim
    run_dir = f"{claim}-{desc}"
    try:
        os.rename(claim, run_dir)
    except OSError:  # The name is too long, for example.
        os.rmdir(claim)
        raise
    return run_dir


@contextlib.contextmanager
def _alone(run_dir):
    """Keeps other processes from running the run in `run_dir` meanwhile, where the system can. UserError if one does.

    The lock ends with the process, however that ends.
    """
    if fcntl is None:
        yield
        return
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise UserError(f"{run_dir}: is being run by another process; stop that first") from None
    except OSError:
        pass  # A file system without locks.
    try:
        yield
    finally:
        os.close(folder)


def _commit():
    """The commit of this project's checkout, with "-dirty" where files differ from it; None if it is none."""
    words = ["git", "-C", SOURCE_ROOT, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": os.path.dirname(SOURCE_ROOT)}  # Not that of another one.
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _numbers(root):
    matches = (_NUMBERED.match(entry.name) for entry in os.scandir(root) if entry.is_dir())
    return [int(match[1]) for match in matches if match]


def _user_name():
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A user id without a name, as in containers.
        return "unknown"


def _plain(value):
    """EasyDicts, tuples and the like -> what `ast.literal_eval` reads back."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return value


def _write_settings(config):
    plain = _plain(config)
    with open_atomic(os.path.join(config.run_dir, "submit_config.txt")) as f:
        pprint.pprint(plain, stream=f, indent=4, width=160, compact=False, sort_dicts=False)
    with open_atomic(os.path.join(config.run_dir, "config.txt")) as f:
        f.write("\n".join(format_settings(config.run_func_kwargs)) + "\n")
    safe_pickle.dump(os.path.join(config.run_dir, "submit_config.pkl"), plain)


def _copy_source(target):
    """Copies the program: the Python files at the root of the tree and those of the packages beside them."""

    def is_package(name):
        return os.path.exists(os.path.join(SOURCE_ROOT, name, "__init__.py"))

    os.makedirs(target)
    for name in os.listdir(SOURCE_ROOT):
        path = os.path.join(SOURCE_ROOT, name)
        if name.endswith((".py", ".toml")) or name.startswith("requirements"):
            shutil.copy(path, target)
        elif os.path.isdir(path) and is_package(name):
            shutil.copytree(path, os.path.join(target, name), ignore=shutil.ignore_patterns("__pycache__"))


def _line_of(error):
    """What a run tells about the error that ended it: one line, or None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, SystemExit) else describe_error(error)


def _report_end(run_dir, error, refused):
    """Says on the console, in the log and in the directory why the run ended early. Returns the exit status.

    Nothing is written to the directory of a run that was refused. Writing may itself be what failed (a full disk, a
    deleted directory): then the console has to do.
    """
    line, details = _line_of(error), "".join(traceback.format_exception(error))
    stopped = isinstance(error, (Stopped, KeyboardInterrupt)) and not refused
    message = details if line is None else f"{line}\n" if stopped else f"error: {line}\n"
    sys.stdout.flush()
    sys.stderr.write(message)
    if not refused:
        name = "_stopped.txt" if stopped else "_failed.txt"
        with contextlib.suppress(OSError), open_atomic(os.path.join(run_dir, name)) as f:
            f.write(message if line is None or stopped else message + "\n" + details)
        print(
            f"dnnlib: This run {'was stopped' if stopped else 'failed'}; what it left is in {run_dir}", file=sys.stderr
        )
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 130 if isinstance(error, KeyboardInterrupt) else 1
