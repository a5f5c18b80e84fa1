"""Copy of the output of a run in its log file."""

import contextlib
import sys


class Logger:
    """Context in which everything written to stdout and stderr is also appended to the file `path`."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self._file = open(self.path, "a", encoding="utf-8", errors="surrogateescape", buffering=1)
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Tee(stream, self._file) for stream in self._streams)
        return self

    def __exit__(self, *exc):
        sys.stdout, sys.stderr = self._streams
        try:
            self._file.close()
        except OSError as error:
            print(f"error: {self.path}: {error.strerror}", file=sys.stderr)


class _Tee:
    def __init__(self, stream, file):
        self._stream, self._file = stream, file

    def write(self, text):
        self._stream.write(text)
        with contextlib.suppress(OSError):  # A full disk must not stop the run here: the console has the text.
            self._file.write(text)
        return len(text)

    def flush(self):
        self._stream.flush()

    def __getattr__(self, name):
        return getattr(self._stream, name)
