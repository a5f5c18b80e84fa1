"""Denoise photographs with real noise, and compare with BM3D: `python networks/real.py NETWORK ...`

The photographs are those in datasets/real/noisy, and the references, means of hundreds of shots, those of the same
names in datasets/real/reference. The table shows the PSNR in dB against the references. BM3D (Dabov et al. 2007, in
the authors' package `bm3d`) has the sigma that is best for all photographs together, and the best one for each. For a
photograph of 512x512 it takes about 40 seconds of one core.
"""

import os

import numpy as np

import corruption
import dnnlib
import network
from dnnlib import tflib
from dnnlib.options import ArgumentParser
from dnnlib.tflib import tf
from imaging import metrics
from networks.spots import REAL, SEED
from validation import ValidationSet

SIGMAS = (5, 10, 15, 20)  # Of BM3D, on the scale of 0..255.


def main():
    """Print the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="FILE", help="snapshot of an RGB network")
    args = parser.parse_args()
    dnnlib.util.require("bm3d", "networks/real.py", "bm3d")
    photographs = ValidationSet(REAL.format("noisy"), corruption.create("none"), SEED, REAL.format("reference"))

    def evaluate(name, model):
        found = photographs.evaluate(model)
        return list(dnnlib.util.progress(found, total=len(photographs.paths), unit="image", desc=name))

    results = {}
    for snapshot in args.networks:
        with tf.Graph().as_default(), tflib.create_session():
            results[snapshot] = evaluate(snapshot, network.load_autoencoder(snapshot))
    results |= {sigma: evaluate(f"BM3D, sigma {sigma}", Bm3d(sigma)) for sigma in SIGMAS}
    print(*table(results, args.networks), sep="\n")


def table(results, snapshots):
    """Return the lines of the table in Markdown.

    Args:
        results: {snapshot or sigma of BM3D: list of a `validation.Result` for each photograph}.
        snapshots: The snapshots among them.
    """
    first = results[SIGMAS[0]]
    noisy = np.array([metrics.psnr(result.clean, result.noisy, peak=255) for result in first])
    psnrs = {name: np.array([result.psnr for result in found]) for name, found in results.items()}
    best = max(SIGMAS, key=lambda sigma: psnrs[sigma].mean())
    columns = {"noisy": noisy} | {os.path.basename(name): psnrs[name] for name in snapshots}
    columns |= {f"BM3D, sigma {best}": psnrs[best], "BM3D, best sigma": np.max([psnrs[s] for s in SIGMAS], axis=0)}
    rows = [[r.name, *(f"{column[i]:.2f}" for column in columns.values())] for i, r in enumerate(first)]
    rows.append(["**mean**", *(f"**{column.mean():.2f}**" for column in columns.values())])
    rows.append(["smallest gain", *(f"{(column - noisy).min():.2f}" for column in columns.values())])
    lines = [["photograph", *columns], ["---"] * (len(columns) + 1), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


class Bm3d:
    """BM3D in place of a network."""

    def __init__(self, sigma):
        self.sigma = sigma

    def run(self, x):
        """Denoise a float image [1, 3, H, W]."""
        import bm3d

        return bm3d.bm3d_rgb(x[0].transpose(1, 2, 0) + 0.5, self.sigma / 255).transpose(2, 0, 1)[None] - 0.5


if __name__ == "__main__":
    dnnlib.cli_main(main)
