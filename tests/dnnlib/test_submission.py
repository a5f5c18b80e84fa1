"""Run directories, settings, logs and failures."""

import os
import pickle
import re
import subprocess
import sys

import pytest

import dnnlib
from dnnlib import submission
from dnnlib.submission import __main__, submit


def succeed(submit_config, value):
    print(f"value {value}")
    with dnnlib.RunContext(submit_config, max_iter=2) as ctx:
        ctx.update(1, loss=0.5)
    return value


def fail(submit_config, error):
    with dnnlib.RunContext(submit_config):
        print("before", file=sys.stderr)
        raise {"user": dnnlib.UserError("a.png: broken"), "disk": OSError(28, "No space left on device", "b.png")}.get(
            error, ZeroDivisionError("a bug")
        )


def refuse(submit_config, width):
    raise dnnlib.UserError(f"a width of {width} is too much")


def stop(submit_config):
    with dnnlib.RunContext(submit_config):
        raise dnnlib.Stopped("stopped by SIGINT")


def resume_itself(submit_config):
    with dnnlib.RunContext(submit_config):
        keep_checkpoint(submit_config.run_dir)
        submission.resume_run(submit_config.run_dir)


def keep_checkpoint(run_dir):
    os.makedirs(f"{run_dir}/checkpoints", exist_ok=True)
    submission.resume.complete_checkpoint(run_dir, 1, {})


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "runs_of_the_test", sys.modules[__name__])
    monkeypatch.chdir(tmp_path)


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def test_files_of_a_run(capsys):
    config = dnnlib.SubmitConfig(run_desc="first")
    settings = {"value": (1, {"a": 2.5, "b": None})}
    assert dnnlib.submit_run(config, "runs_of_the_test.succeed", **settings) == settings["value"]
    out = capsys.readouterr().out
    assert re.fullmatch(
        r"dnnlib: Running runs_of_the_test\.succeed\(\) on localhost\.\.\.\nvalue .*\n"
        r"dnnlib: Finished runs_of_the_test\.succeed\(\) in 0s\.\n",
        out,
    )
    run_dir = "results/00000-first"
    assert read(run_dir, "log.txt") == out
    assert "status: finished" in read(run_dir, "run.txt") and "loss: 0.5" in read(run_dir, "run.txt")
    assert read(run_dir, "config.txt") == "value = (1, {'a': 2.5, 'b': None})\n"
    loaded = submission.load_submit_config(f"{run_dir}/submit_config.txt")
    with open(f"{run_dir}/submit_config.pkl", "rb") as f:
        assert pickle.load(f) == dict(loaded)
    assert loaded.run_func_kwargs == settings and loaded.run_func_name == "runs_of_the_test.succeed"
    assert {"config.py", "dnnlib", "requirements.txt"} <= set(os.listdir(f"{run_dir}/src"))
    assert not os.path.exists(f"{run_dir}/src/tests")


@pytest.mark.parametrize(
    "error,line", [("user", "error: a.png: broken"), ("disk", "error: b.png: No space left on device"), ("bug", None)]
)
def test_failed_run(capsys, error, line):
    with pytest.raises(SystemExit) as end:
        dnnlib.submit_run(dnnlib.SubmitConfig(run_desc="x"), "runs_of_the_test.fail", error=error)
    assert end.value.code == 1
    out, err = capsys.readouterr()
    if line:
        assert err.splitlines()[1] == line and "Traceback" not in err
    else:
        assert "Traceback" in err and "ZeroDivisionError: a bug" in err
    assert "Finished" not in out
    run_dir = "results/00000-x"
    assert not os.path.exists(f"{run_dir}/_finished.txt")
    assert "Traceback" in read(run_dir, "_failed.txt")  # The details, for a report.
    assert "status: failed" in read(run_dir, "run.txt")
    assert read(run_dir, "log.txt").count(line or "ZeroDivisionError: a bug") == 1


def test_refused_run_leaves_nothing(capsys):
    with pytest.raises(SystemExit) as end:
        dnnlib.submit_run(dnnlib.SubmitConfig(run_desc="x"), "runs_of_the_test.refuse", width=3)
    assert end.value.code == 1 and os.listdir("results") == []
    assert capsys.readouterr().err == "error: a width of 3 is too much\n"
    with pytest.raises(OSError):
        dnnlib.submit_run(dnnlib.SubmitConfig(run_desc="x" * 300), "runs_of_the_test.refuse", width=3)
    assert os.listdir("results") == []


def test_refused_resumption_keeps_the_settings(capsys):
    with pytest.raises(SystemExit):
        dnnlib.submit_run(dnnlib.SubmitConfig(), "runs_of_the_test.stop")
    keep_checkpoint("results/00000")
    config = read("results/00000", "submit_config.txt").replace("runs_of_the_test.stop", "runs_of_the_test.refuse")
    config = config.replace("'run_func_kwargs': {}", "'run_func_kwargs': {'width': 1}")
    with open("results/00000/submit_config.txt", "w") as f:
        f.write(config)
    with pytest.raises(SystemExit):
        submission.resume_run("results/00000", {"width": 4})
    assert "a width of 4 is too much" in capsys.readouterr().err
    assert submission.load_submit_config("results/00000").run_func_kwargs == {"width": 1}
    assert not os.path.exists("results/00000/_failed.txt")


def test_stopped_run(capsys):
    with pytest.raises(SystemExit) as end:
        dnnlib.submit_run(dnnlib.SubmitConfig(), "runs_of_the_test.stop")
    assert end.value.code == 1
    said = "stopped by SIGINT\ndnnlib: This run was stopped; what it left is in results/00000\n"
    assert capsys.readouterr().err == said
    assert read("results/00000", "_stopped.txt") == "stopped by SIGINT\n"
    assert "status: stopped: stopped by SIGINT" in read("results/00000", "run.txt")
    assert not os.path.exists("results/00000/_failed.txt")


def test_running_run_is_not_resumed(capsys):
    with pytest.raises(SystemExit):
        dnnlib.submit_run(dnnlib.SubmitConfig(), "runs_of_the_test.resume_itself")
    assert "results/00000: is being run by another process; stop that first" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # The lock ended with the run.
        submission.resume_run("results/00000")
    assert "results/00000: is being run by another process; stop that first" in capsys.readouterr().err


def test_clock_of_a_resumed_run(tmp_path):
    names = {"run_dir": str(tmp_path), "run_name": "", "host_name": "", "user_name": "", "command": ""}
    with dnnlib.RunContext(dnnlib.SubmitConfig(names), elapsed=1000.0) as ctx:
        assert 1000 <= ctx.time_since_start() < 1100


def test_commit_is_of_this_checkout(monkeypatch, tmp_path):
    folder = tmp_path / "checkout" / "program"
    folder.mkdir(parents=True)
    for words in (["init"], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", tmp_path / "checkout", *words], check=True, capture_output=True)
    monkeypatch.setattr(submit, "SOURCE_ROOT", str(folder))
    assert submit._commit() is None
    monkeypatch.setattr(submit, "SOURCE_ROOT", str(folder.parent))
    assert re.fullmatch("[0-9a-f]{12}", submit._commit())


def test_next_run_number(tmp_path):
    for name in ("00007-old", "notes", "00003", "00009.txt"):
        os.makedirs(tmp_path / "results" / name)
    assert submit._make_run_dir("results", "n2n") == "results/00008-n2n"
    assert submit._make_run_dir("results", "") == "results/00009"


MAKE_MANY = """
import os, sys
from dnnlib.submission import submit
print("ready", flush=True)
while not os.path.exists("go"):
    pass
for _ in range(20):
    submit._make_run_dir("results", "run" + sys.argv[1])
"""


def test_simultaneous_runs_get_different_numbers(tmp_path):
    environment = os.environ | {"PYTHONPATH": submit.SOURCE_ROOT}
    words = [sys.executable, "-c", MAKE_MANY]
    processes = [subprocess.Popen([*words, str(i)], stdout=subprocess.PIPE, env=environment) for i in range(4)]
    for process in processes:
        assert process.stdout.readline()
    (tmp_path / "go").touch()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert sorted(int(name[:5]) for name in os.listdir("results")) == list(range(80))
    assert all("-run" in name for name in os.listdir("results"))


@pytest.mark.parametrize(
    "text,message",
    [
        ("{'run_func_name': 'os.system', 'run_func_kwargs': {}}", "os.system is not a function of this project"),
        ("__import__('os').mkdir('trap')", "not the settings of a run"),
        ("[1", "not the settings of a run"),
        ("[" + "[]," * 100_000 + "]", "not the settings of a run"),
        (pickle.dumps([1]), "not the settings of a run"),
    ],
)
def test_hostile_settings(tmp_path, monkeypatch, text, message):
    name = "submit_config.txt"
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr(sys, "argv", ["submission", name])
    with pytest.raises(dnnlib.UserError, match=message):
        __main__.main()
    assert os.listdir(tmp_path) == [name]
