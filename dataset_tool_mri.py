"""Makes the MRI case's data: volumes (NIfTI) -> PNG slices -> pickles of slices and spectra for dataset_mri.py.

python dataset_tool_mri.py genpng --ixi-dir IXI-T1 --outdir datasets/ixi-png
python dataset_tool_mri.py genpkl --png-dir datasets/ixi-png --pkl-dir datasets
"""

import argparse
import functools
import math
import os
import re
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import dnnlib
import images
import kspace
from dnnlib import safe_pickle
from dnnlib.util import atomic_path, check_output, make_parents, progress, words_of

SIZE = 256
PUBLISHED_SLICES = range(25, 125)
MAX_VOXELS = 1 << 29  # Of a volume; a head at 0.25 mm has 500 million. Each takes 8 bytes where its values are scaled.
_DEFLATE_RATIO = 1032  # What gzip compresses best becomes this much smaller.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # The axis it is perpendicular to, of Right, Anterior, Superior.

# The subjects of IXI-T1 behind the published result.
IXI_TRAIN = """
    IXI002-Guys-0828 IXI012-HH-1211 IXI013-HH-1212 IXI014-HH-1236 IXI015-HH-1258 IXI016-Guys-0697 IXI017-Guys-0698
    IXI019-Guys-0702 IXI020-Guys-0700 IXI021-Guys-0703 IXI022-Guys-0701 IXI023-Guys-0699 IXI024-Guys-0705
    IXI025-Guys-0852 IXI026-Guys-0696 IXI027-Guys-0710 IXI028-Guys-1038 IXI029-Guys-0829 IXI030-Guys-0708
    IXI031-Guys-0797 IXI033-HH-1259 IXI034-HH-1260 IXI035-IOP-0873 IXI036-Guys-0736 IXI037-Guys-0704 IXI038-Guys-0729
    IXI039-HH-1261 IXI040-Guys-0724 IXI041-Guys-0706 IXI042-Guys-0725 IXI043-Guys-0714 IXI044-Guys-0712
    IXI045-Guys-0713 IXI046-Guys-0824 IXI048-HH-1326 IXI049-HH-1358 IXI050-Guys-0711 IXI051-HH-1328 IXI052-HH-1343
    IXI053-Guys-0727 IXI054-Guys-0707 IXI055-Guys-0730 IXI056-HH-1327 IXI057-HH-1342 IXI058-Guys-0726 IXI059-HH-1284
    IXI060-Guys-0709 IXI061-Guys-0715 IXI062-Guys-0740 IXI063-Guys-0742""".split()  # noqa: SIM905
IXI_VALID = """
    IXI064-Guys-0743 IXI065-Guys-0744 IXI066-Guys-0731 IXI067-HH-1356 IXI068-Guys-0756 IXI069-Guys-0769
    IXI070-Guys-0767 IXI071-Guys-0770 IXI072-HH-2324 IXI073-Guys-0755""".split()  # noqa: SIM905


class UnusableVolumeError(dnnlib.UserError):
    """Of a volume that is passed over, whereas an output that cannot be written ends the program."""


# Volumes -> PNG slices.


def genpng(ixi_dir, outdir, plane, slices):
    """Writes the slices of every volume below `ixi_dir` into `outdir` as <volume>_<slice>.png, 256x256, 8-bit grey.

    A volume that cannot be used is named on stderr and passed over. UserError if none could be used.
    """
    volumes = find_volumes(ixi_dir)
    images.check_writable(os.path.join(outdir, "slice.png"))
    make_parents(os.path.join(outdir, "slice.png"))
    if any(name.lower().endswith(".png") for name in os.listdir(outdir)):
        print(f"note: {outdir} holds PNG files already; those of other names stay, and genpkl will take them too")
    written = skipped = 0
    # Decompression and PNG coding run in parallel; each thread holds one volume.
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        jobs = {name: pool.submit(export_volume, name, path, outdir, plane, slices) for name, path in volumes.items()}
        with progress(jobs.items(), unit="volume") as bar:
            for name, job in bar:
                try:
                    count, remark = job.result()
                except UnusableVolumeError as error:
                    skipped += 1
                    bar.write(f"skipped: {error}", file=sys.stderr)
                else:
                    written += count
                    bar.write(f"{name}: {count} slices{remark}", file=sys.stdout)
    finally:
        pool.shutdown(cancel_futures=True)
    print(f"{outdir}: {written} slices of {len(volumes) - skipped} volumes" + f"; {skipped} skipped" * (skipped > 0))
    if not written:
        raise dnnlib.UserError(f"{ixi_dir}: none of its {len(volumes)} volumes could be used")


def find_volumes(folder):
    """{name: path} of the .nii and .nii.gz below `folder`, in name order. UserError if none, or two of one name."""
    if not os.path.isdir(folder):
        raise dnnlib.UserError(f"{folder}: no such folder of volumes")
    volumes = {}
    for root, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            match = re.fullmatch(r"([^.].*)\.nii(\.gz)?", file, re.IGNORECASE)
            if match:
                path = os.path.join(root, file)
                if match[1] in volumes:
                    raise dnnlib.UserError(f"{path}: slices would be named as those of {volumes[match[1]]}; rename one")
                volumes[match[1]] = path
    if not volumes:
        raise dnnlib.UserError(f"{folder}: holds no .nii or .nii.gz")
    return dict(sorted(volumes.items()))


def export_volume(name, path, outdir, plane, slices):
    """Writes one volume's slices. Returns their number and a remark on what was cut. UnusableVolumeError."""
    volume, peak = read_volume(path, plane)
    depth = volume.shape[2]
    taken = range(slices.start, min(slices.stop, depth))
    if not taken:
        raise UnusableVolumeError(f"{path}: has slices 0:{depth}, none in --slices {slices.start}:{slices.stop}")
    remark = "" if taken == slices else f", the volume ends at {depth - 1}"
    if max(volume.shape[:2]) > SIZE:
        remark += f", the central {SIZE}x{SIZE} of {volume.shape[0]}x{volume.shape[1]}"
    count = 0
    for i in taken:
        with np.errstate(over="ignore"):  # Far below zero, which becomes black.
            canvas = centred(volume[:, :, i].astype(np.float32) / np.float32(peak))
        pixels = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
        if pixels.max() > 1:
            images.save_uint8(os.path.join(outdir, f"{name}_{i:03d}.png"), pixels)
            count += 1
    if count == 0:
        raise UnusableVolumeError(f"{path}: its slices {slices.start}:{slices.stop} hold next to nothing")
    return count, remark


@np.errstate(all="ignore")  # Odd values are told in other words.
def read_volume(path, plane):
    """NIfTI file -> (array of numbers whose third axis is perpendicular to `plane`, its maximum). UnusableVolumeError.

    Without a plane, the axes are the file's. With one, a slice is a picture with rows from superior to inferior (axial:
    from anterior to posterior) and columns from the patient's right to the left (sagittal: from anterior to posterior),
    as radiologists look at them; the slices are numbered towards right, anterior or superior.
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
    except Exception as error:  # nibabel, gzip and zlib have many kinds of errors for damaged files.
        raise UnusableVolumeError(f"{path}: cannot be read ({words_of(error)})") from None
    if not np.isfinite(data).all():
        raise UnusableVolumeError(f"{path}: holds NaN or infinite values")
    peak = data.max()
    if peak <= 0:
        raise UnusableVolumeError(f"{path}: holds nothing above zero")
    if not 1e-30 < peak < 1e30:
        raise UnusableVolumeError(f"{path}: its maximum of {peak:g} is beyond single precision")
    if plane:
        data = np.moveaxis(data, PLANES[plane], 2).transpose(1, 0, 2)[::-1, ::-1]
    return data, peak


def check_size(volume, path):
    """UnusableVolumeError if a nibabel image, of which only the header has been read, is not one volume of numbers.

    Also if the file cannot hold as much as its header says, for memory is taken before it is read.
    """
    dtype, shape = volume.get_data_dtype(), volume.shape
    if dtype.kind not in "biuf" or min(shape) < 1 or len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise UnusableVolumeError(f"{path}: is {list(shape)} of {dtype}, not a volume of numbers")
    voxels, ratio = math.prod(shape), _DEFLATE_RATIO if path.lower().endswith(".gz") else 1
    if volume.dataobj.offset + voxels * dtype.itemsize > os.path.getsize(path) * ratio:
        raise UnusableVolumeError(f"{path}: is cut short, or damaged: it cannot hold {list(shape)} of {dtype}")
    if voxels > MAX_VOXELS:
        raise UnusableVolumeError(f"{path}: has {voxels >> 20} million voxels; the limit is {MAX_VOXELS >> 20} million")


@functools.cache
def _nibabel():
    """nibabel, without its remarks on odd headers, which name no file."""
    import nibabel

    nibabel.imageglobals.logger.disabled = True
    warnings.filterwarnings("ignore", module="nibabel")
    return nibabel


def centred(picture):
    """[H, W] -> [256, 256]: the centre of what is larger, zeros around what is smaller."""
    canvas = np.zeros((SIZE, SIZE), picture.dtype)
    source = tuple(slice(max(0, (n - SIZE) // 2), max(0, (n - SIZE) // 2) + SIZE) for n in picture.shape)
    place = tuple(slice(max(0, (SIZE - n) // 2), max(0, (SIZE - n) // 2) + min(n, SIZE)) for n in picture.shape)
    canvas[place] = picture[source]
    return canvas


# PNG slices -> pickles.


def genpkl(png_dir, pkl_dir, valid_subjects):
    """Writes ixi_train.pkl and ixi_valid.pkl to `pkl_dir`, each the pickled tuple (images, spectra).

    images: uint8 [n, 256, 256]; spectra: complex64 [n, 255, 255], see `kspace.spectrum_of`.
    """
    subjects = find_subjects(png_dir)
    train, valid = split(subjects, valid_subjects)
    paths = [os.path.join(pkl_dir, name) for name in ("ixi_train.pkl", "ixi_valid.pkl")]
    for path in paths:
        check_output(path)
        make_parents(path)
    # Both appear or neither: a pair of different splits would share subjects.
    with atomic_path(paths[0]) as temporary_train, atomic_path(paths[1]) as temporary_valid:
        for path, temporary, names in zip(paths, (temporary_train, temporary_valid), (train, valid)):
            files = [file for name in names for file in subjects[name].values()]
            content = load_slices(files, os.path.basename(path))
            safe_pickle.dump(temporary, content, protocol=5)
            print(f"{os.path.basename(path)}: {len(content[0])} slices of {len(names)} subjects", flush=True)


def find_subjects(png_dir):
    """{subject: {slice name: path}} of the files <subject>_<digits>.png in `png_dir`, in name order.

    Where the name has a part sub-<label> (BIDS), the subject ends there: scans of one person are one subject.
    """
    subjects, others = {}, []
    for path in images.list_images(png_dir):
        match = re.fullmatch(r"(.+)_(\d+)\.png", os.path.basename(path), re.IGNORECASE)
        if match:
            person = re.match(r"(.*_)?sub-[a-zA-Z0-9]+(?=_)", match[1] + "_")
            subjects.setdefault(person[0] if person else match[1], {})[match[0][:-4]] = path
        else:
            others.append(path)
    if others:
        print(f"skipped: {len(others)} images not named <subject>_<slice>.png, {others[0]} the first", file=sys.stderr)
    if not subjects:
        raise dnnlib.UserError(f"{png_dir}: holds no <subject>_<slice>.png; make them with genpng")
    return dict(sorted(subjects.items()))


def split(subjects, valid_subjects):
    """Names of the training and of the validation subjects: as asked for, as published, or the last sixth."""
    names = list(subjects)
    if valid_subjects is None:
        published = [[f"{s}-T1" for s in listed if f"{s}-T1" in subjects] for listed in (IXI_TRAIN, IXI_VALID)]
        if all(published):
            report_missing(subjects)
            return published
        if any(published):
            print("note: no published split, for it takes IXI subjects of both its lists; the last sixth validates")
        valid_subjects = str(max(1, round(len(names) / 6)))
    if len(names) < 2:
        raise dnnlib.UserError(f"{names[0]}: is the only subject; training and validation need one each at least")
    if valid_subjects.isdigit():
        valid = names[max(0, len(names) - int(valid_subjects)) :]
    else:
        valid = [find_subject(subjects, wanted.strip()) for wanted in valid_subjects.split(",")]
    train = [name for name in names if name not in valid]
    if not train or not valid:
        raise dnnlib.UserError(f"--valid-subjects {valid_subjects}: leaves no subject of {len(names)} on one side")
    return train, sorted(set(valid))


def find_subject(subjects, wanted):
    """The one subject of which `wanted` is the name, or a part between '_' or '-'."""
    if wanted in subjects:
        return wanted
    part = re.compile(rf"(?<![^_-]){re.escape(wanted)}(?![^_-])")
    found = [name for name, slices in subjects.items() if any(map(part.search, slices))]
    if not wanted or len(found) != 1:
        which = f"matches {len(found)} subjects, such as {found[0]}" if found else "matches no subject"
        raise dnnlib.UserError(
            f"--valid-subjects {wanted}: {which}; there are {len(subjects)}, {next(iter(subjects))} ..."
        )
    return found[0]


def report_missing(subjects):
    """Says how what is there differs from the published set."""
    published = [f"{subject}-T1" for subject in IXI_TRAIN + IXI_VALID]
    missing = [name for name in published if name not in subjects]
    others = [name for name in subjects if name not in published]
    print(f"the published split: {len(published) - len(missing)} of its {len(published)} subjects are there")
    if missing:
        print(f"missing subjects: {', '.join(missing)}")
    if others:
        print(f"left out: {len(others)} subjects that are not in the published lists, {others[0]} the first")
    for name in published:
        slices = [i for i in PUBLISHED_SLICES if name in subjects and f"{name}_{i:03d}" not in subjects[name]]
        if slices:
            print(f"missing slices: {name} {_ranges(slices)}")


def load_slices(paths, title):
    """PNG files -> (images, spectra); those that are no slices are named on stderr and passed over."""
    pixels = np.empty((len(paths), SIZE, SIZE), np.uint8)
    spectra = np.empty((len(paths), SIZE - 1, SIZE - 1), np.complex64)
    count = 0
    with progress(paths, desc=title, unit="slice") as bar:
        for path in bar:
            try:
                pixels[count] = read_slice(path)
            except dnnlib.UserError as error:
                bar.write(f"skipped: {error}", file=sys.stderr)
            else:
                spectra[count] = kspace.spectrum_of(images.to_float(pixels[count, :-1, :-1]))
                count += 1
    if count == 0:
        raise dnnlib.UserError(f"{title}: none of its {len(paths)} slices can be used; nothing was written")
    return pixels[:count], spectra[:count]


def read_slice(path):
    with images.open_image(path) as image:
        if image.size != (SIZE, SIZE) or image.mode != "L":
            found = f"{image.size[0]}x{image.size[1]} {image.mode}"
            raise dnnlib.UserError(f"{path}: is {found}, not {SIZE}x{SIZE} 8-bit greyscale; make slices with genpng")
        return np.asarray(images.decode(image, path))


def _ranges(numbers):
    """[3, 4, 5, 9] -> '3-5, 9'."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in zip(starts, ends))


def slice_range(text):
    """'25:125' -> range(25, 125), for argparse."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not FIRST:END with FIRST below END, such as 25:125")
    return range(int(match[1]), int(match[2]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    png = commands.add_parser("genpng", help="volumes -> PNG slices")
    png.add_argument(
        "--ixi-dir", required=True, metavar="DIR", help="folder of .nii and .nii.gz, of IXI-T1 or any other"
    )
    png.add_argument(
        "--outdir", required=True, metavar="DIR", help="folder for the slices, 256x256, <volume>_<slice>.png"
    )
    png.add_argument(
        "--plane", choices=sorted(PLANES), help="turn the volume to cut it in this plane (default: as stored)"
    )
    text = "numbers of the slices to take, END not among them (default: %(default)s, as published)"
    default = f"{PUBLISHED_SLICES.start}:{PUBLISHED_SLICES.stop}"
    png.add_argument("--slices", type=slice_range, default=default, metavar="FIRST:END", help=text)
    pkl = commands.add_parser("genpkl", help="PNG slices -> ixi_train.pkl, ixi_valid.pkl")
    pkl.add_argument("--png-dir", required=True, metavar="DIR", help="folder of slices, from genpng")
    pkl.add_argument("--pkl-dir", required=True, metavar="DIR", help="folder for the pickles")
    text = "number of subjects to validate on, the last by name, or names, such as sub-21,sub-22 "
    text += "(default: the published split of IXI if its subjects are there, otherwise one in six)"
    pkl.add_argument("--valid-subjects", metavar="N|NAMES", help=text)
    args = vars(parser.parse_args())
    {"genpng": genpng, "genpkl": genpkl}[args.pop("command")](**args)


if __name__ == "__main__":
    dnnlib.cli_main(main)
