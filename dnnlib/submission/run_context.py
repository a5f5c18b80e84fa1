"""What a run knows about itself while it runs."""

import os
import sys
import time

from ..util import format_time, open_atomic

LINE_INTERVAL = 60  # Seconds between the lines of `step` in a log.


class RunContext:
    """Clock, progress and end of a run. Use as a context manager; `run.txt` is kept up to date through it."""

    def __init__(self, submit_config, max_iter=None):
        """`max_iter`: the number of iterations (or epochs), for the progress bar and the estimate of the time left."""
        from tqdm import tqdm

        self.run_dir = submit_config.run_dir
        self.max_iter = max_iter
        self._start = self._last_update = self._last_line = time.time()
        self._info = {
            "run_name": submit_config.run_name,
            "host_name": submit_config.host_name,
            "user_name": submit_config.user_name,
            "command": submit_config.command,
            "start_time": _date(self._start),
        }
        self._bar = tqdm(total=max_iter, file=sys.__stderr__, disable=not sys.__stderr__.isatty(), dynamic_ncols=True)

    def __enter__(self):
        self._write("running")
        return self

    def __exit__(self, kind, error, trace):
        self._bar.close()
        try:
            self._write("finished" if kind is None else f"failed: {kind.__name__}: {str(error).partition(chr(10))[0]}")
        except OSError:
            if kind is None:
                raise

    def path(self, name):
        """Path of the file `name` in the run directory."""
        return os.path.join(self.run_dir, name)

    def time_since_start(self):
        """Seconds since the run began."""
        return time.time() - self._start

    def time_since_last_update(self):
        """Seconds since the last `update`."""
        return time.time() - self._last_update

    def step(self, iteration):
        """Moves the progress bar to `iteration`, or prints a line a minute where there is no terminal. Cheap."""
        if not self._bar.disable:
            self._bar.update(iteration - self._bar.n)
        elif time.time() - self._last_line > LINE_INTERVAL:
            self._last_line = time.time()
            print(
                f"{iteration} of {self.max_iter}, about {format_time(self._seconds_left(iteration))} left", flush=True
            )

    def update(self, iteration, **values):
        """Records where the run stands, in `run.txt`: at every evaluation, say. `values` are shown there too."""
        self._last_update = time.time()
        self._info.update(values, iteration=iteration)
        if self.max_iter and iteration:
            self._info["time_left"] = format_time(self._seconds_left(iteration))
        self._write("running")

    def print(self, text):
        """Prints a line without breaking the progress bar."""
        self._bar.clear()
        print(text, flush=True)
        self._last_line = time.time()

    def should_stop(self):
        """True once somebody has put a file `abort.txt` into the run directory."""
        return os.path.exists(self.path("abort.txt"))

    def _seconds_left(self, iteration):
        return self.time_since_start() * (self.max_iter - iteration) / max(iteration, 1)

    def _write(self, status):
        self._info.update(status=status, last_update=_date(time.time()))
        with open_atomic(self.path("run.txt")) as f:
            f.writelines(f"{name}: {value}\n" for name, value in self._info.items())


def _date(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
