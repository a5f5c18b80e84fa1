"""Every command that reads pickles refuses a pickle that would write a file, and nothing is written."""

import os
import pickle
import re
import sys

import numpy as np
import pytest
from conftest import write_set
from PIL import Image

import config
import config_mri
import dnnlib
import network
from dnnlib.submission import __main__ as submission_main
from dnnlib.tflib import tf


class WritesAFile:
    def __reduce__(self):
        return open, ("mark", "w")


SNAPSHOT = ["--network-snapshot", "hostile.pkl"]
SETS = ["--data-dir", ".", "--valid-set", "good.pkl"]
PHOTOS = ["--train-tfrecords", "good.tfrecords", "--validation-dir", ".", "--crop-size", "32"]
REFUSED = r"hostile\.pkl: refused: it contains _?io\.open"
NO_SETTINGS = r"submit_config\.(txt|pkl): not the settings of a run"


def repeat(argv):
    sys.argv[1:] = argv
    submission_main.main()


@pytest.fixture(autouse=True)
def _network_of_one_weight(monkeypatch):
    def scale(x, dtype, weight, bias):
        return x * tf.get_variable(weight, [], initializer=tf.ones_initializer())

    monkeypatch.setattr(network, "unet", scale)


@pytest.fixture(scope="module")
def good_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("mri") / "good.pkl"
    write_set(str(path), 1, seed=0)
    return path


@pytest.mark.parametrize(
    "main,argv,message",
    [
        (config.main, ["validate", "--dataset-dir", ".", *SNAPSHOT], REFUSED),
        (config.main, ["infer-image", "--image", "image.png", "--out", "out.png", *SNAPSHOT], REFUSED),
        (config.main, ["export", "--out", "out.safetensors", *SNAPSHOT], REFUSED),
        (config_mri.main, ["validate", *SETS, *SNAPSHOT], REFUSED),
        (config_mri.main, ["export", "--out", "out.safetensors", *SNAPSHOT], REFUSED),
        (config_mri.main, ["train", *SETS, "--train-set", "good.pkl", "--load-network", "hostile.pkl"], REFUSED),
        (config.main, ["train", *PHOTOS, "--load-network", "hostile.pkl"], REFUSED),
        (config_mri.main, ["train", *SETS, "--train-set", "hostile.pkl"], REFUSED),
        (config_mri.main, ["train", *SETS, "--train-set", "good.pkl", "--valid-set", "hostile.pkl"], REFUSED),
        (config_mri.main, ["validate", *SETS, "--valid-set", "hostile.pkl", *SNAPSHOT], REFUSED),
        (config.main, ["train", "--resume", "run"], NO_SETTINGS),
        (config_mri.main, ["train", "--resume", "run"], NO_SETTINGS),
        (repeat, ["run"], NO_SETTINGS),
        (repeat, ["run/submit_config.pkl"], NO_SETTINGS),
    ],
)
def test_pickles_are_refused(good_set, training_file, tmp_path, monkeypatch, capsys, main, argv, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    content = pickle.dumps([np.zeros(3), WritesAFile()], 2)
    pickle.loads(content)
    os.remove("mark")  # The pickle does write a file when it is loaded.

    os.mkdir("run")
    for name in ("hostile.pkl", "run/submit_config.pkl", "run/submit_config.txt"):
        (tmp_path / name).write_bytes(content)
    os.link(good_set, "good.pkl")
    os.link(training_file, "good.tfrecords")
    Image.new("RGB", (8, 8)).save("image.png")
    with pytest.raises((dnnlib.UserError, SystemExit)) as caught:
        main(argv)
    line = capsys.readouterr().err if caught.type is SystemExit else str(caught.value)
    assert re.search(message, line)
    assert not os.path.exists("mark")
    assert {*os.listdir()} - {"results"} == {"run", "hostile.pkl", "good.pkl", "good.tfrecords", "image.png"}
