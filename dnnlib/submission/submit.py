"""Creation of run directories, and runs of a function in them."""

import contextlib
import getpass
import importlib
import os
import platform
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
    fcntl = None  # type: ignore[assignment]

from ..util import Stopped, UserError, describe_error, format_time, open_atomic
from . import slurm
from .logger import Logger
from .resume import checkpoint_steps, final_network, newest_checkpoint, rewind
from .run_context import RehearsalEnd
from .settings import SubmitConfig, load_submit_config, write_settings
from .workers import Workers

SOURCE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_NOBODY = {"run_name": "", "host_name": "", "user_name": "", "command": ""}  # For workers without a run directory.
_NUMBERED = re.compile(r"(\d{5,})(-.*)?$")


def submit_run(submit_config, run_func_name, **run_func_kwargs):
    """Call `function(submit_config, **run_func_kwargs)` in a new run directory.

    A run begins when the function enters its `RunContext`. If a mistake of the user ends it before, its directory is
    removed. A complete run leaves `_finished.txt`, a stopped one `_stopped.txt`, a failed one `_failed.txt`.

    Args:
        submit_config: Plain Python values; they are written to `submit_config.txt`.
        run_func_name: "module.function".
        run_func_kwargs: Plain Python values.

    Raises:
        SystemExit: The run is not complete. The status is 1, or 130 if Ctrl-C stopped a run without checkpoints.
    """
    config = SubmitConfig(**submit_config)
    config.run_func_name, config.run_func_kwargs = run_func_name, run_func_kwargs
    if not Workers.from_environment().first:
        return _run_silently(config)
    if config.submit_target == "SLURM":
        slurm.check(config.slurm)
    config.run_dir = _make_run_dir(config.run_dir_root, config.run_desc)
    config.run_name = os.path.basename(config.run_dir)
    config.run_id = int(config.run_name.partition("-")[0])
    config.host_name, config.user_name = platform.node(), _user_name()
    config.command, config.commit = shlex.join([os.path.basename(sys.executable), *sys.argv]), _commit()
    write_settings(config)
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
    """Call "module.function" without a run directory, up to where the run begins; raise UserError if it is refused.

    With `submit_config.resuming`, this checks resuming the run in `submit_config.run_dir`, which stays unchanged.
    """
    config = SubmitConfig({"run_dir": None} | submit_config, rehearsal=True)
    config.update(run_func_name=run_func_name, run_func_kwargs=run_func_kwargs, **_NOBODY)
    if config.submit_target == "SLURM":
        slurm.check(config.slurm)
    with contextlib.suppress(RehearsalEnd):
        _call(config)


def resume_run(run_dir, changes=None, **submit_changes):
    """Resume the run in `run_dir` from its newest checkpoint.

    The function is called as by `submit_run`, with `submit_config.resuming` set. It finds its checkpoint with
    `newest_checkpoint`.

    Args:
        changes: Changes of the keyword arguments of the function.
        submit_changes: Changes of the SubmitConfig.

    Raises:
        UserError: The run is finished, still running, or cannot be resumed.
    """
    config, before = load_submit_config(run_dir), load_submit_config(run_dir)
    check_not_finished(run_dir)
    config.update(submit_changes)
    config.run_func_kwargs.update(changes or {})
    if not Workers.from_environment().first:
        return _run_silently(SubmitConfig(config, resuming=True))
    newest_checkpoint(run_dir)  # Raises UserError if there is none.
    config.run_dir = before.run_dir = run_dir  # It may have been moved.
    if config.submit_target == "SLURM":
        slurm.check(config.slurm)
    with _alone(run_dir):
        if changes:
            write_settings(config)
        if config.submit_target == "LOCAL":
            rewind(run_dir)
            return _run(SubmitConfig(config, resuming=True), take_back=lambda: write_settings(before))
    return slurm.submit(config)  # Without the lock, because the job may start at once.


def check_not_finished(run_dir):
    """Raise UserError if the run in `run_dir` is complete."""
    if os.path.exists(os.path.join(run_dir, "_finished.txt")):
        network = final_network(run_dir)
        further = f"to train its network further, start a run with --load-network {network}" if network else ""
        raise UserError(f"{run_dir}: is finished; {further or 'there is nothing to resume'}")


def go_on(run_dir):
    """Start the submitted run in `run_dir` in this process, or resume it if it has a checkpoint."""
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
    """Run a worker other than the first: it has no run directory and prints only errors."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return _call(SubmitConfig(config, run_dir=None, **_NOBODY))


def _run(config, take_back=None):
    """Run in `config.run_dir`; `take_back` is called if a mistake of the user ends the run before it begins."""
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


def _make_run_dir(root, desc):
    """Create `root/NNNNN-desc`, where NNNNN is one more than the largest number there, even if other runs start now.

    The directory `root/NNNNN` is created first, which fails if another process has created it. If that process has
    renamed it already, a second listing shows two directories of that number.
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
    except OSError:  # For example, the name is too long.
        os.rmdir(claim)
        raise
    return run_dir


@contextlib.contextmanager
def _alone(run_dir):
    """Context in which no other process can run the run in `run_dir`; raise UserError if one does already.

    The lock ends with the process. Systems without file locks have no such protection.
    """
    if sys.platform == "win32" or fcntl is None:
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
    """Return the commit of this project, with "-dirty" if files differ from it; None outside a git checkout."""
    words = ["git", "-C", SOURCE_ROOT, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": os.path.dirname(SOURCE_ROOT)}  # No checkout around it.
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
    except (ImportError, KeyError, OSError):  # A user id without a name, as in containers.
        return "unknown"


def _copy_source(target):
    """Copy the program: the Python files at the root of the tree and its packages."""

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
    """Return the line that tells a user about the error that ended a run, or None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, SystemExit) else describe_error(error)


def _report_end(run_dir, error, refused):
    """Report on the console, in the log and in the run directory why the run ended early; return the exit status.

    A refused run leaves no files. If the directory cannot be written (full disk, deleted), the console must suffice.
    """
    line, details = _line_of(error), "".join(traceback.format_exception(error))
    stopped = isinstance(error, (Stopped, KeyboardInterrupt)) and not refused
    message = f"{line}\n" if stopped else f"error: {line}\n"
    if line is None:
        message = details
    sys.stdout.flush()
    sys.stderr.write(message)
    if not refused:
        name = "_stopped.txt" if stopped else "_failed.txt"
        with contextlib.suppress(OSError, UserError), open_atomic(os.path.join(run_dir, name)) as f:
            f.write(message if line is None or stopped else message + "\n" + details)
        how = "was stopped" if stopped else "failed"
        print(f"dnnlib: This run {how}; what it left is in {run_dir}", file=sys.stderr)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 130 if isinstance(error, KeyboardInterrupt) else 1
