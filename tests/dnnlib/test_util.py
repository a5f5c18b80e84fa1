"""Durations, atomic files and error messages."""

import os

import pytest

import dnnlib
from dnnlib import util


@pytest.mark.parametrize(
    "seconds,text",
    [(0.4, "0s"), (12, "12s"), (59.6, "1m 00s"), (126, "2m 06s"), (3723, "1h 02m 03s"), (93784, "1d 02h 03m")],
)
def test_format_time(seconds, text):
    assert dnnlib.format_time(seconds) == text


def test_file_appears_when_complete(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), dnnlib.open_atomic(path) as f:
        f.write("half")
        f.flush()
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]
    with dnnlib.open_atomic(path) as f:
        f.write("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~util._umask()


def test_disk_error_names_the_file(tmp_path):
    with pytest.raises(OSError) as error, dnnlib.open_atomic(tmp_path / "file.txt"):
        raise OSError(28, "No space left on device")
    assert util.describe_error(error.value) == f"{tmp_path / 'file.txt'}: No space left on device"


def test_printable():
    assert util.printable("größe\n\x1b[31m\u202e\udcff") == r"größe\n\x1b[31m\u202e\udcff"
    assert len(util.printable("a" * 10**6)) == 120


@pytest.mark.parametrize("path", ["missing/file.txt", "."])
def test_path_that_cannot_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dnnlib.UserError), dnnlib.open_atomic(path):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error,status,line",
    [
        (dnnlib.UserError("x: wrong"), 1, "error: x: wrong\n"),
        (FileNotFoundError(2, "No such file or directory", "y"), 1, "error: y: No such file or directory\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_errors_end_in_one_line(capsys, error, status, line):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        dnnlib.cli_main(main)
    assert end.value.code == status and capsys.readouterr().err == line


def test_bug_keeps_its_traceback():
    with pytest.raises(KeyError):
        dnnlib.cli_main(lambda: {}["missing"])


def test_easy_dict():
    d = dnnlib.EasyDict(a=1)
    d.b = 2
    assert dict(d) == {"a": 1, "b": 2} and not hasattr(d, "c")
