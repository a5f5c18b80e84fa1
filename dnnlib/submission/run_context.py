"""Clock, progress, status and stop requests of a run."""

import os
import signal
import sys
import threading
import time

from ..util import Stopped, UserError, format_time, open_atomic

LINE_INTERVAL = 60  # Seconds between two progress lines.


class RehearsalEnd(Exception):
    """Raised at the beginning of a rehearsed run; see `submit.rehearse`."""


class RunContext:
    """Context manager of a running run, which keeps its `run.txt` up to date.

    Workers other than the first have no run directory; there it only handles signals.
    """

    def __init__(self, submit_config, max_iter=None, first_iter=0, elapsed=0.0, stoppable=False):
        """Prepare the context.

        Args:
            max_iter: Number of iterations, for the progress bar and the estimated time left.
            first_iter: Number of iterations done before the run was resumed.
            elapsed: Seconds that the run took before it was resumed.
            stoppable: Whether the first SIGINT or SIGTERM only sets `stop_reason`; the second ends the program at once.
        """
        from tqdm import tqdm

        self.run_dir, self._submit_config = submit_config.run_dir, submit_config
        self.max_iter, self._first_iter = max_iter, first_iter
        self._resumed = self._last_update = self._last_line = time.time()
        self._start = self._resumed - elapsed
        self._stoppable, self._handlers, self._signal = stoppable, {}, None
        self._info = {
            "run_name": submit_config.run_name,
            "host_name": submit_config.host_name,
            "user_name": submit_config.user_name,
            "command": submit_config.command,
            "start_time": _date(self._start),
        }
        self._bar = tqdm(
            total=max_iter,
            initial=first_iter,
            file=sys.__stderr__,
            disable=not self.run_dir or None,  # None: silent if stderr is not a terminal.
            dynamic_ncols=True,
        )

    def __enter__(self):
        if self._submit_config.get("rehearsal"):
            raise RehearsalEnd
        self._submit_config.begun = True
        self._write("running")
        if self._stoppable and threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind, error, trace):
        self._bar.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        first_line = str(error).partition("\n")[0]
        try:
            if kind is None:
                self._write("finished")
            elif issubclass(kind, (Stopped, KeyboardInterrupt)):
                self._write(f"stopped: {first_line or 'interrupted'}")
            else:
                self._write(f"failed: {kind.__name__}: {first_line}")
        except (OSError, UserError):  # UserError: the run directory was deleted.
            if kind is None:
                raise

    def path(self, name):
        """Return the path of the file `name` in the run directory."""
        return os.path.join(self.run_dir, name)

    def time_since_start(self):
        """Return the seconds since the run began."""
        return time.time() - self._start

    def time_since_last_update(self):
        """Return the seconds since the last `update`."""
        return time.time() - self._last_update

    def step(self, iteration):
        """Move the progress bar to `iteration`; without a terminal, print a line every minute."""
        if not self._bar.disable:
            self._bar.update(iteration - self._bar.n)
        elif time.time() - self._last_line > LINE_INTERVAL:
            self._last_line = time.time()
            print(
                f"{iteration} of {self.max_iter}, about {format_time(self._seconds_left(iteration))} left", flush=True
            )

    def update(self, iteration, **values):
        """Write the iteration, the estimated time left and `values` to `run.txt`."""
        self._last_update = time.time()
        self._info.update(values, iteration=iteration)
        if self.max_iter and iteration:
            self._info["time_left"] = format_time(self._seconds_left(iteration))
        self._write("running")

    def print(self, text):
        """Print a line without breaking the progress bar."""
        self._bar.clear()
        print(text, flush=True)
        self._last_line = time.time()

    def stop_reason(self):
        """Return the name of the signal that asks the run to stop, "abort.txt" if that file exists, or None."""
        if self._signal or not self.run_dir:
            return self._signal
        return "abort.txt" if os.path.exists(self.path("abort.txt")) else None

    def _on_signal(self, number, frame):
        self._signal = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)  # The second signal ends the program.
        self.print(f"{self._signal}: stopping after this iteration; once more ends at once")

    def _seconds_left(self, iteration):
        done = max(iteration - self._first_iter, 1)
        return (time.time() - self._resumed) * (self.max_iter - iteration) / done

    def _write(self, status):
        if not self.run_dir:
            return
        self._info.update(status=status, last_update=_date(time.time()))
        with open_atomic(self.path("run.txt")) as f:
            f.writelines(f"{name}: {value}\n" for name, value in self._info.items())


def _date(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
