"""Makes the training data: a TFRecords file from a folder of images, or from synthetic dead-leaves images.

    python dataset_tool_tf.py --input-dir datasets/imagenet --out datasets/imagenet.tfrecords
    python dataset_tool_tf.py --dead-leaves 20000 --seed 1 --out datasets/dead_leaves.tfrecords
    python dataset_tool_tf.py --verify datasets/imagenet.tfrecords

or, for training without clean images, from noisy shots: two of each scene, in two folders under the same names, or two
and more in a folder for each scene:

    python dataset_tool_tf.py --pairs shots/a shots/b --out datasets/shots.tfrecords
    python dataset_tool_tf.py --bursts shots --out datasets/shots.tfrecords

Prints a line "<number of the record> <file>" for each image, then statistics of the set. Images keep their size; every
kind is converted to 8-bit RGB. Files that cannot be decoded are named and left out. So are files that 8-bit RGB cannot
keep: floating-point or signed samples, stacks of pages, channels beyond RGB and alpha. The shots of a scene have to
show the same: how far they are shifted is estimated and told, not corrected.
"""

import collections
import concurrent.futures
import itertools
import os
import sys

import numpy as np
from tqdm import tqdm

import dnnlib
from dnnlib.options import ArgumentParser, positive_int, seed
from imaging import images, rgb_files
from records import dead_leaves, shots, tfrecords

_SHUFFLE_SEED = 0x1234F00D
_MAX_PIXELS = 32 << 20  # In flight, some 16 bytes each while an image is decoded; a larger image travels alone.
_MAX_FILES = 256  # In flight, for folders of tiny images.
_LARGE = 256  # Pixels: training takes crops of 256x256 and resizes images with a shorter side.
_SHIFTED = 0.5  # Pixels, from which a shot is told to be shifted.
_SIZES = (16, 4096)  # Of dead leaves; rendering takes some 200 bytes of memory a pixel.


class Statistics:
    """Counts of what went into a file."""

    def __init__(self):
        self.formats = collections.Counter()
        self.large = self.small = self.broken = self.refused = 0
        self.scenes = self.left_out = 0  # Of noisy shots, as is ...
        self.shifts = []  # ... how far each is from the first of its scene in pixels, None where it cannot be told.

    def count(self, mode, width, height):
        """Counts an image of `width` x `height` pixels, by its Pillow mode as stored: RGB, L, CMYK, ..."""
        self.formats[mode] += 1
        if min(width, height) >= _LARGE:
            self.large += 1
        else:
            self.small += 1

    def shifted(self):
        """Number of shots that lie off the first of their scene."""
        return sum(shift is not None and shift >= _SHIFTED for shift in self.shifts)

    def __str__(self):
        lines = ["Dataset statistics:", "  Formats:"]
        lines += [f"    {mode}: {count} images" for mode, count in self.formats.most_common()]
        lines += ["  width,height buckets:"]
        lines += [f"    >= {_LARGE}x{_LARGE}: {self.large} images", f"    < {_LARGE}x{_LARGE}: {self.small} images"]
        if self.broken:
            lines += [f"  Not decodable: {self.broken} files"]
        if self.refused:
            lines += [f"  Refused: {self.refused} files"]
        if self.scenes:
            lines += [f"  Scenes: {self.scenes}"]
            lines += [f"  Left out: {self.left_out} shots"] if self.left_out else []
            lines += [f"  Shifted by {_SHIFTED} pixels or more: {self.shifted()} shots"]
            lines += [f"  Too flat, noisy or small to tell: {self.shifts.count(None)} shots"]
        return "\n".join(lines)


def main():
    """The command line. Usage errors end with status 2, other errors of the user's with 1."""
    args = _parse_arguments()
    if args.verify:
        _verify(args.verify)
        return
    dnnlib.util.check_output(args.out)
    statistics = Statistics()
    if args.pairs or args.bursts:
        tfrecords.write_shots(args.out, _convert_scenes(_find_scenes(args), statistics))
    elif args.dead_leaves:
        size = args.size or dead_leaves.SIZE
        tfrecords.write_images(args.out, _render(args.dead_leaves, args.seed or 0, size, statistics))
    else:
        paths = _list_shuffled(args.input_dir)
        tfrecords.write_images(args.out, _convert(args.input_dir, paths, statistics))
    print(statistics)
    if statistics.shifted():
        print("warning: shots that are shifted teach a network to blur; align them or take them away", file=sys.stderr)


def _parse_arguments():
    parser = ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input-dir", metavar="DIR", help="folder of images")
    source.add_argument("--pairs", metavar=("DIR", "DIR"), nargs=2, help="two folders: two noisy shots of each scene")
    source.add_argument("--bursts", metavar="DIR", help="folder of folders: two or more noisy shots of a scene in each")
    source.add_argument("--dead-leaves", metavar="N", type=positive_int, help="number of images to render instead")
    source.add_argument("--verify", metavar="FILE", help="read all of a TFRecords file, and name what is damaged")
    parser.add_argument("--seed", type=seed, help="of --dead-leaves; default 0. The same seed renders the same images")
    parser.add_argument("--size", type=positive_int, help=f"side of --dead-leaves; default {dead_leaves.SIZE} pixels")
    parser.add_argument("--out", metavar="FILE", help="TFRecords file to write")
    args = parser.parse_args()
    if not args.verify and not args.out:
        parser.error("argument --out: name a file to write")
    if args.dead_leaves is None and (args.seed is not None or args.size is not None):
        parser.error("--seed and --size go with --dead-leaves only")
    if args.size is not None and not _SIZES[0] <= args.size <= _SIZES[1]:
        parser.error(f"argument --size: {args.size} is not within {_SIZES[0]}..{_SIZES[1]}")
    return args


def _verify(path):
    """Reads every image of a TFRecords file. UserError at the end, if records were damaged; each is named."""
    records, damaged = tfrecords.ImageRecords(path), 0
    for record in dnnlib.util.progress(range(len(records)), unit="image"):
        try:
            records.read(record)
        except dnnlib.UserError as error:
            tqdm.write(f"damaged: {error}", file=sys.stderr)
            damaged += 1
    if damaged:
        raise dnnlib.UserError(f"{path}: {damaged} of {len(records)} records are damaged; make it anew")
    scenes = records.scenes()
    what = "images" if scenes[0, 1] == 1 else f"noisy shots of {len(scenes)} scenes"
    print(f"{path}: {len(records)} {what}, all whole")


def _find_scenes(args):
    """The scenes that --pairs or --bursts names, as lists of paths."""
    if args.bursts:
        return shots.find_bursts(args.bursts)
    return shots.find_pairs(*args.pairs)


def _list_shuffled(folder):
    """Paths of the images in `folder` in the order of their records. UserError if there are none."""
    paths = images.list_images(folder)
    if not paths:
        has_folders = any(entry.is_dir() for entry in os.scandir(folder))
        hint = "; name the one of its folders that has them" if has_folders else ""
        raise dnnlib.UserError(f"{folder}: has no images ({', '.join(images.SUFFIXES)}){hint}")
    np.random.RandomState(_SHUFFLE_SEED).shuffle(paths)
    return paths


def _render(count, seed, size, statistics):
    """Yields dead-leaves images, uint8 [3, size, size]."""
    with dnnlib.util.progress(total=count, unit="image") as bar:
        for index, pixels in enumerate(dead_leaves.dead_leaves_images(count, seed, size)):
            tqdm.write(f"{index} dead leaves of seed {seed}")
            statistics.count("RGB", size, size)
            yield pixels
            bar.update()


def _convert(folder, paths, statistics):
    """Yields the decoded images, uint8 [3, H, W], in the order of `paths`. UserError if none could be decoded."""
    written = 0
    with dnnlib.util.progress(total=len(paths), unit="image") as bar:
        for path, mode, pixels in _decode_ahead(paths):
            bar.update()
            if isinstance(pixels, Exception):
                tqdm.write(f"skipped: {dnnlib.util.describe_error(pixels)}", file=sys.stderr)
                if isinstance(pixels, images.Refused):
                    statistics.refused += 1
                else:
                    statistics.broken += 1
                continue
            tqdm.write(f"{written} {path}")
            statistics.count(mode, pixels.shape[2], pixels.shape[1])
            yield pixels
            written += 1
    if not written:
        raise dnnlib.UserError(f"{folder}: none of its {len(paths)} images could be decoded and kept")


def _convert_scenes(scenes, statistics):
    """Yields (pixels uint8 [3, H, W], number of the scene) of the shots of `scenes`, lists of paths of shots.

    Shots that cannot be used are named and left out, and scenes without two that can. UserError if that is all of them.
    """
    decoded, written = _decode_ahead(list(itertools.chain(*scenes))), 0
    for paths in dnnlib.util.progress(scenes, unit="scene"):
        first, usable = None, 0
        for shot in itertools.islice(decoded, len(paths)):
            fault = _fault(shot, first)
            if fault:
                tqdm.write(f"skipped: {fault}", file=sys.stderr)
                statistics.left_out += 1
                continue
            usable += 1
            if usable == 1:
                first = shot  # Held back until there is a second one; the others need not be in memory together.
                continue
            for path, mode, pixels in (first, shot) if usable == 2 else (shot,):
                tqdm.write(f"{written} {path}")
                statistics.count(mode, pixels.shape[2], pixels.shape[1])
                yield pixels, statistics.scenes
                written += 1
            statistics.shifts.append(_tell_shift(first, shot))
        statistics.scenes += usable > 1
        if usable == 1:
            tqdm.write(f"skipped: {first[0]}: no other shot of its scene can be used", file=sys.stderr)
            statistics.left_out += 1
    if not written:
        raise dnnlib.UserError(f"none of the {len(scenes)} scenes has two shots that can be used")


def _fault(shot, first):
    """Why a decoded shot (path, mode, pixels or error) cannot be used after the first one of its scene, or None."""
    path, _, pixels = shot
    if isinstance(pixels, Exception):
        return dnnlib.util.describe_error(pixels)
    if first and pixels.shape != first[2].shape:
        return f"{path}: differs in size from {first[0]}"
    if first and np.array_equal(pixels, first[2]):
        return f"{path}: is a copy of {first[0]}; their noise has to differ"
    return None


def _tell_shift(first, shot):
    """Estimates by how many pixels a decoded shot lies off the first one, or None, and tells it where that is much."""
    shift = shots.estimate_shift(first[2], shot[2])
    if shift is None:
        return None
    distance = float(np.hypot(*shift))
    if distance >= _SHIFTED:
        down, right = shift
        tqdm.write(f"shifted: {shot[0]}: {down:+.1f} down, {right:+.1f} right of {first[0]}", file=sys.stderr)
    return distance


def _decode_ahead(paths):
    """Yields (path, mode as stored, pixels uint8 [3, H, W] or the error) in order, decoded on all cores.

    Headers are read here, one after the other, to know the pixels of what is in flight before any are decoded.
    """
    pending, in_flight = collections.deque(), 0
    pool = concurrent.futures.ThreadPoolExecutor(dnnlib.util.cpu_count())  # More would wait for Python's lock.
    try:
        for path in paths:
            mode, size = _read_header(path)
            while pending and (in_flight + size > _MAX_PIXELS or len(pending) == _MAX_FILES):
                done_path, done_mode, done_size, future = pending.popleft()
                yield done_path, done_mode, future.result()
                in_flight -= done_size
            pending.append((path, mode, size, pool.submit(_read_or_error, path)))
            in_flight += size
        while pending:
            done_path, done_mode, _, future = pending.popleft()
            yield done_path, done_mode, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_header(path):
    """(Mode as stored, number of pixels); (None, 0) if it cannot be read, which `_read_or_error` will tell."""
    try:
        mode, (width, height) = rgb_files.read_header(path)
        return mode, width * height
    except (dnnlib.UserError, OSError):
        return None, 0


def _read_or_error(path):
    try:
        return np.ascontiguousarray(rgb_files.read_rgb(path))  # Laid out here, not by the one thread that writes.
    except (dnnlib.UserError, OSError) as error:
        return error


if __name__ == "__main__":
    dnnlib.cli_main(main)
