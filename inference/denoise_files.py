"""Denoise image files, folders and globs; each result is of the kind of its image.

tiling.py fits images of any size into memory. docs/inference.md lists the kinds of images.
"""

import contextlib
import dataclasses
import functools
import glob
import os
import sys

import numpy as np

import dnnlib
from dnnlib import tflib
from imaging import array_files, image_files, images, metrics, pages, scale
from inference import tiling
from inference.compare import removed
from inference.networks import Networks
from inference.noise_level import estimate_noise_level
from network import channels_of

SPOT = 0.1  # Change of a block's mean colour, as a fraction of the range, above which there is a warning.


@dataclasses.dataclass
class Job:
    """Paths of an image, of its result, and of its comparison or None."""

    image: str
    out: str
    compare: str | None


def infer_images(
    image, out, network_snapshot, num_gpus, max_memory, sample_range, precision, grey_snapshot=None, compare=None,
    noise_level=None, ensemble=False, mean_stays=True,
):  # fmt: skip
    """Denoise images as they are, without adding noise: `config.py infer-image`.

    Args:
        image: List of files, folders and globs.
        out: File, or folder for several images.
        network_snapshot, grey_snapshot: Paths of the snapshots, see `Networks`.
        num_gpus: Number of GPUs to use.
        max_memory: Memory limit in bytes.
        sample_range: (black, white) of the samples; "auto": two percentiles of each file's samples; None: those that
            the network was trained with, or the default of `Page.range`.
        precision: Arithmetic of the network, see `tflib.pick_dtype`.
        compare: File or folder for comparisons, or None.
        noise_level: "auto" to estimate and print the noise level, or None.
        ensemble: Whether to take the mean over 8 turns and mirrors, see `Ensemble`.
        mean_stays: Whether to warn if the mean colour of a block changes by more than SPOT.

    Raises:
        UserError: Some images could not be denoised. With several images it is raised after the others are done.
    """
    jobs = find_jobs(image, out, compare)
    for job in jobs:
        for path in filter(None, (job.out, job.compare)):
            images.check_writable(path)
    failed = []
    tflib.pick_devices(num_gpus)
    with Networks(network_snapshot, grey_snapshot, tflib.pick_dtype(precision), ensemble) as networks:
        for job in jobs:
            try:
                _denoise_file(networks, job, max_memory, sample_range, noise_level, mean_stays)
            except Exception as error:
                words = dnnlib.util.describe_error(error)
                if len(jobs) == 1 or words is None:
                    raise
                print(f"error: {words}", file=sys.stderr)
                failed.append(job.image)
    if failed:
        raise dnnlib.UserError(f"{len(failed)} of {len(jobs)} images could not be denoised: {', '.join(failed)}")


def find_jobs(image, out, compare):
    """Return the Jobs for a list of files, folders and globs.

    With several images, a result has its image's path relative to the named folder, or to the folder that all named
    images share.

    Raises:
        UserError: There is no image, or a result would overwrite an image or another result.
    """
    named, paths = [], []
    for name in image:
        if os.path.isdir(name):
            named.append(name)
            found = images.list_tree(name, leave_out=filter(None, (out, compare)))
        else:
            found = [name] if os.path.exists(name) else _glob(name)
            named += found
        if not found:
            raise dnnlib.UserError(f"{name}: no such file, and no image there")
        paths += found
    paths = list(dict.fromkeys(paths))
    several = len(image) > 1 or paths != image
    folders = named if several and named == image[:1] else map(os.path.dirname, named)
    base = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    jobs = []
    for path in paths:
        name = os.path.relpath(os.path.abspath(path), base)
        name += ".tif" if name.lower().endswith(array_files.SUFFIXES) else ""  # Arrays become TIFF files.
        comparison = None if compare is None else _output(compare, name + _comparison_suffix(name), several)
        jobs.append(Job(path, _output(out, name, several), comparison))
    taken = {os.path.realpath(path): path for path in paths}
    for path in (path for job in jobs for path in (job.out, job.compare) if path):
        if os.path.realpath(path) in taken:
            raise dnnlib.UserError(
                f"{path}: would overwrite {taken[os.path.realpath(path)]}; name another file or folder"
            )
        taken[os.path.realpath(path)] = "the result of another image"
    return jobs


def _glob(pattern):
    """Return the sorted paths of images that match `pattern`, whether its brackets are a set of characters or plain."""
    folder, rest = "", pattern
    # Leading parts that are names of folders are not patterns.
    while "/" in rest and os.path.isdir(folder + rest[: rest.index("/") + 1]):
        length = rest.index("/") + 1
        folder, rest = folder + rest[:length], rest[length:]
    patterns = {glob.escape(folder) + r for r in (rest, rest.replace("[", "[[]"))}
    found = {path for p in patterns for path in glob.glob(p, recursive=True)}
    return sorted(path for path in found if path.lower().endswith(images.SUFFIXES) and not os.path.isdir(path))


def _output(path, name, several):
    is_folder = os.path.isdir(path) or path.endswith("/")
    if several and not is_folder and (os.path.exists(path) or path.lower().endswith(images.SUFFIXES)):
        raise dnnlib.UserError(f"{path}: is a file; name a folder for the results of several images")
    return os.path.join(path, name) if several or is_folder else path


def _comparison_suffix(name):
    return ".tif" if name.lower().endswith((".tif", ".tiff")) else ".png"


def _denoise_file(networks, job, max_memory, sample_range, noise_level, mean_stays):
    if sample_range == "auto":
        sample_range = _auto_range(job.image)
    with image_files.open_source(job.image, sample_range) as source, contextlib.ExitStack() as stack:
        max_pixels, warned = _max_pixels(source, job, max_memory), False
        for index in range(source.pages):
            name = f"{job.image}, page {index + 1} of {source.pages}" if source.pages > 1 else job.image
            noisy = source.read(index)
            if index == 0:
                writers = _open_writers(job, noisy, source, stack)
            net = networks.for_page(noisy, job.image)
            doubt = None if warned else pages.range_doubt(noisy)
            if doubt:
                print(f"warning: {name}: {doubt}; set both by --range LOW HIGH", file=sys.stderr)
                warned = True
            if noise_level:
                print(f"{name}: estimated noise level: sigma {estimate_noise_level(noisy):.1f} of 255")
            denoised = _denoise_page(net, noisy, max_pixels, name, mean_stays)
            if job.compare:
                writers[1](removed(noisy, denoised))
            del noisy
            writers[0](denoised)
    print(f"Denoised {job.image} to {job.out}.")


def _auto_range(path):
    """Choose and print the samples of a file that are black and white."""
    with image_files.open_source(path) as source:
        extent = scale.Extent(source.pages)
        for index in range(source.pages):
            extent.add(source.read(index).colours)
        chosen, how = scale.scale_of_set(source.dtype, "auto", extent)
    print(f"{path}: {chosen} ({how}).")
    return chosen.black, chosen.white


def _max_pixels(source, job, max_memory):
    """Return the maximum pixels of a tile for `max_memory` bytes. Raise UserError if they do not suffice."""
    pixels = source.size[0] * source.size[1]
    # Held at once: a page and Pillow's copy of it with 4 bytes per pixel, or a noisy and a denoised page.
    held = tiling.BYTES_OF_PROCESS + source.nbytes + max(source.nbytes, 4 * pixels)
    if job.compare:
        held += source.nbytes + 3 * (3 + 4) * pixels
    height, width = tiling.tile_shape(source.size, max_pixels=0)
    needed = held + tiling.BYTES_PER_PIXEL * height * width
    if needed > max_memory:
        raise dnnlib.UserError(
            f"{job.image}: {source.size[1]}x{source.size[0]} pixels need {_gib(needed + 2**26)}; "
            f"--max-memory is {_gib(max_memory)}"
        )
    return min((max_memory - held) // tiling.BYTES_PER_PIXEL, tiling.MAX_PIXELS)


def _gib(size):
    return f"{size / 2**30:.1f} GiB"


def _open_writers(job, noisy, source, stack):
    """Return [write(denoised page), write(comparison)]. Raise UserError if a file cannot hold its pages."""
    height, width = noisy.size
    comparison = pages.Page(np.broadcast_to(np.uint8(0), [height, 3 * width, 3]), pages.Kind())
    files = [(job.out, noisy)]
    if job.compare:
        files.append((job.compare, comparison))
    for path, page in files:
        image_files.check_holds(path, page, source.pages)
    for loss in image_files.losses(job.out, noisy):
        print(f"note: {job.image}: {loss}")
    for path, _ in files:
        dnnlib.util.make_parents(path)
    return [stack.enter_context(image_files.page_writer(path, source.pages * source.nbytes)) for path, _ in files]


def _denoise_page(net, noisy, max_pixels, name, mean_stays):
    """Return the denoised page. Warn if `mean_stays` and the mean colour of a block has changed by more than SPOT."""
    denoised = noisy.blank()
    shape = tiling.tile_shape(noisy.size, max_pixels)
    count = tiling.tile_count(noisy.size, shape)
    if count > 1:
        print(f"{name}: {noisy.size[1]}x{noisy.size[0]} pixels in {count} tiles of {shape[1]}x{shape[0]}", flush=True)
    with dnnlib.util.progress(total=count, unit="tile", desc=os.path.basename(name), leave=False) as bar:
        crop, worst = functools.partial(noisy.crop, channels=channels_of(net)), (0.0, 0, 0)
        for rows, columns, y in tiling.run_tiles(net, crop, noisy.size, max_pixels):
            denoised.put(rows, columns, y, source=noisy)
            if mean_stays:
                change, (top, left) = metrics.block_change(crop(rows, columns), y)
                worst = max(worst, (change, rows.start + top, columns.start + left))
            bar.update()
    change, top, left = worst
    if change > SPOT:
        size = metrics.BLOCK
        print(
            f"warning: {name}: denoising changed the mean colour of the {size}x{size} pixels at column {left}, row "
            f"{top} by {change:.2f} of the range; look at them, the network may have invented something",
            file=sys.stderr,
        )
    return denoised
