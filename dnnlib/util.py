"""Helpers for every part of the project: dictionaries, errors, durations, atomic files, progress bars."""

import contextlib
import importlib.util
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile


class EasyDict(dict):
    """A dictionary whose string keys can be used as attributes."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value


class UserError(Exception):
    """A mistake of the user. The message is one line that names the file or option and says what to do."""


class Stopped(UserError):
    """A run was stopped before its last iteration, in all workers at once."""


def cpu_count():
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def format_time(seconds):
    """Format a duration in seconds as `12s`, `2m 06s`, `1h 02m 03s` or `1d 02h 03m`."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    if s < 60 * 60:
        return f"{s // 60}m {s % 60:02}s"
    if s < 24 * 60 * 60:
        return f"{s // 3600}h {s // 60 % 60:02}m {s % 60:02}s"
    return f"{s // 86400}d {s // 3600 % 24:02}h {s // 60 % 60:02}m"


@contextlib.contextmanager
def atomic_path(path):
    """Yield the path of a temporary file, which replaces `path` if the block succeeds and is removed if it fails.

    The temporary file keeps the suffix, which may decide the file format.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; name a file to write")
    stem, suffix = os.path.splitext(name)
    if folder and not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder to write {name} to")
    handle, temporary = tempfile.mkstemp(prefix=f".{stem}-", suffix=suffix, dir=folder or ".")
    os.close(handle)
    os.chmod(temporary, 0o666 & ~_umask())
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = path  # The error of a full disk names no file.
        raise


@contextlib.contextmanager
def atomic_folder(path):
    """Yield a temporary folder, which is renamed to `path` if the block succeeds and removed if it fails.

    `path` must not exist or be an empty folder; see `check_output_folder`.
    """
    parent, name = os.path.split(_without_slash(path))
    temporary = tempfile.mkdtemp(prefix=f".{name}-", dir=parent or ".")
    os.chmod(temporary, 0o777 & ~_umask())
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path)  # Windows renames to no folder that exists, not even to an empty one.
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def open_atomic(path, mode="w", **kwargs):
    """Open a file for writing that appears as `path` only when it is complete and on disk."""
    if mode.startswith("w") and "b" not in mode:
        kwargs = {"encoding": "utf-8", "errors": "surrogateescape"} | kwargs
    with atomic_path(path) as temporary, open(temporary, mode, **kwargs) as f:
        yield f
        f.flush()
        os.fsync(f.fileno())


def flush_to_disk(path):
    """Wait until the file `path` is on disk."""
    with open(path, "r+b") as f:  # Windows flushes only files that are open for writing.
        os.fsync(f.fileno())


def check_output(path):
    """Raise UserError if no file can be written to `path`."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.basename(path):
        raise UserError(f"{path}: is a folder; name a file to write")
    while not os.path.exists(folder):  # Missing folders will be created.
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder):
        raise UserError(f"{path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path}: folder {folder} is not writable")


def check_output_folder(path):
    """Raise UserError if no new folder can be created at `path`. An empty folder may exist there."""
    if os.path.isdir(path):
        if os.listdir(path):
            raise UserError(f"{path}: is not empty; name a new folder")
    elif os.path.lexists(_without_slash(path)):
        raise UserError(f"{path}: is a file; name a folder to write")
    else:
        check_output(_without_slash(path))


def files_below(folder, leave_out=()):
    """Yield the paths of the files in `folder` and all folders below it, except those in `leave_out`, in sorted order.

    Links to folders are followed, but each folder is read once, as links may form loops. Hidden files and folders are
    left out. A folder that cannot be read is named on stderr.
    """

    def report(error):
        print(f"skipped: {error.filename}: {error.strerror}", file=sys.stderr)

    read = {os.path.realpath(path) for path in leave_out}
    for parent, folders, files in os.walk(folder, onerror=report, followlinks=True):
        if parent != folder and os.path.realpath(parent) in read:
            folders.clear()
            continue
        read.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, file) for file in sorted(files) if not file.startswith("."))


def make_parents(path):
    """Create the folder that contains `path`."""
    os.makedirs(os.path.dirname(_without_slash(path)) or ".", exist_ok=True)


def _without_slash(path):
    return os.fspath(path).rstrip("/" + os.sep)


def _umask():
    value = os.umask(0)
    os.umask(value)
    return value


def progress(iterable=None, **kwargs):
    """Return a tqdm bar, which is silent if stderr is not a terminal."""
    from tqdm import tqdm

    kwargs.setdefault("dynamic_ncols", True)
    return tqdm(iterable, file=sys.__stderr__, disable=None, **kwargs)


def run_script(*words, stdout=None):
    """Print and run the command `python *words`; exit with its status if it fails.

    Args:
        words: Path of a Python script and its arguments.
        stdout: As for `subprocess.run`. PIPE: the output is printed and returned.
    """
    print(f"\n$ python {shlex.join(words)}" + (" > /dev/null" if stdout == subprocess.DEVNULL else ""), flush=True)
    done = subprocess.run([sys.executable, *words], stdout=stdout, text=True)
    print(done.stdout or "", end="", flush=True)
    if done.returncode:  # A signal ended the script: exit as a shell does.
        sys.exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    return done.stdout


def printable(text, length=120):
    """Return untrusted `text` as one line of at most `length` characters without control characters."""
    try:
        text = str(text)
    except ValueError:  # An integer with thousands of digits.
        text = type(text).__name__
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: length + 1])
    return line if len(line) <= length else line[: length - 3] + "..."


def require(module, what, source):
    """Raise UserError if `module`, which `what` needs, is not installed. `source`: what follows `pip install`."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{what} needs {module}: pip install {source}")


def words_of(error):
    """Return the message of a library's exception, or its class name, as part of a line."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def describe_error(error):
    """Return the line that tells a user about `error`, or None for a bug, which needs a traceback."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory ({error})" if str(error) else "out of memory"
    return None


def cli_main(main):
    """Run `main()` as a command: errors of the user or the system end in one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # File names may be any bytes.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # The reader of the output has closed it (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = describe_error(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
