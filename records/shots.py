"""Noisy shots of scenes: find them in folders, check them, and estimate how far they are shifted."""

import collections
import os
import sys

import numpy as np

import dnnlib
from imaging import images, rgb_files, sheets

_LISTED = 20  # Maximum number of problems to print; unrelated folders have one per file.
_WINDOW = 512  # Pixels: side of the central crop that shifts are estimated from.
_BAND = (1, 8)  # Pixels: finer detail is mostly noise, coarser detail hardly moves.
# Threshold of correlation times side of the crop. Pure noise reaches about 20; above the threshold nearly all estimates
# are right within half a pixel.
_RELIABLE = 100


def find_pairs(dir_a, dir_b):
    """Pair the images of two folders by file name without suffix: [[path in dir_a, path in dir_b], ...].

    Raises UserError, after a line on stderr for each problem, if images have no partner, differ in size or cannot be
    read.
    """
    if os.path.isdir(dir_a) and os.path.isdir(dir_b) and os.path.samefile(dir_a, dir_b):
        raise dnnlib.UserError(f"{dir_b}: is the same folder as {dir_a}; name the folder of the second shots")
    problems, by_name = [], []
    for folder in (dir_a, dir_b):
        named = collections.defaultdict(list)
        for path in images.list_images(folder):
            named[os.path.splitext(os.path.basename(path))[0]].append(path)
        problems += [f"{', '.join(paths)}: more than one image of that name" for paths in named.values() if paths[1:]]
        by_name.append(named)
    a, b = by_name
    problems += [f"{a[name][0]}: has no partner in {dir_b}" for name in a if name not in b]
    problems += [f"{b[name][0]}: has no partner in {dir_a}" for name in b if name not in a]
    scenes = [[a[name][0], b[name][0]] for name in a if name in b]
    _check(f"{dir_a}, {dir_b}", scenes, problems)
    return scenes


def find_bursts(folder):
    """List the scenes in a folder with one subfolder per scene: [[path of a shot, ...], ...], sorted by name.

    Raises UserError, after a line on stderr for each problem, if an image is outside the subfolders, or if the images
    of a subfolder are fewer than two, differ in size or cannot be read.
    """
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of scenes")
    names = (n for n in sorted(os.listdir(folder)) if not n.startswith("."))
    bursts = {path: images.list_images(path) for n in names if os.path.isdir(path := os.path.join(folder, n))}
    problems = [f"{path}: is outside the folders of scenes" for path in images.list_images(folder, tell=False)]
    problems += [f"{path}: has {len(s)} images; a scene needs two or more" for path, s in bursts.items() if len(s) < 2]
    scenes = [shots for shots in bursts.values() if len(shots) > 1]
    _check(folder, scenes, problems)
    return scenes


def _check(where, scenes, problems):
    """Raise UserError if there are no scenes, or if there are problems: those given, or shots that differ in size."""
    for shots in scenes:
        try:
            sizes = [rgb_files.read_header(path)[1] for path in shots]
        except (dnnlib.UserError, OSError) as error:
            problems.append(dnnlib.util.describe_error(error))
            continue
        problems += [
            f"{path}: is {size[0]}x{size[1]}, but {shots[0]} is {sizes[0][0]}x{sizes[0][1]}"
            for path, size in zip(shots, sizes)
            if size != sizes[0]
        ]
    for line in problems[:_LISTED]:
        print(line, file=sys.stderr)
    if problems:
        first = f" (the first {_LISTED} are listed)" if len(problems) > _LISTED else ""
        raise dnnlib.UserError(f"{where}: {len(problems)} problems with the shots{first}; correct them")
    if not scenes:
        raise dnnlib.UserError(f"{where}: has no scenes of two or more shots ({', '.join(images.SUFFIXES)})")


def estimate_shift(a, b):
    """Estimate by how many pixels (down, right) image `b` is shifted from image `a`, both uint8 [3, H, W].

    The estimate has a resolution of 0.1 pixels; it is None if the images are too flat, noisy or small. It is a phase
    correlation of the image centres in the band of frequencies where images stand out from noise; with all frequencies
    it fails on soft images.
    """
    from skimage.filters import difference_of_gaussians, window
    from skimage.registration import phase_cross_correlation

    a, b = (sheets.centre(x.mean(axis=0), _WINDOW) for x in (a, b))
    taper = window("hann", a.shape)  # Images are not periodic.
    a, b = (difference_of_gaussians(x, *_BAND) * taper for x in (a, b))
    if not a.any() or not b.any():
        return None
    shift, error, _ = phase_cross_correlation(b, a, upsample_factor=10, normalization=None)
    correlation = np.sqrt(max(0, 1 - error**2))
    return tuple(shift.tolist()) if correlation * np.sqrt(a.size) > _RELIABLE else None
