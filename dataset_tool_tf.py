"""Make training data: a TFRecords file from a folder of images, or of synthetic dead-leaves images.

    python dataset_tool_tf.py --input-dir datasets/imagenet --out datasets/imagenet.tfrecords
    python dataset_tool_tf.py --dead-leaves 20000 --seed 1 --out datasets/dead_leaves.tfrecords
    python dataset_tool_tf.py --verify datasets/imagenet.tfrecords

For training without clean images, make it from noisy shots: two shots of each scene under the same name in two
folders, or one folder per scene with two or more shots:

    python dataset_tool_tf.py --pairs shots/a shots/b --out datasets/shots.tfrecords
    python dataset_tool_tf.py --bursts shots --out datasets/shots.tfrecords

A stack of frames (TIFF, or a NumPy array [T, H, W] or [T, H, W, C] in .npy or .npz) needs --frames: with "scenes" every
page is an image, with "shots" the pages of a file are the noisy shots of one scene. --input-dir may name the file:

    python dataset_tool_tf.py --input-dir series.tif --frames shots --channels 1 --out datasets/series.tfrecords

Noisy shots can also be simulated from clean photographs, by the random cameras of --noise camera:

    python dataset_tool_tf.py --input-dir photos --camera-shots 4 --out datasets/camera.tfrecords

The tool prints "<number of the record> <file>" for each image, then statistics. Images keep their size and are
converted to RGB, or with --channels 1 to greyscale (ITU-R 601). If all files have 16 bits, or floating-point samples,
these are kept, and --range says which are black and white; otherwise images become 8-bit. Files that cannot be decoded
or kept are listed and skipped. The shots of a scene must be aligned: the tool estimates and reports shifts, and --align
takes out whole pixels.
"""

import collections
import itertools
import sys

import numpy as np
from tqdm import tqdm

import corruption
import dnnlib
from dnnlib.options import ArgumentParser, choice, one_of, positive_int, range_end, seed
from imaging import images, rgb_files, scale
from records import dead_leaves, frames, shots, tfrecords
from records.decoding import decode_ahead
from records.scenes import SHIFTED, convert_scenes

_SHUFFLE_SEED = 0x1234F00D
_LARGE = 256  # Pixels: training takes crops of 256x256 and enlarges smaller images.
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
        return sum(shift is not None and shift >= SHIFTED for shift in self.shifts)

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
            lines += [f"  Shifted by {SHIFTED} pixels or more: {self.shifted()} shots"]
            lines += [f"  Too flat, noisy or small to tell: {self.shifts.count(None)} shots"]
        return "\n".join(lines)


def main():
    """Run the command line."""
    args = _parse_arguments()
    if args.verify:
        _verify(args.verify)
        return
    dnnlib.util.check_output(args.out)
    statistics, sample_range = Statistics(), scale.parse_range(args.range)
    if args.dead_leaves:
        size = args.size or dead_leaves.SIZE
        tfrecords.write_images(args.out, _render(args.dead_leaves, args.seed or 0, size, args.channels, statistics))
    elif scenes := _find_scenes(args):
        chosen, read = frames.choose_scale([*itertools.chain(*scenes)], args.channels, sample_range)
        tfrecords.write_shots(args.out, convert_scenes(scenes, statistics, read, args.align), chosen)
    elif args.camera_shots:
        photographs = _convert(args.input_dir, _find_images(args), statistics)
        tfrecords.write_shots(args.out, _take_shots(photographs, args.camera_shots, args.seed or 0))
    else:
        found = _find_images(args)
        chosen, read = frames.choose_scale(found, args.channels, sample_range)
        tfrecords.write_images(args.out, _convert(args.input_dir, found, statistics, read), chosen)
    print(statistics)
    if statistics.shifted():
        print("warning: shifted shots teach a network to blur; use --align, or remove them", file=sys.stderr)


def _parse_arguments():
    parser = ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input-dir", metavar="DIR", help="folder of images, or one file")
    source.add_argument(
        "--pairs",
        metavar=("DIR", "DIR"),
        nargs=2,
        help="two folders: two noisy shots of each scene",
    )
    source.add_argument("--bursts", metavar="DIR", help="folder with one folder of two or more noisy shots per scene")
    source.add_argument("--dead-leaves", metavar="N", type=positive_int, help="number of dead-leaves images to render")
    source.add_argument("--verify", metavar="FILE", help="read a whole TFRecords file and list damaged records")
    parser.add_argument(
        "--camera-shots",
        metavar="N",
        type=positive_int,
        help="write N noisy shots (2 or more) of each image of --input-dir, taken by a random camera of --noise camera",
    )
    parser.add_argument("--seed", type=seed, help="seed of --dead-leaves and --camera-shots; default 0")
    parser.add_argument(
        "--size", type=positive_int, help=f"side of --dead-leaves in pixels; default {dead_leaves.SIZE}"
    )
    parser.add_argument(
        "--frames",
        type=choice(frames.READINGS),
        metavar="{scenes,shots}",
        help="what the pages of a stack are: scenes, each an image; or the noisy shots of one scene",
    )
    parser.add_argument(
        "--align", action="store_true", help="crop shots so that whole pixels of their shifts are taken out"
    )
    parser.add_argument(
        "--range",
        nargs="+",
        type=range_end,
        metavar=("LOW", "HIGH"),
        help="samples that are black and white, or auto: the 0.1 and 99.9 %% points of all; samples beyond are kept",
    )
    parser.add_argument("--channels", type=one_of(1, 3), default=3, help="3: RGB, the default; 1: greyscale")
    parser.add_argument("--out", metavar="FILE", help="TFRecords file to write")
    args = parser.parse_args()
    if not args.verify and not args.out:
        parser.error("argument --out: name a file to write")
    if args.size is not None and not args.dead_leaves:
        parser.error("--size needs --dead-leaves")
    if args.seed is not None and not (args.dead_leaves or args.camera_shots):
        parser.error("--seed needs --dead-leaves or --camera-shots")
    if args.camera_shots == 1:
        parser.error("argument --camera-shots: a scene needs 2 shots or more")
    if args.camera_shots and (not args.input_dir or args.frames or args.range or args.channels != 3):
        parser.error("--camera-shots needs --input-dir, of 8-bit images in colour: no --frames, --range, --channels 1")
    if args.frames and not args.input_dir:
        parser.error("--frames needs --input-dir")
    if args.align and not (args.pairs or args.bursts or args.frames == "shots"):
        parser.error("--align needs noisy shots: --pairs, --bursts or --frames shots")
    if args.range and (args.dead_leaves or args.verify):
        parser.error("--range needs --input-dir, --pairs or --bursts")
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


def _shuffled(paths):
    """Return paths in the order of their records."""
    paths = list(paths)
    np.random.RandomState(_SHUFFLE_SEED).shuffle(paths)
    return paths


def _find_scenes(args):
    """Return the scenes of noisy shots that the arguments name, as lists of frames; None for images."""
    if args.pairs:
        return shots.find_pairs(*args.pairs)
    if args.bursts:
        return shots.find_bursts(args.bursts)
    if args.frames == "shots":
        return [frames.pages_of(path) for path in _shuffled(frames.list_files(args.input_dir))]
    return None


def _find_images(args):
    """Return the images that the arguments name: paths, and pages of stacks."""
    paths = _shuffled(frames.list_files(args.input_dir))
    return [page for path in paths for page in frames.pages_of(path)] if args.frames else paths


def _render(count, seed, size, channels, statistics):
    """Yield dead-leaves images, uint8 [C, size, size]."""
    with dnnlib.util.progress(total=count, unit="image") as bar:
        for index, pixels in enumerate(dead_leaves.dead_leaves_images(count, seed, size)):
            tqdm.write(f"{index} dead leaves of seed {seed}")
            statistics.count("RGB" if channels == 3 else "L", size, size)
            yield pixels if channels == 3 else images.to_grey(pixels)
            bar.update()


def _take_shots(photographs, count, seed):
    """Yield (shot, number of the scene) for `count` shots of each photograph, uint8 [3, H, W], by a random camera."""
    noise = corruption.create("camera")
    for scene, photograph in enumerate(photographs):
        rngs = [np.random.default_rng([seed, scene, shot]) for shot in range(count)]
        for shot in noise.take_shots(photograph, rngs)[1:]:
            yield shot, scene


def _convert(folder, paths, statistics, read=rgb_files.read_rgb):
    """Yield the samples [C, H, W] of images in the order of `paths`. Raises UserError if there are none.

    read: Function that returns the samples of a file.
    """
    written = 0
    with dnnlib.util.progress(total=len(paths), unit="image") as bar:
        for path, mode, pixels in decode_ahead(paths, read):
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


if __name__ == "__main__":
    dnnlib.cli_main(main)
