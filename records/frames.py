"""The images of a data set: files, pages of stacks, images of arrays; and the type and range of their samples."""

import functools
import os

import dnnlib
from imaging import array_files, images, rgb_files, scale
from records.decoding import decode_ahead

SUFFIXES = images.SUFFIXES + array_files.SUFFIXES
READINGS = ("scenes", "shots")  # What the pages of a stack can be.


def list_files(path):
    """Return the sorted paths of the images and arrays in a folder; a file is a list of one. UserError if none."""
    if os.path.isfile(path):
        return [path]
    paths = images.list_images(path, suffixes=SUFFIXES)
    if not paths:
        has_folders = any(entry.is_dir() for entry in os.scandir(path))
        hint = "; name the subfolder that has them" if has_folders else ""
        raise dnnlib.UserError(f"{path}: has no images ({', '.join(SUFFIXES)}){hint}")
    return paths


def pages_of(path):
    """Return the pages of a file as a list of Frames; just the path if there is only one page or the file is broken."""
    try:
        _, count = rgb_files.stored_as(path)
    except (dnnlib.UserError, OSError):  # Reported when it is decoded.
        return [path]
    return [rgb_files.Frame(path, page, count) for page in range(count)] if count > 1 else [path]


def choose_scale(frames, channels, sample_range):
    """Choose how the samples of frames are stored together.

    Files of 16 bits only keep these, and so do files of floating point only. All others become 8 bits.

    Args:
        frames: Paths and Frames.
        channels: 1 or 3.
        sample_range: See `scale.parse_range`.

    Returns:
        (Scale, function that reads the samples of a frame).

    Raises:
        UserError: The types do not go together, or the range is unknown.
    """
    types = _types(frames)
    if len(types) > 1 and (sample_range or "uint8" not in types):
        what = ", ".join(sorted(types))
        raise dnnlib.UserError(f"the files have samples of several types ({what}); make a data set of each")
    dtype = types.pop() if len(types) == 1 else "uint8"
    read = functools.partial(_read, channels=channels, dtype=dtype)
    extent = scale.Extent(len(frames))
    if dtype != "uint8" or sample_range == "auto":
        silent = functools.partial(read, note=lambda text: None)
        decoded = decode_ahead(frames, silent)
        for _, _, samples in dnnlib.util.progress(decoded, total=len(frames), unit="image", desc="range"):
            if not isinstance(samples, Exception):
                extent.add(samples)
        if extent.low > extent.high:  # None could be read; the conversion says why.
            return scale.full_scale(dtype), read
    chosen, how = scale.scale_of_set(dtype, sample_range, extent)
    if chosen != scale.EIGHT_BITS:
        print(f"Samples: {chosen}: {how}.")
    return chosen, read


def _types(frames):
    types, paths = set(), dict.fromkeys(getattr(frame, "path", frame) for frame in frames)
    for path in paths:
        try:
            types.add(rgb_files.stored_as(path)[0])
        except (dnnlib.UserError, OSError):  # Reported when it is decoded.
            continue
    return types


def _read(frame, channels, dtype, note=rgb_files.print_note):
    if dtype == "uint8":
        return rgb_files.read(frame, channels, note)
    samples = rgb_files.read_samples(frame, channels, note)
    if samples.dtype != dtype:
        raise images.Refused(f"{frame}: has samples of {samples.dtype}, the others of {dtype}")
    return samples
