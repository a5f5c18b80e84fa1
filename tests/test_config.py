"""The command lines: instant help, every setting printed, usage errors with status 2."""

import glob
import os
import pkgutil
import re
import runpy
import shlex
import sys

import pytest
from conftest import ROOT

import config
import config_mri
import dnnlib
from dnnlib import launch, options, submission
from dnnlib.settings import Setting


@pytest.mark.parametrize("script", ["config.py", "config_mri.py", "dataset_tool_tf.py", "dataset_tool_mri.py"])
def test_help_does_without_tensorflow(command, script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tensorflow'] = None")
    done = command(script, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {script}")


@pytest.fixture
def settings_of(monkeypatch):
    """Function of a module and a command line -> {name: value as text} of what it would do."""

    def settings_of(module, *words):
        submitted = []
        monkeypatch.setattr(launch, "check_exist", lambda needs: None)
        monkeypatch.setattr(launch, "submit_run", lambda *args, **kwargs: submitted.extend([args[0], kwargs]))
        monkeypatch.setattr(launch, "rehearse", lambda *args, **kwargs: None)
        monkeypatch.setattr(pkgutil, "resolve_name", lambda name: lambda **kwargs: submitted.append(kwargs))
        module.main([str(word) for word in words])
        lines = [line for settings in submitted for line in submission.format_settings(settings)]
        return dict(line.split(" = ", 1) for line in lines)

    return settings_of


def test_defaults_are_the_published_ones(settings_of):
    plain, train = settings_of(config), settings_of(config, "train")
    assert plain == train
    expected = {
        "run_dir_root": "'results'",
        "run_desc": "'autoencoder-1gpu-L-n2n'",
        "iteration_count": "300000",
        "ramp_down_part": "0.3",
        "eval_interval": "1000",
        "minibatch_size": "4",
        "crop_size": "256",
        "learning_rate": "0.0003",
        "noise": "'gaussian'",
        "noise2noise": "True",
        "beta2": "0.99",
        "noise_settings.train_sigma": "(0.0, 50.0)",
        "validation_dir": "'datasets/kodak'",
    }
    assert expected.items() <= plain.items()


@pytest.mark.parametrize(
    "flag,iterations", {"": 500000, "=t": 500000, "=y": 500000, "=f": 300000, "=n": 300000}.items()
)
def test_long_train_has_a_type(settings_of, flag, iterations):
    assert settings_of(config, "train", f"--long-train{flag}")["iteration_count"] == str(iterations)


def test_a_preset_gives_way_to_options_only(settings_of):
    settings = settings_of(config, "train", "--preset", "quick", "--crop-size", 32)
    expected = {"iteration_count": "6500", "crop_size": "32", "learning_rate": "0.001", "optimizer": "'muon'"}
    assert expected.items() <= settings.items()


def test_options_override_settings_and_common_ones_stand_anywhere(settings_of):
    words = ["--desc", "a", "train", "--noise2noise=false", "--noise", "poisson", "--long-train", "--num-gpus", 2]
    words += ["--iterations", 7, "--run-dir-root", "elsewhere", "--validation-dir", "set14", "--seed", 3]
    settings = settings_of(config, *words)
    expected = {"run_desc": "'autoencoder-a-2gpu-L-n2c'", "iteration_count": "7", "eval_interval": "5000", "seed": "3"}
    expected |= {"run_dir_root": "'elsewhere'", "validation_dir": "'datasets/set14'"}
    assert (expected | {"noise_settings.train_lambda": "(0.001, 50.0)"}).items() <= settings.items()


@pytest.mark.parametrize(
    "words,loss", [(["text"], "l1"), (["text", "--loss", "l2"], "l2"), (["gaussian", "--loss=annealed"], "annealed")]
)
def test_the_loss_is_the_noise_s_own_unless_given(settings_of, words, loss):
    assert settings_of(config, "train", "--noise", *words)["loss"] == repr(loss)


def test_mri_options(settings_of):
    settings = settings_of(config_mri, "--num-epochs", 2, "--corrupt-targets=false", "--p-at-edge", 0.05)
    assert settings["run_desc"] == "'mri-ixi_s-n2c_-ep2-lr0.001000-Cbs0.050000-At64-Pfspec-1gpu-L'"
    assert settings["p_at_edge"] == "0.05"
    published = settings_of(config_mri)
    assert published["run_desc"] == "'mri-ixi_s-n2n_-ep300-lr0.001000-Cbs0.025000-At64-Pfspec-1gpu-L'"
    assert published["beta1_rampdown"] == "0.5"


@pytest.mark.parametrize("folder", ["BSDS300/images/test", "BSDS300-images/BSDS300/images/test", "bsd300"])
def test_bsd300_is_found_where_it_is_unpacked(settings_of, monkeypatch, tmp_path, folder):
    (tmp_path / "datasets" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert settings_of(config, "train", "--validation-dir", "bsd300")["validation_dir"] == f"'datasets/{folder}'"


def test_commands_in_the_documentation_are_accepted(settings_of):
    """Including the division of SLURM's minibatch over the nodes."""
    texts = [open(path, encoding="utf-8").read() for path in [f"{ROOT}/README.md", *glob.glob(f"{ROOT}/docs/*.md")]]
    lines = re.findall(r"^    +python (config|config_mri)\.py(.*)", "\n".join(texts).replace("\\\n", " "), re.M)
    modules, count = {"config": config, "config_mri": config_mri}, 0
    for name, rest in lines:
        words = shlex.split(rest.replace("...", "dots"), comments=True)
        if not {"--resume", "--local-workers", "--task"} & {*words}:  # They need a run, or become workers.
            count += bool(settings_of(modules[name], *words))
    assert count > 10


FILES = [path for part in ("", "benchmarks/", "networks/") for path in glob.glob(f"{ROOT}/{part}*.py")]
SCRIPTS = [os.path.relpath(path, ROOT) for path in FILES if '\nif __name__ == "__main__"' in open(path).read()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.syspath_prepend(os.path.dirname(os.path.join(ROOT, script)))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(os.path.join(ROOT, script), run_name="__main__")
    assert not end.value.code and capsys.readouterr().out.startswith("usage: ")


def test_paths_expand_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for program in (config.PROGRAM, config_mri.PROGRAM):
        for setting in (setting for command in program.commands.values() for setting in command.settings):
            if re.search("FILE|DIR|PATH", str(setting.metavar)) and setting.name != "networks":
                assert setting.type("~/x") == "/home/someone/x", setting.name
    parser = options.ArgumentParser()
    parser.add_argument("--out", metavar="FILE")
    assert parser.parse_args(["--out=~/x"]).out == "/home/someone/x"


def test_presets_hold_settings_only():
    for preset in config.PRESETS.values():
        assert preset.keys() <= config.PROGRAM.defaults("train").keys()


def test_strengths_are_settings(settings_of):
    words = ["--noise", "poisson-gaussian", "--train-sigma", 0, 55, "--lambda", 7]
    for command in (["train"], ["validate", "--network-snapshot", "a.pickle"]):
        settings = settings_of(config, *command, *words)
        assert settings["noise_settings.train_sigma"] == "[0.0, 55.0]" and settings["noise_settings.lambda"] == "7.0"
        assert settings["noise_settings.train_lambda"] == "(1.0, 100.0)" and "train_sigma" not in settings


def test_a_setting_is_declared_once(monkeypatch, capsys):
    """A new setting has an option, a line in the help and an argument of its function, by its declaration alone."""
    group = config.PROGRAM.commands["export"].groups["network"]
    monkeypatch.setitem(
        config.PROGRAM.commands["export"].groups, "network", [*group, Setting("depth", 5, "Depth.", int)]
    )
    words = ["export", "--network-snapshot", "a", "--out", "b"]
    assert config.PROGRAM.parse(words)[1].depth == 5 and config.PROGRAM.parse([*words, "--depth", "7"])[1].depth == 7
    with pytest.raises(SystemExit):
        config.main(["export", "--help"])
    assert re.search(r"--depth DEPTH +Depth\. Default: 5\.", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words,message",
    [
        (["train", "--noise2noise=maybe"], "config.py train: error: argument --noise2noise: 'maybe' is neither true"),
        (["train", "--crop-size", "100"], "argument --crop-size: '100' is not a positive multiple of 32"),
        (["train", "--iterations", "0"], "argument --iterations: '0' is not a whole number from 1"),
        (["train", "--loss", "l3"], "argument --loss: invalid choice: 'l3'"),
        (["train", "--noise", "gausian"], "did you mean 'gaussian'?"),
        (["train", "--desc", "a/b"], "argument --desc: 'a/b' is part of a folder's name and cannot hold '/'"),
        (["compare", "--image", "a", "--out", "b", "salt=c.pickle"], "'salt=c.pickle' is not NOISE=FILE"),
        (["preview", "--image", "a.png", "--noise", "none"], "argument --noise: invalid choice: 'none'"),
        (["trian"], "config.py train: error: there is no command 'trian'; did you mean 'train'?"),
        (["exprt", "--out", "a"], "config.py export: error: there is no command 'exprt'; did you mean 'export'?"),
        (
            ["infer-image", "--imge=a.png"],
            "config.py infer-image: error: there is no option --imge; did you mean --image?",
        ),
        (["--nosie", "text"], "config.py train: error: there is no option --nosie; did you mean --noise?"),
        (["infer-image"], "error: the following arguments are required: --image, --out"),
    ],
)
def test_usage_errors(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["config.py"])
    with pytest.raises(SystemExit) as end:
        config.main(words)
    assert end.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "module,words,message",
    [
        (config, [], "datasets/imagenet_val_raw.tfrecords: no such file or folder; dataset_tool_tf.py makes it"),
        (
            config,
            ["train", "--sigma=3", "--noise=text"],
            "--sigma: does not go with --noise text; its options are --train-p, ",
        ),
        (config, ["train", "--noise=none", "--noise2noise=false"], "--noise2noise=false takes clean targets"),
        (config, ["train", "--noise=none"], "--noise none: datasets/kodak has clean images; name a folder of "),
        (config, ["train", "--reference-dir=a"], "--reference-dir goes with --noise none only"),
        (config, ["train", "--long-train", "--preset=quick"], "--long-train and --preset quick both say how long"),
        (
            *(config, ["validate", "--noise=none", "--dataset-dir=a", "--network-snapshot=b"]),
            "--noise none: name images to compare with by --reference-dir",
        ),
        (
            *(config, ["validate", "--dataset-dir", "kodac"]),
            "kodac: no such file or folder; a folder of clean images, or the name of a set: kodak, bsd300, ",
        ),
        (config_mri, [], "datasets/ixi_train.pkl: no such file or folder; dataset_tool_mri.py makes it"),
    ],
)
def test_missing_files_are_named_before_anything_is_made(monkeypatch, tmp_path, module, words, message):
    monkeypatch.chdir(tmp_path)
    for dry_run in ([], ["--dry-run"]):
        with pytest.raises(dnnlib.UserError) as error:
            module.main([*words, *dry_run])
        assert str(error.value).startswith(message)
    assert not os.listdir(tmp_path)


def test_what_a_run_refuses_leaves_no_directory_and_is_found_by_a_dry_run(
    monkeypatch, capsys, tmp_path, photos, training_file, shots_file, snapshot
):
    monkeypatch.chdir(tmp_path)
    picture = str(photos / "photo0.png")
    train = ["train", "--train-tfrecords", training_file, "--validation-dir", str(photos), "--crop-size", "32"]
    mistakes = {
        "photo0.png: is a PNG picture, not a network snapshot": [*train, "--load-network", picture],
        "shots.tfrecords: holds noisy shots of scenes": [*train, "--train-tfrecords", shots_file],
        "--slurm gpus_per_node: has to be a whole number": [*train, "--submit=slurm", "--slurm", "gpus_per_node=x"],
    }
    for message, words in mistakes.items():
        with pytest.raises((dnnlib.UserError, SystemExit)) as end:
            config.main(words)
        assert message in (capsys.readouterr().err if isinstance(end.value, SystemExit) else str(end.value))
    mistakes = {
        "photo0.png: is a PNG picture": ["validate", "--dataset-dir", str(photos), "--network-snapshot", picture],
        "photo0.png: not a TFRecords file": [*train, "--train-tfrecords", picture],
        "no image there": [*train, "--validation-dir", str(tmp_path)],
    }
    for message, words in mistakes.items():
        with pytest.raises(dnnlib.UserError, match=message):
            config.main([*words, "--dry-run"])
        assert "noise_settings.sigma = 25.0" in capsys.readouterr().out
    config.main([*train, "--load-network", snapshot, "--dry-run"])
    assert not glob.glob("results/*")
