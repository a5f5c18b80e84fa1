"""NIfTI volumes: find them in a folder, name them and read them."""

import functools
import math
import os
import re
import warnings
from collections import Counter
from pathlib import PurePath

import numpy as np

import dnnlib
from dnnlib.util import words_of

MAX_VOXELS = 1 << 29  # A head at 0.25 mm has 500 million. A voxel takes 8 bytes if the file scales its values.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # {plane: index of its normal axis among right, anterior, superior}
_DEFLATE_RATIO = 1032  # Maximum compression ratio of gzip.
_NAME = re.compile(r"(.+)\.nii(\.gz)?", re.IGNORECASE)


class UnusableVolumeError(dnnlib.UserError):
    """Raised for a volume that is skipped. Other UserErrors end the program."""


def find_volumes(folder, pattern="*"):
    """Return {name: path} of the .nii and .nii.gz files below `folder`, in name order.

    A volume has the name of its file. If two files share a name, all names begin with their folders: "sub-01_T1" is
    sub-01/T1. Links to folders are followed; hidden files and folders are skipped. A line on stdout counts other files.

    Args:
        pattern: Shell pattern of the files to take, such as "*T1w*" or "anat/*T1w*".

    Raises:
        UserError: There is no such volume, or two have the same name.
    """
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of volumes")
    files = list(dnnlib.util.files_below(folder))
    found = [path for path in files if _NAME.fullmatch(os.path.basename(path))]
    _report_others(set(files) - set(found))
    if not found:
        raise dnnlib.UserError(f"{folder}: holds no .nii or .nii.gz")
    taken = [path for path in found if PurePath(path).match(pattern)]
    if not taken:
        example = os.path.basename(found[0])
        raise dnnlib.UserError(f"--name {pattern}: matches none of the {len(found)} volumes in {folder}, {example} ...")
    if len(taken) < len(found):
        print(f"{len(taken)} of {len(found)} volumes match --name {pattern}")
    volumes = _named(folder, taken)
    _report_kinds(volumes)
    return volumes


def _named(folder, paths):
    """Return {name: path} in name order."""
    names, volumes = {path: _NAME.sub(r"\1", os.path.basename(path)) for path in paths}, {}
    shared = len({*names.values()}) < len(names)
    for path, name in names.items():
        if shared:
            name = "_".join([*os.path.relpath(path, folder).split(os.sep)[:-1], name])
        if name in volumes:
            raise dnnlib.UserError(f"{path}: its slices would have the names of those of {volumes[name]}; rename one")
        volumes[name] = path
    return dict(sorted(volumes.items()))


def _report_others(paths):
    """Print the number of files that are not volumes, by suffix."""
    suffixes = Counter(os.path.splitext(path)[1].lower() for path in paths)
    if suffixes:
        print(f"skipped: {_list(suffixes, 'without a suffix')}")


def _report_kinds(names):
    """Print a note if the last parts of the names, such as T1w and mask, show that there are several kinds."""
    parts = (re.split("[_-]", name)[-1] for name in names)
    kinds = Counter(part if re.search("[a-zA-Z]", part) else "" for part in parts)
    if 1 < len(kinds) < len(names):
        most = next(kind for kind, _ in kinds.most_common() if kind)
        print(f"note: volumes of several kinds: {_list(kinds, 'others')}; --name '*{most}*' takes one kind")


def _list(counts, nameless):
    """Return {"a": 3, "b": 2} as "3 a, 2 b"."""
    text = ", ".join(f"{count} {name or nameless}" for name, count in counts.most_common(4))
    return f"{text} and {len(counts) - 4} other kinds" if len(counts) > 4 else text


@np.errstate(all="ignore")  # Remarks and errors report odd values.
def read_volume(path, plane=None, white=100):
    """Read a NIfTI file.

    Without `plane`, the array has the file's axes. With it, slices look as radiologists show them: rows from superior
    to inferior (axial: anterior to posterior), columns from the patient's right to left (sagittal: anterior to
    posterior), slices numbered towards right, anterior or superior. NaN becomes 0.

    Args:
        path: The file.
        plane: One of PLANES, to which the third axis becomes perpendicular, or None.
        white: Percentile of the values above zero that becomes white; 100 is the maximum.

    Returns:
        (array, value that becomes white, list of remarks)

    Raises:
        UnusableVolumeError: The file cannot be read, or is not one volume of finite numbers.
    """
    nibabel = _nibabel()
    try:
        volume = nibabel.load(path)
        check_size(volume, path)
        volume = nibabel.squeeze_image(volume)  # Drops fourth and further axes of length 1.
        if plane:
            volume = nibabel.as_closest_canonical(volume)
        data = np.asanyarray(volume.dataobj)
    except UnusableVolumeError:
        raise
    except Exception as error:  # nibabel, gzip and zlib raise many kinds of errors for damaged files.
        raise UnusableVolumeError(f"{path}: cannot be read ({words_of(error)})") from None
    remarks, missing = [], np.isnan(data)
    if missing.any():
        data = np.where(missing, data.dtype.type(0), data)
        remarks.append(f"NaN in {missing.mean():.2%} of the voxels, replaced by 0")
    if not np.isfinite(data).all():
        raise UnusableVolumeError(f"{path}: has infinite values")
    peak = data.max()
    if peak <= 0:
        raise UnusableVolumeError(f"{path}: has no value above zero")
    if white < 100:
        peak = np.percentile(data[data > 0], white)
    if not 1e-30 < peak < 1e30:
        raise UnusableVolumeError(f"{path}: its maximum of {peak:g} exceeds single precision")
    if np.count_nonzero(data > peak / 5) < np.count_nonzero(data > 0) / 1000:
        remarks.append(
            f"dark: fewer than one voxel in 1000 exceeds a fifth of its maximum of {peak:g}; try --white 99.9"
        )
    if plane:
        data = np.moveaxis(data, PLANES[plane], 2).transpose(1, 0, 2)[::-1, ::-1]
    return data, peak, remarks


def check_size(volume, path):
    """Check the header of a nibabel image before memory is allocated for its data.

    Raises:
        UnusableVolumeError: It is not one volume of numbers, or is larger than the file can hold or the limit allows.
    """
    dtype, shape = volume.get_data_dtype(), volume.shape
    if dtype.kind not in "biuf" or min(shape) < 1 or len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise UnusableVolumeError(f"{path}: is {list(shape)} of {dtype}, not a volume of numbers")
    voxels, ratio = math.prod(shape), _DEFLATE_RATIO if path.lower().endswith(".gz") else 1
    if volume.dataobj.offset + voxels * dtype.itemsize > os.path.getsize(path) * ratio:
        raise UnusableVolumeError(f"{path}: is truncated or damaged: it cannot hold {list(shape)} of {dtype}")
    if voxels > MAX_VOXELS:
        raise UnusableVolumeError(f"{path}: has {voxels >> 20} million voxels; the limit is {MAX_VOXELS >> 20} million")


@functools.cache
def _nibabel():
    """Return nibabel, without its messages about odd headers, which name no file."""
    import nibabel

    nibabel.imageglobals.logger.disabled = True
    warnings.filterwarnings("ignore", module="nibabel")
    return nibabel
