"""The scripts of networks/, with small networks and in this process, and the networks and cards that are there."""

import contextlib
import glob
import hashlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, write_set
from PIL import Image

import config
import dnnlib
import network
from dnnlib.tflib import tf
from networks import make, paper, picture, real, runs, spots
from validation import Result


@pytest.fixture
def workplace(tmp_path, photos, training_file, monkeypatch):
    """A working folder with data sets and without networks, where scripts run in this process."""
    for folder in ("datasets", "docs/images", "networks"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(training_file, tmp_path / "datasets" / "photos.tfrecords")
    for name in ("held_out", "kodak", "BSDS300/images/test"):
        shutil.copytree(photos, tmp_path / "datasets" / name)
    monkeypatch.chdir(tmp_path)
    for script in (make, paper):
        monkeypatch.setattr(script, "SOURCE_ROOT", str(tmp_path))
    for script in (make, runs):
        monkeypatch.setattr(script, "run_script", run)
    return tmp_path


def run(script, *words, stdout=None):
    """Run a script as `dnnlib.util.run_script` does, but in this process. Return what it printed."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(os.path.join(ROOT, script), run_name="__main__")
    assert not end.value.code, out.getvalue()
    return out.getvalue()


def call(script, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["script", *words])
    script.main()


def test_make_photographs(workplace, monkeypatch, capsys):
    call(make, monkeypatch, "poisson-n2n", "--length", "1")
    cards = {name: (workplace / "networks" / f"{name}.md").read_text() for name in ("gaussian-n2n", "poisson-n2n")}
    for card in cards.values():
        assert "| 1 iterations, minibatches of 4 |" in card
    assert "| starts from | random weights |" in cards["gaussian-n2n"]
    assert re.search(
        r"^\| command \| `python .* --load-network networks/gaussian-n2n\.pickle` \|$", cards["poisson-n2n"], re.M
    )
    assert os.path.exists("networks/poisson-n2n.png")

    row = r"^\| Kodak \| [\d.]+ dB \| ([\d.]+) dB \| `python (.*)` \|$"
    restored, command = re.search(row, cards["poisson-n2n"], re.M).groups()
    assert f"Average PSNR: {restored}\n" in run(*shlex.split(command))
    call(make, monkeypatch, "gaussian-n2n")
    assert capsys.readouterr().out.endswith("networks/gaussian-n2n.pickle exists.\n")


def test_spots(photos, snapshot, shifting_snapshot, grey_snapshot):
    rows = spots.worst_blocks(snapshot, [photos])
    assert [noise for noise, _, _ in rows][::4] == ["sigma 5", "sigma 25", "sigma 50", "`--noise camera`"]
    assert max(shift for _, shift, _ in rows) < 0.005
    for _, shift, _ in spots.worst_blocks(shifting_snapshot, [photos]):
        assert shift == pytest.approx(0.2, abs=0.03)  # Part of it may undo the noise's own shift.
    for _, shift, _ in spots.worst_blocks(grey_snapshot, [photos]):
        assert 0.05 < shift < 0.25  # This network halves the contrast.


def test_table_of_real_photographs():
    """BM3D has one sigma for all photographs, and the best one for each."""
    clean = np.zeros([1, 4, 4], np.uint8)

    def results(*errors):
        return [Result(f"{i}.jpg", clean, clean + np.uint8(4), clean + np.uint8(e)) for i, e in enumerate(errors)]

    found = {5: results(2, 2), 10: results(1, 8), 15: results(2, 3), 20: results(4, 4), "a/net.pickle": results(1, 4)}
    lines = real.table(found, ["a/net.pickle"])
    rows = [[cell.strip("| *") for cell in line.split(" | ")] for line in lines]
    assert rows[0] == ["photograph", "noisy", "net.pickle", "BM3D, sigma 5", "BM3D, best sigma"]
    levels = {error: f"{20 * np.log10(255 / error):.2f}" for error in (1, 2, 4)}
    assert rows[2] == ["0.jpg", levels[4], levels[1], levels[2], levels[1]]
    assert rows[3] == ["1.jpg", levels[4], levels[4], levels[2], levels[2]]
    assert rows[5] == ["smallest gain", "0.00", "0.00", "6.02", "6.02"]


def test_make_mri(workplace, monkeypatch):
    def scaled(x, dtype):
        return x * tf.get_variable("conv/W", [1], initializer=tf.ones_initializer())

    monkeypatch.setattr(network, "autoencoder_mri", scaled)
    write_set("datasets/ixi_train.pkl", 4, seed=0)
    write_set("datasets/ixi_valid.pkl", 1, seed=10)
    call(make, monkeypatch, "mri-n2n", "--length", "1")
    card = (workplace / "networks" / "mri-n2n.md").read_text()
    assert re.search(r"^\| command \| `python config_mri.py train .* --num-epochs 1` \|$", card, re.M)
    row = r"^\| sub-21 to sub-24 \| [\d.]+ dB \| ([\d.]+) dB \| "
    restored, command = re.search(rf"{row}`python (.*)` \|$", card, re.M).groups()
    assert re.search(f"{row}mri-n2c, trained with", card, re.M)
    found = float(re.search(r"test_db_clamped=([\d.]+)", run(*shlex.split(command)))[1])
    assert found == pytest.approx(float(restored), abs=0.00501)


def write_run(name, curve):
    """A finished run as far as paper.py reads it."""
    folder = f"{paper.RUNS}/{name}"
    os.makedirs(folder)
    for file in ("submit_config.txt", "_finished.txt"):
        with open(f"{folder}/{file}", "w") as f:
            f.write("{'run_func_name': 'train.train', 'run_func_kwargs': {}}")
    with open(f"{folder}/log.txt", "w") as f:
        f.write("Precision: float32.\nElapsed time: 2m 30s\n")
    with tf.Graph().as_default(), tf.summary.FileWriter(folder) as writer:
        for step, value in enumerate(curve):
            summary = tf.Summary(value=[tf.Summary.Value(tag="PSNR_avg_psnr", simple_value=value)])
            writer.add_summary(summary, step)


def test_paper_page(workplace, monkeypatch):
    write_run("00000-autoencoder-paper-gaussian-n2n-1gpu-L-n2n", curve=(10, 20, 30))
    write_run("00000-autoencoder-paper-gaussian-n2c-1gpu-L-n2c", curve=(10, 30, 10))
    monkeypatch.setattr(paper, "measure", lambda words, snapshot, root: (20.125, 30.5 if "n2n" in snapshot else 30.75))
    call(paper, monkeypatch, "gaussian")  # Nothing is left to train.
    page = (workplace / "docs" / "paper.md").read_text()
    results = json.loads((workplace / "docs" / "paper" / "gaussian.json").read_text())
    assert results["n2n"]["curve"] == [[1, 2], [20, 30]]  # Without the initial weights.
    shutil.rmtree(paper.RUNS)
    call(paper, monkeypatch, "gaussian")  # The results are in docs/paper/gaussian.json.
    assert (workplace / "docs" / "paper.md").read_text() == page
    lines = page.splitlines()
    rows = [line for line in lines if line.startswith("| gaussian")]
    assert rows == [
        "| gaussian | Kodak | 20.12 | 30.75 | 30.50 | -0.25 | 32.38 / 32.39 |",
        "| gaussian | BSDS300 test | 20.12 | 30.75 | 30.50 | -0.25 | 31.01 / 31.02 |",
    ]
    commands = [line for line in lines if line.startswith("    python config.py train")]
    n2n, n2c = (line.removesuffix("    # 2m 30s in float32") for line in commands)
    assert n2c == n2n + " --noise2noise=false --loss l2"
    with Image.open("docs/images/paper.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=10**6)}
    assert {(31, 119, 180), (255, 127, 14)} < colours  # Two curves in matplotlib's first two colours.


def test_pictures(workplace, monkeypatch):
    for path in glob.glob(os.path.join(ROOT, "networks", "*.pickle")):
        shutil.copy(path, "networks")
    sets = {"kodak": ["kodim17.png", "kodim23.png"], "BSD68": ["test002.png", "test003.png"]}
    real = [
        "Sony_4-5_125_6400_waterhouse_10.jpg",
        "Canon5D2_5_160_6400_circuit_3.jpg",
        "NikonD800_8_125_6400_photo_19.jpg",
    ]
    sets |= {"real/noisy": real, "real/reference": real}
    for folder, names in sets.items():
        os.makedirs(f"datasets/{folder}", exist_ok=True)
        for name in names:
            Image.linear_gradient("L").convert("RGB").resize((430, 330)).save(f"datasets/{folder}/{name}")
    write_set("datasets/ixi_valid.pkl", 37, seed=10)
    monkeypatch.setattr(dnnlib.submission, "SOURCE_ROOT", str(workplace))
    call(picture, monkeypatch)
    for name, rows in {"networks": 3, "real": 3, "grey": 2}.items():
        with Image.open(f"docs/images/{name}.png") as image:
            assert image.size == (3 * (192 + 4) + 4, rows * (30 + 192) + 4)  # Pictures, gaps and labels.


def test_default_network(photos, capsys):
    words = ["infer-image", "--image", str(photos / "photo0.png"), "--out", "out.png", "--dry-run"]
    told = "as --network-snapshot names no other"
    config.main(words)
    assert told not in capsys.readouterr().out  # The images will choose between two networks.
    config.main([*words, "--noise", "poisson"])
    assert capsys.readouterr().out.startswith(f"Network: networks/poisson-n2n.pickle, {told}")
    with pytest.raises(dnnlib.UserError, match=r"^networks/impulse-n2n\.pickle: .*--network-snapshot$"):
        config.main(["validate", "--noise", "impulse", "--dataset-dir", str(photos)])


@pytest.mark.parametrize("path", sorted(glob.glob(os.path.join(ROOT, "networks", "*.pickle"))))
def test_card_names_its_network(path):
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    with open(path.replace(".pickle", ".md"), encoding="utf-8") as f:
        assert f"sha256 `{digest}`" in f.read()
