"""Make training data: a TFRecords file from a folder of images, or of synthetic dead-leaves images.

    python dataset_tool_tf.py --input-dir datasets/imagenet --out datasets/imagenet.tfrecords
    python dataset_tool_tf.py --dead-leaves 20000 --seed 1 --out datasets/dead_leaves.tfrecords
    python dataset_tool_tf.py --verify datasets/imagenet.tfrecords

For training without clean images, make it from noisy shots: two shots of each scene under the same name in two
folders, or one folder per scene with two or more shots:

    python dataset_tool_tf.py --pairs shots/a shots/b --out datasets/shots.tfrecords
    python dataset_tool_tf.py --bursts shots --out datasets/shots.tfrecords

The tool prints "<number of the record> <file>" for each image, then statistics. Images keep their size and are
converted to 8-bit RGB, or with --channels 1 to 8-bit greyscale (ITU-R 601). Files that cannot be decoded are listed
and skipped, and so are files that 8 bits cannot keep: floating-point or signed samples, stacks of pages, channels other
than RGB and alpha. The shots of a scene must be aligned: the tool estimates and reports shifts, but does not correct
them.
"""

import collections
import concurrent.futures
import functools
import itertools
import os
import sys

import numpy as np
from tqdm import tqdm

import dnnlib
from dnnlib.options import ArgumentParser, one_of, positive_int, seed
from imaging import images, rgb_files
from records import dead_leaves, shots, tfrecords

_SHUFFLE_SEED = 0x1234F00D
_MAX_PIXELS = 32 << 20  # Limit of pixels decoded ahead, about 16 bytes each. A larger image is decoded alone.
_MAX_FILES = 256  # Limit of files decoded ahead.
_LARGE = 256  # Pixels: training takes crops of 256x256 and enlarges smaller images.
_SHIFTED = 0.5  # Pixels: shots with a larger shift are reported.
_SIZES = (16, 4096)  # Sides of dead leaves in pixels; rendering needs about 200 bytes of memory per pixel.


class Statistics:
    """Counts of the images in a file, and of the files left out."""

    def __init__(self):
        self.formats = collections.Counter()
        self.large = self.broken = self.refused = 0
        self.scenes = self.left_out = 0  # Scenes of noisy shots, and shots left out of them.
        self.shifts = []  # Pixels by which each shot is shifted from the first of its scene; None: unknown.

    def count(self, mode, width, height):
        """Count an image of `width` x `height` pixels that is stored in a Pillow mode such as RGB, L or CMYK."""
        self.formats[mode] += 1
        self.large += min(width, height) >= _LARGE

    def shifted(self):
        """Return the number of shots that are shifted from the first of their scene."""
        return sum(shift is not None and shift >= _SHIFTED for shift in self.shifts)

    def __str__(self):
        small = self.formats.total() - self.large
        lines = ["Dataset statistics:", "  Formats:"]
        lines += [f"    {mode}: {count} images" for mode, count in self.formats.most_common()]
        lines += ["  width,height buckets:"]
        lines += [f"    >= {_LARGE}x{_LARGE}: {self.large} images", f"    < {_LARGE}x{_LARGE}: {small} images"]
        if self.broken:
            lines += [f"  Not decodable: {self.broken} files"]
        if self.refused:
            lines += [f"  Refused: {self.refused} files"]
        if self.scenes:
            lines += [f"  Scenes: {self.scenes}"]
            if self.left_out:
                lines += [f"  Left out: {self.left_out} shots"]
            lines += [f"  Shifted by {_SHIFTED} pixels or more: {self.shifted()} shots"]
            lines += [f"  Too flat, noisy or small to tell: {self.shifts.count(None)} shots"]
        return "\n".join(lines)


def main():
    """Run the command line."""
    args = _parse_arguments()
    if args.verify:
        _verify(args.verify)
        return
    dnnlib.util.check_output(args.out)
    statistics, read = Statistics(), functools.partial(rgb_files.read, channels=args.channels)
    if args.pairs or args.bursts:
        scenes = shots.find_pairs(*args.pairs) if args.pairs else shots.find_bursts(args.bursts)
        tfrecords.write_shots(args.out, _convert_scenes(scenes, statistics, read))
    elif args.dead_leaves:
        size = args.size or dead_leaves.SIZE
        tfrecords.write_images(args.out, _render(args.dead_leaves, args.seed or 0, size, args.channels, statistics))
    else:
        paths = _list_shuffled(args.input_dir)
        tfrecords.write_images(args.out, _convert(args.input_dir, paths, statistics, read))
    print(statistics)
    if statistics.shifted():
        print("warning: shifted shots teach a network to blur; align or remove them", file=sys.stderr)


def _parse_arguments():
    parser = ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input-dir", metavar="DIR", help="folder of images")
    source.add_argument(
        "--pairs",
        metavar=("DIR", "DIR"),
        nargs=2,
        help="two folders: two noisy shots of each scene",
    )
    source.add_argument("--bursts", metavar="DIR", help="folder with one folder of two or more noisy shots per scene")
    source.add_argument("--dead-leaves", metavar="N", type=positive_int, help="number of dead-leaves images to render")
    source.add_argument("--verify", metavar="FILE", help="read a whole TFRecords file and list damaged records")
    parser.add_argument("--seed", type=seed, help="seed of --dead-leaves; equal seeds render equal images; default 0")
    parser.add_argument(
        "--size", type=positive_int, help=f"side of --dead-leaves in pixels; default {dead_leaves.SIZE}"
    )
    parser.add_argument("--channels", type=one_of(1, 3), default=3, help="3: RGB, the default; 1: greyscale")
    parser.add_argument("--out", metavar="FILE", help="TFRecords file to write")
    args = parser.parse_args()
    if not args.verify and not args.out:
        parser.error("argument --out: name a file to write")
    if args.dead_leaves is None and (args.seed is not None or args.size is not None):
        parser.error("--seed and --size need --dead-leaves")
    if args.size is not None and not _SIZES[0] <= args.size <= _SIZES[1]:
        parser.error(f"argument --size: {args.size} is not between {_SIZES[0]} and {_SIZES[1]}")
    return args


def _verify(path):
    """Read every image of a TFRecords file and list the damaged ones. Raises UserError at the end if there are any."""
    records, damaged = tfrecords.ImageRecords(path), 0
    for record in dnnlib.util.progress(range(len(records)), unit="image"):
        try:
            records.read(record)
        except dnnlib.UserError as error:
            tqdm.write(f"damaged: {error}", file=sys.stderr)
            damaged += 1
    if damaged:
        raise dnnlib.UserError(f"{path}: {damaged} of {len(records)} records are damaged; write it again")
    scenes = records.scenes()
    what = "images" if scenes[0, 1] == 1 else f"noisy shots of {len(scenes)} scenes"
    print(f"{path}: {len(records)} {what}, all whole")


def _list_shuffled(folder):
    """Return the image paths in `folder` in the order of their records. Raises UserError if there are none."""
    paths = images.list_images(folder)
    if not paths:
        has_folders = any(entry.is_dir() for entry in os.scandir(folder))
        hint = "; name the subfolder that has them" if has_folders else ""
        raise dnnlib.UserError(f"{folder}: has no images ({', '.join(images.SUFFIXES)}){hint}")
    np.random.RandomState(_SHUFFLE_SEED).shuffle(paths)
    return paths


def _render(count, seed, size, channels, statistics):
    """Yield dead-leaves images, uint8 [C, size, size]."""
    with dnnlib.util.progress(total=count, unit="image") as bar:
        for index, pixels in enumerate(dead_leaves.dead_leaves_images(count, seed, size)):
            tqdm.write(f"{index} dead leaves of seed {seed}")
            statistics.count("RGB" if channels == 3 else "L", size, size)
            yield pixels if channels == 3 else images.to_grey(pixels)
            bar.update()


def _convert(folder, paths, statistics, read=rgb_files.read_rgb):
    """Yield the images, uint8 [C, H, W], in the order of `paths`. Raises UserError if there are none.

    read: Function that returns the pixels of a file.
    """
    written = 0
    with dnnlib.util.progress(total=len(paths), unit="image") as bar:
        for path, mode, pixels in _decode_ahead(paths, read):
            bar.update()
            if isinstance(pixels, Exception):
                tqdm.write(f"skipped: {dnnlib.util.describe_error(pixels)}", file=sys.stderr)
                refused = isinstance(pixels, images.Refused)
                statistics.refused += refused
                statistics.broken += not refused
                continue
            tqdm.write(f"{written} {path}")
            statistics.count(mode, pixels.shape[2], pixels.shape[1])
            yield pixels
            written += 1
    if not written:
        raise dnnlib.UserError(f"{folder}: none of its {len(paths)} images could be decoded and kept")


def _convert_scenes(scenes, statistics, read):
    """Yield (pixels uint8 [C, H, W], number of the scene) for the shots of `scenes`, which are lists of paths.

    Unusable shots are listed and left out, and so are scenes with fewer than two usable shots. Raises UserError if no
    scene is left.
    """
    decoded, written = _decode_ahead(list(itertools.chain(*scenes)), read), 0
    for paths in dnnlib.util.progress(scenes, unit="scene"):
        usable = _usable_shots(itertools.islice(decoded, len(paths)), statistics)
        first, second = next(usable, None), next(usable, None)
        if second:
            for shot in itertools.chain((first, second), usable):
                path, mode, pixels = shot
                tqdm.write(f"{written} {path}")
                statistics.count(mode, pixels.shape[2], pixels.shape[1])
                yield pixels, statistics.scenes
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
    """Yield the usable shots among the decoded ones (path, mode, pixels or error) of a scene; list the others."""
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
    path, _, pixels = shot
    if isinstance(pixels, Exception):
        return dnnlib.util.describe_error(pixels)
    if first and pixels.shape != first[2].shape:
        return f"{path}: differs in size from {first[0]}"
    if first and np.array_equal(pixels, first[2]):
        return f"{path}: is a copy of {first[0]}; their noise must differ"
    return None


def _report_shift(first, shot):
    """Return by how many pixels a decoded shot is shifted from the first one, or None; print large shifts."""
    shift = shots.estimate_shift(first[2], shot[2])
    if shift is None:
        return None
    distance = float(np.hypot(*shift))
    if distance >= _SHIFTED:
        down, right = shift
        tqdm.write(f"shifted: {shot[0]}: {down:+.1f} down, {right:+.1f} right of {first[0]}", file=sys.stderr)
    return distance


def _decode_ahead(paths, read):
    """Yield (path, mode as stored, pixels uint8 [C, H, W] or the error) in order, decoded on all CPU cores.

    Headers are read first, one by one, to limit the number of pixels that are decoded ahead.
    """
    pending, in_flight = collections.deque(), 0
    pool = concurrent.futures.ThreadPoolExecutor(dnnlib.util.cpu_count())  # More threads would wait for the GIL.
    try:
        for path in paths:
            mode, size = _read_header(path)
            while pending and (in_flight + size > _MAX_PIXELS or len(pending) == _MAX_FILES):
                future, done_size = pending.popleft()
                yield future.result()
                in_flight -= done_size
            pending.append((pool.submit(_decode, path, mode, read), size))
            in_flight += size
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_header(path):
    """Return (mode as stored, number of pixels); (None, 0) for a broken file, which `_decode` reports."""
    try:
        mode, (width, height) = rgb_files.read_header(path)
        return mode, width * height
    except (dnnlib.UserError, OSError):
        return None, 0


def _decode(path, mode, read):
    try:
        return path, mode, np.ascontiguousarray(read(path))  # Copied here, in many threads.
    except (dnnlib.UserError, OSError) as error:
        return path, mode, error


if __name__ == "__main__":
    dnnlib.cli_main(main)
