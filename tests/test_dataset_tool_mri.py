"""Tests of `dataset_tool_mri.py`: volumes to slices, slices to pickles."""

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image

import dataset_tool_mri
import dnnlib
from mri import dataset_mri, kspace, volumes

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def tool(*args, status=0, process=False):
    """Run the tool, perhaps as a process; return (stdout, stderr). Fails unless the exit status is `status`."""
    args = list(map(str, args))
    if process:
        command = [sys.executable, os.path.join(ROOT, "dataset_tool_mri.py"), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
            dnnlib.cli_main(lambda: dataset_tool_mri.main(args))
        code, out, err = caught.value.code or 0, out.getvalue(), err.getvalue()
    assert code == status and "Traceback" not in err, err
    if status == 1:
        assert err.splitlines()[-1].startswith("error: ")
    return out, err


def genpng(folder, *args, **kwargs):
    return tool("genpng", "--ixi-dir", folder, "--outdir", folder / "png", *args, **kwargs)


def genpkl(folder, *args, **kwargs):
    return tool("genpkl", "--png-dir", folder, "--pkl-dir", folder / "pkl", *args, **kwargs)


def write_volume(path, data, codes="RAS"):
    """Write a NIfTI volume whose axes point towards `codes`, such as "RAS": right, anterior, superior."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    affine = np.eye(4)
    for i, (axis, sign) in enumerate(nibabel.orientations.axcodes2ornt(codes)):
        affine[:3, i] = sign * np.eye(3)[int(axis)]
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def edited(folder, shape=None, affine=None):
    """Return a NIfTI file as bytes, with another shape or affine in its header."""
    write_volume(folder / "edited" / "good.nii", np.ones((8, 8, 28), np.float32))
    data = bytearray((folder / "edited" / "good.nii").read_bytes())
    os.remove(folder / "edited" / "good.nii")
    for offset, field in ((40, shape), (280, affine)):
        if field is not None:
            data[offset : offset + field.nbytes] = field.tobytes()
    return bytes(data)


def read(path):
    with Image.open(path) as image:
        assert image.mode == "L" and image.size == (256, 256)
        return np.asarray(image)


def numbers(folder):
    return sorted(int(name[-7:-4]) for name in os.listdir(folder))


def test_published_form(tmp_path):
    """Slices 25 to 124 along the third stored axis, divided by the volume's maximum, centred; without dark slices."""
    data = np.random.default_rng(0).integers(-50, 1000, (260, 101, 130), dtype=np.int16)
    data[:, :, 30] = 7  # 255 * 7 / 1000 < 2.
    data[:, :, 31] = 8
    data[0, 0, 0] = 1000
    write_volume(tmp_path / "deep" / "er" / "a.b-T1.nii.gz", data, "PSR")
    out, _ = genpng(tmp_path, process=True)
    assert "a.b-T1: 99 slices, the central 256x256 of 260x101, near-black slices left out: 1" in out
    assert numbers(tmp_path / "png") == [i for i in range(25, 125) if i != 30]
    expected = np.zeros((256, 256))
    expected[:, 77:178] = np.clip(data[2:258, :, 25] / 1000, 0, 1) * 255
    # Where float32 rounds across a whole number, either is right.
    difference = expected.astype(np.float32) - read(tmp_path / "png" / "a.b-T1_025.png")
    assert difference.min() > -1e-3 and difference.max() < 1


@pytest.mark.parametrize("codes", ["RAS", "PSR", "LIP"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_planes(tmp_path, codes, plane):
    """A block at the right, front and top appears where radiologists expect it, however the axes are stored."""
    canonical = np.zeros((30, 40, 50), np.float32)
    canonical[20:, 28:, 35:] = 1
    to = nibabel.orientations.axcodes2ornt(codes)
    stored = nibabel.apply_orientation(
        canonical, nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), to)
    )
    write_volume(tmp_path / "a.nii", stored, codes)
    genpng(tmp_path, "--plane", plane, "--slices", "0:60")
    rows, columns, first = {
        "axial": ((108, 12), (113, 10), 35),  # Front above, right at the left; slices from below.
        "coronal": ((103, 15), (113, 10), 28),  # Top above, right at the left; slices from behind.
        "sagittal": ((103, 15), (108, 12), 20),  # Top above, front at the left; slices from the left.
    }[plane]
    depth = {"axial": 50, "coronal": 40, "sagittal": 30}[plane]
    assert numbers(tmp_path / "png") == list(range(first, depth))
    expected = np.zeros((256, 256), np.uint8)
    expected[rows[0] : rows[0] + rows[1], columns[0] : columns[0] + columns[1]] = 255
    np.testing.assert_array_equal(read(tmp_path / "png" / f"a_{first:03d}.png"), expected)


def test_unusable_volumes(tmp_path):
    good = np.ones((8, 8, 28), np.float32)
    write_volume(tmp_path / "good.nii.gz", good)
    write_volume(tmp_path / "trailing.nii.gz", good[..., None])
    bad = {
        "series": np.ones((8, 8, 28, 2), np.float32),
        "nan": np.full_like(good, np.nan),
        "inf": np.where(np.arange(28) == 3, np.inf, good),
        "zero": 0 * good,
        "negative": -good,
        "complex": good.astype(np.complex64),
        "flat": good[..., :20],
        "beyond": 1e-35 * good,
        "dark": np.where(np.arange(28) == 3, 1000, good),
    }
    for name, data in bad.items():
        write_volume(tmp_path / f"{name}.nii.gz", data)
    whole = (tmp_path / "good.nii.gz").read_bytes()
    (tmp_path / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "no_place.nii").write_bytes(edited(tmp_path, affine=np.full((3, 4), np.nan, "<f4")))
    enormous = edited(tmp_path, shape=np.array([3, 32767, 32767, 32767], "<i2"))  # 128 TB.
    (tmp_path / "enormous.nii").write_bytes(enormous)
    (tmp_path / "enormous_gz.nii.gz").write_bytes(gzip.compress(enormous))
    large = edited(tmp_path, shape=np.array([3, 900, 900, 900], "<i2"))
    (tmp_path / "large.nii.gz").write_bytes(gzip.compress(large + bytes(10**7)) + b"padding" * 10**6)
    (tmp_path / "noise.nii").write_bytes(b"no volume" * 100)
    (tmp_path / "empty.nii").write_bytes(b"")
    out, err = genpng(tmp_path, process=True)
    assert sorted(os.listdir(tmp_path / "png")) == [
        f"{n}_{i:03d}.png" for n in ("good", "trailing") for i in (25, 26, 27)
    ]
    more = ["truncated", "no_place", "enormous", "enormous_gz", "large", "noise", "empty"]
    for name in [*bad, *more]:
        assert len([line for line in err.splitlines() if line.startswith("skipped: ") and f"{name}.nii" in line]) == 1
    assert len(err.splitlines()) == len(bad) + len(more)
    assert "[8, 8, 28, 2]" in err and "0:20" in err and "695 million" in err
    assert "good: 3 slices, the volume ends at 27" in out
    assert out.splitlines()[-1].endswith("6 slices of 2 volumes; 16 skipped")


def volumes_of(folder, *names, **kwargs):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return {name: os.path.relpath(path, folder) for name, path in volumes.find_volumes(str(folder), **kwargs).items()}


def test_shared_names(tmp_path):
    """If files share a name, all names begin with their folders."""
    (tmp_path / "a" / "loop").mkdir(parents=True)
    (tmp_path / "a" / "loop" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    found = volumes_of(tmp_path, "elsewhere/T1.nii", "a/ses-1/T1.nii.gz", "a/ses-2/T1.NII", "a/x.nii", ".hidden/y.nii")
    assert found == {
        "a_ses-1_T1": "a/ses-1/T1.nii.gz",
        "a_ses-2_T1": "a/ses-2/T1.NII",
        "b_T1": "b/T1.nii",  # The link comes before the folder it stands for, which is read once.
        "a_x": "a/x.nii",
    }


def test_name_pattern(tmp_path, capsys):
    names = [f"sub-{s}/anat/sub-{s}_{kind}.nii.gz" for s in (1, 2, 3) for kind in ("T1w", "mask")]
    assert len(volumes_of(tmp_path, *names, "sub-1/anat/x.json", "x.tsv", "y.json")) == 6
    assert capsys.readouterr().out.splitlines() == [
        "skipped: 2 .json, 1 .tsv",
        "note: volumes of several kinds: 3 T1w, 3 mask; --name '*T1w*' takes one kind",
    ]
    for pattern in ("*T1w*", "anat/*T1w.nii.gz"):
        assert sorted(volumes_of(tmp_path, pattern=pattern)) == ["sub-1_T1w", "sub-2_T1w", "sub-3_T1w"]
        assert capsys.readouterr().out.splitlines()[1:] == [f"3 of 6 volumes match --name {pattern}"]
    with pytest.raises(
        dnnlib.UserError, match=r"^--name \*T1: matches none of the 6 volumes in .*, sub-1_T1w\.nii\.gz"
    ):
        volumes_of(tmp_path, pattern="*T1")


def test_white_and_nan(tmp_path):
    data = np.random.default_rng(0).uniform(0, 100, (40, 40, 30)).astype(np.float32)
    data[:, :, :10] = np.nan
    data[0, 0, 27] = 300  # The brightest slice; the others are near black.
    data[:, :, 25:27] /= 100
    write_volume(tmp_path / "spot.nii", data)
    out, _ = genpng(tmp_path)
    assert "spot: 3 slices, NaN in 33.33% of the voxels, replaced by 0, the volume ends at 29, near-black slices" in out
    assert "near-black slices left out: 2" in out
    expected = (data[:, :, 28] / np.float32(300) * 255).astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path / "png" / "spot_028.png")[108:148, 108:148], expected)

    data[0, 0, 27] = 3000
    write_volume(tmp_path / "spot.nii", data)
    out, _ = genpng(tmp_path)
    assert "dark: fewer than one voxel in 1000 exceeds a fifth of its maximum of 3000; try --white 99.9" in out
    out, _ = genpng(tmp_path, "--white", 99)
    assert "dark" not in out
    white = np.percentile(data[data > 0], 99)
    expected = (np.minimum(data[:, :, 28] / white, 1) * 255).astype(np.float32)
    difference = expected - read(tmp_path / "png" / "spot_028.png")[108:148, 108:148]
    assert difference.min() > -1e-3 and difference.max() < 1.001 and (expected == 255).sum() > 5


@pytest.mark.parametrize("case", ["missing", "no volumes", "none usable", "two of one name", "folder is a file"])
def test_genpng_errors(tmp_path, case):
    if case == "none usable":
        write_volume(tmp_path / "a.nii", np.zeros((4, 4, 4), np.float32))
    if case == "two of one name":
        for name in ("1/t1.nii", "1/t1.nii.gz"):
            write_volume(tmp_path / name, np.ones((4, 4, 30), np.float32))
    if case == "folder is a file":
        write_volume(tmp_path / "a.nii", np.ones((4, 4, 30), np.float32))
        (tmp_path / "png").write_text("")
    _, err = genpng(tmp_path / "absent" if case == "missing" else tmp_path, status=1)
    assert str(tmp_path) in err
    assert not (tmp_path / "png").is_dir() or not os.listdir(tmp_path / "png")


@pytest.mark.parametrize(
    "option", ["--slices=25", "--slices=9:9", "--slices=-1:5", "--slices=a:b", "--white=0", "--white=x"]
)
def test_usage_errors(tmp_path, option):
    _, err = genpng(tmp_path, option, status=2)
    assert option.partition("=")[0] in err


def write_slices(folder, *names, size=(256, 256), mode="L"):
    rng = np.random.default_rng(len(names))
    os.makedirs(folder, exist_ok=True)
    for name in names:
        pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).resize(size).convert(mode).save(folder / f"{name}.png")


def pickled(folder):
    return [dataset_mri.load(str(folder / "pkl" / f"ixi_{part}.pkl")) for part in ("train", "valid")]


def test_pickles(tmp_path):
    write_slices(tmp_path, *(f"p{s}_{i:03d}" for s in range(7) for i in (25, 26, 1000)))
    out, _ = genpkl(tmp_path)
    assert out.splitlines() == ["ixi_train.pkl: 18 slices of 6 subjects", "ixi_valid.pkl: 3 slices of 1 subjects"]
    train, valid = pickled(tmp_path)
    np.testing.assert_array_equal(train.images[3], read(tmp_path / "p1_025.png"))
    np.testing.assert_array_equal(valid.images[2], read(tmp_path / "p6_1000.png"))
    for data in (train, valid):
        np.testing.assert_array_equal(data.spectra[1], kspace.fft2c(data.image(1)))


@pytest.mark.parametrize(
    "option,expected",
    [
        ("2", ["x_sub-10_T1w", "x_sub-2_ses-1_T1w", "x_sub-2_ses-2_T1w"]),  # By name, sub-10 is before sub-2.
        ("sub-1", ["x_sub-1_T1w"]),
        ("sub-2,x_sub-1_T1w", ["x_sub-1_T1w", "x_sub-2_ses-1_T1w", "x_sub-2_ses-2_T1w"]),
        ("ses-1", ["x_sub-2_ses-1_T1w", "x_sub-2_ses-2_T1w"]),  # One person's scans stay together.
    ],
)
def test_split_by_subject(tmp_path, option, expected):
    names = ["x_sub-1_T1w", "x_sub-10_T1w", "x_sub-2_ses-1_T1w", "x_sub-2_ses-2_T1w"]
    write_slices(tmp_path, *(f"{name}_030" for name in names))
    genpkl(tmp_path, "--valid-subjects", option)
    for data, part in zip(pickled(tmp_path), ([n for n in names if n not in expected], expected)):
        np.testing.assert_array_equal(data.images, [read(tmp_path / f"{name}_030.png") for name in part])


@pytest.mark.parametrize("option", ["0", "3", "sub-9", "x", "sub", "sub-1,", "sub-1,sub-2,sub-3"])
def test_impossible_split(tmp_path, option):
    write_slices(tmp_path, *(f"x_sub-{s}_T1w_030" for s in (1, 2, 3)))
    _, err = genpkl(tmp_path, "--valid-subjects", option, status=1)
    assert "--valid-subjects" in err and not (tmp_path / "pkl").exists()


def test_published_lists():
    with open(os.path.join(ROOT, "tests", "golden", "ixi_subjects.json"), encoding="utf-8") as f:
        golden = json.load(f)
    assert golden["train"] == dataset_tool_mri.IXI_TRAIN and golden["valid"] == dataset_tool_mri.IXI_VALID


def test_part_of_ixi(tmp_path):
    """Subjects of IXI keep their published sets; missing subjects and slices are named."""
    incomplete = [i for i in range(25, 125) if i != 77 and not 110 <= i < 120]
    for subject in ("IXI063-Guys-0742", "IXI064-Guys-0743", "IXI600-HH-0001"):
        write_slices(tmp_path, *(f"{subject}-T1_{i:03d}" for i in incomplete))
    write_slices(tmp_path, *(f"IXI065-Guys-0744-T1_{i:03d}" for i in range(25, 125)))
    out, _ = genpkl(tmp_path)
    assert "ixi_train.pkl: 89 slices of 1 subjects" in out and "ixi_valid.pkl: 189 slices of 2 subjects" in out
    assert "3 of its 60 subjects" in out and "IXI002-Guys-0828" in out
    assert "missing slices: IXI064-Guys-0743-T1 77, 110-119" in out
    assert "missing slices: IXI065" not in out
    assert "left out: 1 subjects" in out and "IXI600-HH-0001" in out


def test_one_ixi_list(tmp_path):
    """Subjects of the published training set alone are split as any others."""
    write_slices(tmp_path, *(f"{s}-T1_050" for s in dataset_tool_mri.IXI_TRAIN[:3]))
    out, _ = genpkl(tmp_path)
    assert "note: " in out and "ixi_valid.pkl: 1 slices of 1 subjects" in out


def test_unusable_slices(tmp_path):
    write_slices(tmp_path, "a_001", "a_002", "b_001")
    write_slices(tmp_path, "a_003", size=(255, 256))
    write_slices(tmp_path, "b_002", mode="RGB")
    write_slices(tmp_path, "overview")
    whole = (tmp_path / "a_001.png").read_bytes()
    (tmp_path / "b_003.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b_004.png").write_bytes(b"")
    out, err = genpkl(tmp_path)
    for name in ("a_003", "b_002", "b_003", "b_004", "overview"):
        assert f"{name}.png" in err
    assert "255x256" in err and len(err.splitlines()) == 5
    assert out.splitlines() == ["ixi_train.pkl: 2 slices of 1 subjects", "ixi_valid.pkl: 1 slices of 1 subjects"]


@pytest.mark.parametrize("case", ["missing", "empty", "one subject", "nothing readable"])
def test_genpkl_errors(tmp_path, case):
    folder = tmp_path / "png"
    if case != "missing":
        folder.mkdir()
        (folder / "pkl").mkdir()
        (folder / "pkl" / "ixi_train.pkl").write_text("old")
    if case == "one subject":
        write_slices(folder, "a_001", "a_002")
    if case == "nothing readable":
        write_slices(folder, "a_001")
        write_slices(folder, "b_001", size=(8, 8))
    genpkl(folder, status=1)
    if case != "missing":
        assert (
            os.listdir(folder / "pkl") == ["ixi_train.pkl"] and (folder / "pkl" / "ixi_train.pkl").read_text() == "old"
        )
