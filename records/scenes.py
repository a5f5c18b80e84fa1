"""Noisy shots of scenes for a data set: those that can be used, their shifts, and their alignment."""

import functools
import itertools
import sys

import numpy as np
from tqdm import tqdm

import dnnlib
from records import shots
from records.decoding import decode_ahead

SHIFTED = 0.5  # Pixels: shots with a larger shift are reported.
_LEAST = 32  # Pixels: side of the part that aligned shots must share.


def convert_scenes(scenes, statistics, read, align):
    """Yield (samples [C, H, W], number of the scene) for the shots of `scenes`, which are lists of frames.

    Unusable shots are listed and left out, and so are scenes with fewer than two usable shots. With `align`, shots are
    cropped to what all of their scene show. Raises UserError if no scene is left.
    """
    decoded, written = decode_ahead(list(itertools.chain(*scenes)), read), 0
    for frames in dnnlib.util.progress(scenes, unit="scene"):
        shots_read = itertools.islice(decoded, len(frames))
        usable = _usable_shots(_aligned(shots_read, frames, read) if align else shots_read, statistics)
        first, second = next(usable, None), next(usable, None)
        if second:
            for shot in itertools.chain((first, second), usable):
                frame, mode, samples = shot
                tqdm.write(f"{written} {frame}")
                statistics.count(mode, samples.shape[2], samples.shape[1])
                yield samples, statistics.scenes
                written += 1
                if shot is not first:
                    statistics.shifts.append(_report_shift(first, shot))
            statistics.scenes += 1
        elif first:
            tqdm.write(f"skipped: {first[0]}: no other shot of its scene can be used", file=sys.stderr)
            statistics.left_out += 1
    if not written:
        raise dnnlib.UserError(f"none of the {len(scenes)} scenes has two shots that can be used")


def _usable_shots(decoded, statistics):
    """Yield the usable shots among the decoded ones (frame, mode, samples or error) of a scene; list the others."""
    first = None
    for shot in decoded:
        fault = _fault(shot, first)
        if fault:
            tqdm.write(f"skipped: {fault}", file=sys.stderr)
            statistics.left_out += 1
        else:
            first = first or shot
            yield shot


def _fault(shot, first):
    """Explain why a decoded shot cannot be used; None if it can. `first` is the first usable shot of its scene."""
    frame, _, samples = shot
    if isinstance(samples, Exception):
        return dnnlib.util.describe_error(samples)
    if first and samples.shape != first[2].shape:
        return f"{frame}: differs in size from {first[0]}"
    if first and np.array_equal(samples, first[2]):
        return f"{frame}: is a copy of {first[0]}; their noise must differ"
    return None


def _report_shift(first, shot):
    """Return by how many pixels a decoded shot is shifted from the first one, or None; print large shifts."""
    shift = shots.estimate_shift(first[2], shot[2])
    if shift is None:
        return None
    distance = float(np.hypot(*shift))
    if distance >= SHIFTED:
        down, right = shift
        tqdm.write(f"shifted: {shot[0]}: {down:+.1f} down, {right:+.1f} right of {first[0]}", file=sys.stderr)
    return distance


def _aligned(decoded, frames, read):
    """Yield the decoded shots of a scene, cropped so that whole pixels of their shifts are taken out."""
    first, offsets = None, []
    for shot in decode_ahead(
        frames, functools.partial(read, note=lambda text: None)
    ):  # The shifts come first, so that no scene is held in memory.
        offset = (0, 0)
        if _fault(shot, first) is None:
            shift = shots.estimate_shift(first[2], shot[2]) if first else None
            offset = (0, 0) if shift is None else tuple(round(length) for length in shift)
            first = first or shot
        offsets.append(offset)
    if first is None or not any(map(any, offsets)):
        yield from decoded
        return
    size = first[2].shape[1:]
    # A pixel (y, x) of the first shot is the pixel (y, x) + offset of another.
    starts = [max(-offset[axis] for offset in offsets) for axis in (0, 1)]
    stops = [min(size[axis] - offset[axis] for offset in offsets) for axis in (0, 1)]
    height, width = (stop - start for start, stop in zip(starts, stops))
    enough = min(height, width) >= _LEAST
    what = f"to the {width}x{height} of {size[1]}x{size[0]} pixels that all shots show" if enough else "too far apart"
    tqdm.write(f"aligned: the scene of {first[0]}: {what}", file=sys.stderr)
    for (frame, mode, samples), (down, right) in zip(decoded, offsets):
        if not enough:
            samples = dnnlib.UserError(f"{frame}: the shots of its scene share less than {_LEAST} pixels")
        elif not isinstance(samples, Exception) and samples.shape[1:] == size:
            if (down, right) != (0, 0):
                tqdm.write(f"aligned: {frame}: {down:+d} down, {right:+d} right of {first[0]}", file=sys.stderr)
            top, left = starts[0] + down, starts[1] + right
            samples = np.ascontiguousarray(samples[:, top : top + height, left : left + width])
        yield frame, mode, samples
