"""The trained networks: made by one command, described by what was measured, found by the programs."""

import glob
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, write_set
from PIL import Image


@pytest.fixture
def checkout(tmp_path, photos, training_file):
    """A copy of the program without networks, with data sets of its own."""
    folder = tmp_path / "noise2noise"
    folder.mkdir()
    for path in glob.glob(os.path.join(ROOT, "*.py")):
        shutil.copy(path, folder)
    for path in glob.glob(os.path.join(ROOT, "*", "__init__.py")):
        package = os.path.dirname(path)
        shutil.copytree(package, folder / os.path.basename(package), ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "networks").mkdir()
    for path in glob.glob(os.path.join(ROOT, "networks", "*.py")):
        shutil.copy(path, folder / "networks")
    (folder / "datasets").mkdir()
    shutil.copy(training_file, folder / "datasets" / "photos.tfrecords")
    for name in ("held_out", "kodak", "BSDS300/images/test"):
        shutil.copytree(photos, folder / "datasets" / name)
    write_set(str(folder / "datasets" / "ixi_train.pkl"), 4, seed=0)
    write_set(str(folder / "datasets" / "ixi_valid.pkl"), 1, seed=10)
    return folder


def run(checkout, *words):
    options = {"env": os.environ | {"PYTHONPATH": str(checkout)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, *words], cwd=checkout, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def script(name):
    """The names that a script of networks/ defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(os.path.join(ROOT, "networks"))
        return runpy.run_path(os.path.join(ROOT, "networks", name))


def test_networks_are_made_described_and_found(checkout, photos, training_file):
    words = ["--train-tfrecords", training_file, "--validation-dir", str(photos), "--iterations", "1"]
    run(checkout, "config.py", "--desc", "done", "--run-dir-root", "runs", "train", "--preset", "quick", *words)
    done = checkout / "runs" / "00000-autoencoder-done-1gpu-L-n2n"
    shutil.copy(done / "network_final.pickle", checkout / "networks" / "photographs.pickle")
    common = script("make.py")["COMMON"]["gaussian"]
    for index, name in enumerate(common):  # Nor are these made again.
        shutil.copytree(done, checkout / f"results/networks/0000{index}-autoencoder-{name}-1gpu-L-n2n")
    out = run(checkout, "networks/make.py", "gaussian-n2n", "--length", "1")
    assert out.startswith("networks/photographs.pickle is there already.\n")
    card = (checkout / "networks" / "gaussian-n2n.md").read_text()
    restored = re.search(r"^\| Kodak \| [\d.]+ dB \| ([\d.]+) dB \| `python config.py validate .*` \|$", card, re.M)
    assert re.findall(r"\| 1 iterations, (\d) at a time \|", card) == ["8"] * len(common) + ["4"]
    assert "--length" not in card
    starts = re.findall(r"^\| command \| `python .* --load-network (.*)` \|$", card, re.M)
    assert len(starts) == len(common) + 1 and starts[0] == "networks/photographs.pickle"
    assert re.search(f"results/networks/.*-{name}-1gpu-L-n2n/", starts[-1]) and (checkout / starts[-1]).exists()
    assert (checkout / "networks" / "gaussian-n2n.png").exists()

    out = run(checkout, "config.py", "validate", "--dataset-dir", "kodak")
    assert out.startswith("Network: networks/gaussian-n2n.pickle") and f"Average PSNR: {restored[1]}\n" in out
    assert run(checkout, "networks/make.py", "gaussian-n2n") == "networks/gaussian-n2n.pickle is there already.\n"


def test_the_network_for_mri_is_made_compared_and_found(checkout):
    run(checkout, "networks/make.py", "mri-n2n", "--length", "1")
    card = (checkout / "networks" / "mri-n2n.md").read_text()
    assert re.search(r"^\| command \| `python config_mri.py train .* --num-epochs 1` \|$", card, re.M)
    restored = re.search(r"^\| sub-21 to sub-24 \| [\d.]+ dB \| ([\d.]+) dB \| `", card, re.M)
    assert re.search(r"^\| sub-21 to sub-24 \| [\d.]+ dB \| [\d.]+ dB \| mri-n2c, trained with", card, re.M)
    out = run(checkout, "config_mri.py", "validate")
    assert float(re.search(r"test_db_clamped=([\d.]+)", out)[1]) == pytest.approx(float(restored[1]), abs=0.00501)


def test_the_picture_of_the_networks(checkout):
    for path in glob.glob(os.path.join(ROOT, "networks", "*.pickle")):
        shutil.copy(path, checkout / "networks")
    for name in ("kodim17.png", "kodim23.png"):
        Image.linear_gradient("L").convert("RGB").resize((350, 330)).save(checkout / "datasets" / "kodak" / name)
    write_set(str(checkout / "datasets" / "ixi_valid.pkl"), 37, seed=10)
    (checkout / "docs" / "images").mkdir(parents=True)
    assert run(checkout, "networks/picture.py").endswith("Wrote docs/images/networks.png.\n")
    with Image.open(checkout / "docs" / "images" / "networks.png") as picture:
        assert picture.width >= 3 * 192 and picture.height >= 3 * 192


def test_without_a_network_one_has_to_be_named(command, photos):
    done = command("config.py", "validate", "--noise", "impulse", "--dataset-dir", photos)
    assert done.returncode == 1
    assert (
        done.stderr == "error: networks/impulse-n2n.pickle: there is no such network; name one by --network-snapshot\n"
    )


@pytest.mark.parametrize("path", sorted(glob.glob(os.path.join(ROOT, "networks", "*.pickle"))))
def test_cards_are_those_of_the_networks(path):
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    with open(path.replace(".pickle", ".md"), encoding="utf-8") as f:
        assert f"sha256 `{digest}`" in f.read()
