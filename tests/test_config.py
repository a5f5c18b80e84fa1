"""The command lines: instant help, every setting printed, usage errors with status 2."""

import sys

import pytest


@pytest.mark.parametrize("script", ["config.py", "config_mri.py", "dataset_tool_tf.py", "dataset_tool_mri.py"])
def test_help_does_without_tensorflow(command, script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tensorflow'] = None")
    done = command(script, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {script}")


def dry_run(command, *args):
    done = command(*args, "--dry-run")
    assert done.returncode == 0, done.stderr
    return dict(line.split(" = ", 1) for line in done.stdout.splitlines())


def test_defaults_are_the_published_ones(command):
    plain, train = dry_run(command, "config.py"), dry_run(command, "config.py", "train")
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
        "adam.beta2": "0.99",
        "noise_settings.train_sigma": "(0.0, 50.0)",
        "validation_dir": "'datasets/kodak'",
    }
    assert expected.items() <= plain.items()


@pytest.mark.parametrize(
    "words,iterations",
    [([], 300000), (["--long-train"], 500000), (["--long-train=true"], 500000), (["--long-train=false"], 300000)],
)
def test_long_train_has_a_type(command, words, iterations):
    assert dry_run(command, "config.py", "train", *words)["iteration_count"] == str(iterations)


def test_a_preset_gives_way_to_options_only(command):
    settings = dry_run(command, "config.py", "train", "--preset", "quick", "--crop-size", 32, "--long-train")
    expected = {"iteration_count": "6500", "crop_size": "32", "learning_rate": "0.001", "optimizer": "'muon'"}
    assert expected.items() <= settings.items()


def test_options_override_settings_and_common_ones_stand_anywhere(command):
    words = ["config.py", "--desc", "a", "train", "--noise2noise=false", "--noise", "poisson", "--long-train"]
    words += ["--iterations", 7, "--run-dir-root", "elsewhere", "--validation-dir", "set14", "--seed", 3]
    settings = dry_run(command, *words)
    expected = {"run_desc": "'autoencoder-a-1gpu-L-n2c'", "iteration_count": "7", "eval_interval": "5000", "seed": "3"}
    expected |= {"run_dir_root": "'elsewhere'", "validation_dir": "'datasets/set14'"}
    assert (expected | {"noise_settings.train_lambda": "(0.001, 50.0)"}).items() <= settings.items()


@pytest.mark.parametrize(
    "words,loss", [(["text"], "l1"), (["text", "--loss", "l2"], "l2"), (["gaussian", "--loss=annealed"], "annealed")]
)
def test_the_loss_is_the_noise_s_own_unless_given(command, words, loss):
    assert dry_run(command, "config.py", "train", "--noise", *words)["loss"] == repr(loss)


def test_mri_options(command):
    settings = dry_run(command, "config_mri.py", "--num-epochs", 2, "--corrupt-targets=false", "--p-at-edge", 0.05)
    assert settings["run_desc"] == "'mri-ixi_s-n2c_-ep2-lr0.001000-Cbs0.050000-At64-Pfspec-1gpu-L'"
    assert settings["corruption.p_at_edge"] == "0.05"
    published = dry_run(command, "config_mri.py")
    assert published["run_desc"] == "'mri-ixi_s-n2n_-ep300-lr0.001000-Cbs0.025000-At64-Pfspec-1gpu-L'"
    assert published["schedule_settings.beta1_rampdown"] == "0.5"


@pytest.mark.parametrize(
    "words",
    [
        ["config.py", "train", "--noise2noise=maybe"],
        ["config.py", "train", "--iterations", "0"],
        ["config.py", "train", "--noise", "salt"],
        ["config.py", "train", "--loss", "l3"],
        ["config.py", "compare", "--image", "a.png", "--out", "b.png", "salt=c.pickle"],
        ["config.py", "compare", "--image", "a.png", "--out", "b.png", "none=c.pickle"],
        ["config.py", "preview", "--image", "a.png", "--noise", "none"],
        ["config.py", "trian"],
        ["config.py", "infer-image"],
        ["config_mri.py", "--p-at-edge", "0"],
        ["config_mri.py", "--num-epochs", "two"],
    ],
)
def test_usage_errors(command, words, tmp_path):
    done = command(*words)
    assert done.returncode == 2 and "error:" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "words,message",
    [
        (
            ["config.py"],
            "error: datasets/imagenet_val_raw.tfrecords: no such file or folder; dataset_tool_tf.py makes it",
        ),
        (["config.py", "train", "--crop-size", "100"], "error: --crop-size 100 is not a multiple of 32"),
        (
            ["config.py", "train", "--noise=none", "--noise2noise=false"],
            "error: --noise2noise=false takes clean targets",
        ),
        (
            ["config.py", "train", "--noise=none"],
            "error: --noise none: datasets/kodak has clean images; name a folder of ",
        ),
        (["config.py", "train", "--reference-dir=a"], "error: --reference-dir goes with --noise none only"),
        (
            ["config.py", "validate", "--noise=none", "--dataset-dir=a", "--network-snapshot=b"],
            "error: --noise none: name images to compare with by --reference-dir",
        ),
        (
            ["config.py", "validate", "--network-snapshot", sys.executable],
            "error: datasets/kodak: no such file or folder",
        ),
        (["config_mri.py"], "error: datasets/ixi_train.pkl: no such file or folder; dataset_tool_mri.py makes it"),
    ],
)
def test_missing_files_are_named_before_anything_is_made(command, words, message, tmp_path):
    done = command(*words)
    assert done.returncode == 1 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()
