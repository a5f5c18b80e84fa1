"""Run the whole project in a few minutes on a CPU: make data, train without clean images, denoise photographs.

    make demo

The demo prints the commands that it runs, and writes `results/demo.png`: noisy, denoised and clean photographs side by
side. The training images are synthetic and the photographs are part of scikit-image, so that nothing is downloaded.
"""

import os
import subprocess
import time

import numpy as np
import skimage

import config
import corruption
import dnnlib
from dnnlib.options import ArgumentParser
from dnnlib.util import run_script
from imaging import images, metrics, rgb_files, sheets
from inference.compare import compared

TRAINING_FILE = "datasets/demo.tfrecords"
PHOTO_DIR = "datasets/demo"  # Clean photographs; training uses them for validation only.
WORK_DIR = "results/demo"  # Noisy and denoised photographs.
PICTURE = "results/demo.png"

PHOTOS = {"astronaut.png": (100, 0), "chelsea.png": (98, 22), "coffee.png": (170, 60)}  # Left and top of a crop ...
SIDE = 256  # ... with this side in pixels.
DATA = ["--dead-leaves", "120"]
# Many small steps on small crops learn fastest; the published recipe takes weeks of CPU time.
TRAIN = "--iterations 800 --eval-interval 400 --minibatch-size 4 --crop-size 64 --learning-rate 0.001"


def main():
    ArgumentParser(description=__doc__).parse_args()  # Handles --help.
    start = time.time()
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    for folder in (PHOTO_DIR, WORK_DIR):
        os.makedirs(folder, exist_ok=True)
    photos = _write_photos()

    if os.path.exists(TRAINING_FILE):
        print(f"{TRAINING_FILE} exists already.")
    else:
        run_script("dataset_tool_tf.py", *DATA, "--out", TRAINING_FILE, stdout=subprocess.DEVNULL)
    data = ["--train-tfrecords", TRAINING_FILE, "--validation-dir", PHOTO_DIR]
    run_script("config.py", "train", "--desc", "demo", "--noise", "gaussian", "--noise2noise", *data, *TRAIN.split())
    run_dir = _newest_run()

    rows = []
    for name, clean in photos.items():
        noisy, denoised = (os.path.join(WORK_DIR, kind + "_" + name) for kind in ("noisy", "denoised"))
        images.save_uint8(noisy, _add_noise(clean, name))
        snapshot = os.path.join(run_dir, "network_final.pickle")
        run_script("config.py", "infer-image", "--image", noisy, "--out", denoised, "--network-snapshot", snapshot)
        rows.append((rgb_files.read_rgb(noisy), rgb_files.read_rgb(denoised), clean))
    images.save(PICTURE, sheets.labelled_sheet([compared("noisy", *row) for row in rows]))

    before, after = (np.mean([metrics.psnr(row[k], row[2], peak=255) for row in rows]) for k in (0, 1))
    print(f"\nNoisy, denoised and clean photographs: {PICTURE}\nRun directory of the training: {run_dir}")
    print(f"PSNR, mean of {len(rows)} photographs: {before:.2f} dB noisy -> {after:.2f} dB denoised")
    print(f"Total time: {dnnlib.format_time(time.time() - start)}")


def _write_photos():
    """Write crops of the photographs in scikit-image to PHOTO_DIR. Returns {name: uint8 [3, SIDE, SIDE]}."""
    package, photos = os.path.join(os.path.dirname(skimage.__file__), "data"), {}
    for name, (left, top) in PHOTOS.items():
        path = os.path.join(package, name)
        if os.path.exists(path):  # Some versions of scikit-image would download some of them.
            photos[name] = rgb_files.read_rgb(path)[:, top : top + SIDE, left : left + SIDE]
            images.save_uint8(os.path.join(PHOTO_DIR, name), photos[name])
    if not photos:
        raise dnnlib.UserError(f"{package}: none of {', '.join(PHOTOS)} found; install requirements.txt")
    return photos


def _add_noise(clean, name):
    """Add Gaussian validation noise to uint8 [3, H, W]. Unlike in training, the result is clipped to bytes."""
    noise = corruption.create("gaussian")
    seed = config.PROGRAM.defaults("validate").seed
    return images.to_uint8(noise.for_validation(images.to_float(clean), seed, name))


def _newest_run():
    """Return the run directory with the largest number, which is that of the training that just finished."""
    runs = [name for name in os.listdir("results") if name.endswith(f"-{config.DESC}-demo-1gpu-L-n2n")]
    return os.path.join("results", max(runs, key=lambda name: int(name.split("-")[0])))


if __name__ == "__main__":
    dnnlib.cli_main(main)
