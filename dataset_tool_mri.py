"""Make MRI data sets: NIfTI volumes -> PNG slices -> pickles of slices and spectra.

python dataset_tool_mri.py genpng --ixi-dir IXI-T1 --outdir datasets/ixi-png
python dataset_tool_mri.py genpkl --png-dir datasets/ixi-png --pkl-dir datasets
"""

import argparse
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import dnnlib
from dnnlib import safe_pickle
from dnnlib.options import ArgumentParser, percentile
from dnnlib.util import atomic_path, check_output, make_parents, progress
from imaging import images, sheets
from mri import kspace
from mri.volumes import PLANES, UnusableVolumeError, find_volumes, read_volume

SIZE = 256
PUBLISHED_SLICES = range(25, 125)

# The IXI-T1 subjects of the published result.
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


# Volumes -> PNG slices.


def genpng(ixi_dir, outdir, name, plane, slices, white):
    """Write the slices of every volume below `ixi_dir` to `outdir` as <volume>_<slice>.png, 256x256, 8-bit greyscale.

    Volumes that cannot be used are named on stderr and skipped. Raises UserError if no volume can be used.
    """
    volumes = find_volumes(ixi_dir, name)
    images.check_writable(os.path.join(outdir, "slice.png"))
    make_parents(os.path.join(outdir, "slice.png"))
    if any(name.lower().endswith(".png") for name in os.listdir(outdir)):
        print(f"note: {outdir} has PNG files already; those with other names stay, and genpkl will take them too")
    written = skipped = 0
    # Decompression and PNG coding run in parallel; each thread holds one volume.
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        jobs = {v: pool.submit(export_volume, v, path, outdir, plane, slices, white) for v, path in volumes.items()}
        with progress(jobs.items(), unit="volume") as bar:
            for volume, job in bar:
                try:
                    count, remarks = job.result()
                except UnusableVolumeError as error:
                    skipped += 1
                    bar.write(f"skipped: {error}", file=sys.stderr)
                else:
                    written += count
                    bar.write(", ".join([f"{volume}: {count} slices", *remarks]), file=sys.stdout)
    finally:
        pool.shutdown(cancel_futures=True)
    print(f"{outdir}: {written} slices of {len(volumes) - skipped} volumes; {skipped} skipped")
    if not written:
        raise dnnlib.UserError(f"{ixi_dir}: none of its {len(volumes)} volumes can be used")


def export_volume(name, path, outdir, plane, slices, white):
    """Write the slices of one volume. Return their number and remarks on what was left out."""
    volume, peak, remarks = read_volume(path, plane, white)
    depth = volume.shape[2]
    taken = range(slices.start, min(slices.stop, depth))
    if not taken:
        raise UnusableVolumeError(f"{path}: has slices 0:{depth}, none in --slices {slices.start}:{slices.stop}")
    if taken != slices:
        remarks.append(f"the volume ends at {depth - 1}")
    if max(volume.shape[:2]) > SIZE:
        remarks.append(f"the central {SIZE}x{SIZE} of {volume.shape[0]}x{volume.shape[1]}")
    count = 0
    for i in taken:
        with np.errstate(over="ignore"):  # Clipping makes values far below zero black.
            canvas = centred(volume[:, :, i].astype(np.float32) / np.float32(peak))
        pixels = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
        if pixels.max() > 1:
            images.save_uint8(os.path.join(outdir, f"{name}_{i:03d}.png"), pixels)
            count += 1
    if count < len(taken):
        remarks.append(f"near-black slices left out: {len(taken) - count}")
    if count == 0:
        raise UnusableVolumeError(f"{path}: nothing to write: {', '.join(remarks)}")
    return count, remarks


def centred(picture):
    """Crop or pad [H, W] to [256, 256] about its centre."""
    picture = sheets.centre(picture, SIZE)
    missing = [SIZE - n for n in picture.shape]
    return np.pad(picture, [(n // 2, n - n // 2) for n in missing])


# PNG slices -> pickles.


def genpkl(png_dir, pkl_dir, valid_subjects):
    """Write ixi_train.pkl and ixi_valid.pkl to `pkl_dir`, each a pickled tuple (images, spectra).

    The images are uint8 [n, 256, 256], the spectra complex64 [n, 255, 255] from `kspace.fft2c`.
    """
    subjects = find_subjects(png_dir)
    train, valid = split(subjects, valid_subjects)
    paths = [os.path.join(pkl_dir, name) for name in ("ixi_train.pkl", "ixi_valid.pkl")]
    for path in paths:
        check_output(path)
        make_parents(path)
    # Both files appear, or neither: files from different splits could share subjects.
    with atomic_path(paths[0]) as temporary_train, atomic_path(paths[1]) as temporary_valid:
        for path, temporary, names in zip(paths, (temporary_train, temporary_valid), (train, valid)):
            files = [file for name in names for file in subjects[name].values()]
            content = load_slices(files, os.path.basename(path))
            safe_pickle.dump(temporary, content, protocol=5)
            print(f"{os.path.basename(path)}: {len(content[0])} slices of {len(names)} subjects", flush=True)


def find_subjects(png_dir):
    """Return {subject: {slice name: path}} of the files <subject>_<digits>.png in `png_dir`, in name order.

    If the name has a part sub-<label> (BIDS), the subject ends there, so that all scans of a person are one subject.
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
        print(f"skipped: {len(others)} images not named <subject>_<slice>.png, such as {others[0]}", file=sys.stderr)
    if not subjects:
        raise dnnlib.UserError(f"{png_dir}: has no <subject>_<slice>.png; make them with genpng")
    return dict(sorted(subjects.items()))


def split(subjects, valid_subjects):
    """Split the subjects into names for training and for validation.

    The validation subjects are those in `valid_subjects` if it is given, else the published ones if subjects of both
    published lists exist, else the last sixth.
    """
    names = list(subjects)
    if valid_subjects is None:
        published = [[f"{s}-T1" for s in listed if f"{s}-T1" in subjects] for listed in (IXI_TRAIN, IXI_VALID)]
        if all(published):
            report_missing(subjects)
            return published
        if any(published):
            print("note: no published split, which needs IXI subjects from both lists; the last sixth validates")
        valid_subjects = str(max(1, round(len(names) / 6)))
    if len(names) < 2:
        raise dnnlib.UserError(f"{names[0]}: is the only subject; training and validation need at least one each")
    if valid_subjects.isdigit():
        valid = names[max(0, len(names) - int(valid_subjects)) :]
    else:
        valid = [find_subject(subjects, wanted.strip()) for wanted in valid_subjects.split(",")]
    train = [name for name in names if name not in valid]
    if not train or not valid:
        raise dnnlib.UserError(
            f"--valid-subjects {valid_subjects}: leaves none of the {len(names)} subjects for training or validation"
        )
    return train, sorted(set(valid))


def find_subject(subjects, wanted):
    """Return the one subject whose name is `wanted` or has it as a part between '_' or '-'."""
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
    """Print how the subjects and slices differ from the published ones."""
    published = [f"{subject}-T1" for subject in IXI_TRAIN + IXI_VALID]
    missing = [name for name in published if name not in subjects]
    others = [name for name in subjects if name not in published]
    print(f"the published split: found {len(published) - len(missing)} of its {len(published)} subjects")
    if missing:
        print(f"missing subjects: {', '.join(missing)}")
    if others:
        print(f"left out: {len(others)} subjects that are not in the published lists, such as {others[0]}")
    for name in published:
        slices = [i for i in PUBLISHED_SLICES if name in subjects and f"{name}_{i:03d}" not in subjects[name]]
        if slices:
            print(f"missing slices: {name} {_ranges(slices)}")


def load_slices(paths, title):
    """Read PNG files. Return (images, spectra). Files that are not slices are named on stderr and skipped."""
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
                spectra[count] = kspace.fft2c(images.to_float(pixels[count, :-1, :-1]))
                count += 1
    if count == 0:
        raise dnnlib.UserError(f"{title}: none of its {len(paths)} slices can be used; no file was written")
    return pixels[:count], spectra[:count]


def read_slice(path):
    with images.open_image(path) as image:
        if image.size != (SIZE, SIZE) or image.mode != "L":
            found = f"{image.size[0]}x{image.size[1]} {image.mode}"
            raise dnnlib.UserError(f"{path}: is {found}, not {SIZE}x{SIZE} 8-bit greyscale; make slices with genpng")
        return np.asarray(images.decode(image, path))


def _ranges(numbers):
    """Return [3, 4, 5, 9] as '3-5, 9'."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in zip(starts, ends))


def slice_range(text):
    """Parse '25:125' as range(25, 125), for argparse."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not FIRST:END with FIRST below END, such as 25:125")
    return range(int(match[1]), int(match[2]))


def main(argv=None):
    parser = ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="{genpng,genpkl}", required=True)
    png = commands.add_parser("genpng", help="volumes -> PNG slices")
    png.set_defaults(run=genpng)
    png.add_argument("--ixi-dir", required=True, metavar="DIR", help="folder of .nii and .nii.gz files, such as IXI-T1")
    png.add_argument(
        "--outdir", required=True, metavar="DIR", help="folder for the slices, 256x256: <volume>_<slice>.png"
    )
    text = "shell pattern of the files to take, such as '*T1w*' if there are other scans or masks (default: all)"
    png.add_argument("--name", default="*", metavar="PATTERN", help=text)
    png.add_argument("--plane", choices=sorted(PLANES), help="plane of the slices (default: as stored)")
    text = "numbers of the slices to take, without END (default: %(default)s, as published)"
    default = f"{PUBLISHED_SLICES.start}:{PUBLISHED_SLICES.stop}"
    png.add_argument("--slices", type=slice_range, default=default, metavar="FIRST:END", help=text)
    text = "percentile of the voxels above zero that becomes white (default: %(default)s, the maximum, as published); "
    text += "try 99.9 if single voxels are much brighter than the rest"
    png.add_argument("--white", type=percentile, default=100, metavar="PERCENTILE", help=text)
    pkl = commands.add_parser("genpkl", help="PNG slices -> ixi_train.pkl, ixi_valid.pkl")
    pkl.set_defaults(run=genpkl)
    pkl.add_argument("--png-dir", required=True, metavar="DIR", help="folder of slices, from genpng")
    pkl.add_argument("--pkl-dir", required=True, metavar="DIR", help="folder for the pickles")
    text = "validation subjects: their number, counted from the last name, or their names, such as sub-21,sub-22 "
    text += "(default: the published split of IXI if its subjects exist, otherwise one in six)"
    pkl.add_argument("--valid-subjects", metavar="N|NAMES", help=text)
    args = vars(parser.parse_args(argv))
    args.pop("run")(**args)


if __name__ == "__main__":
    dnnlib.cli_main(main)
