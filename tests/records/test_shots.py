"""Noisy shots of scenes: finding them, problems with them, and shifts between them."""

import numpy as np
import pytest
from conftest import textured_image
from PIL import Image
from scipy import ndimage

import dnnlib
from records import shots


def save(path, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)


def test_pairs_ignore_suffixes(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a/1.png", "a/2.jpg", "b/1.JPG", "b/2.png"):
        save(tmp_path / name)
    save(tmp_path / "a" / "3.png", (6, 8))
    save(tmp_path / "b" / "3.png", (8, 6), exif=turned)  # The same size when upright.
    pairs = shots.find_pairs(str(tmp_path / "a"), str(tmp_path / "b"))
    names = [("1.png", "1.JPG"), ("2.jpg", "2.png"), ("3.png", "3.png")]
    assert pairs == [[str(tmp_path / "a" / a), str(tmp_path / "b" / b)] for a, b in names]


def test_pair_problems_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a/good.png",
        "b/good.png",
        "a/alone.png",
        "b/lonely.png",
        "a/twice.png",
        "a/twice.jpg",
        "b/twice.png",
    ):
        save(tmp_path / name)
    save(tmp_path / "a" / "size.png", (8, 6))
    save(tmp_path / "b" / "size.png", (6, 8))
    save(tmp_path / "a" / "broken.png")
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    with pytest.raises(dnnlib.UserError, match=r"^a, b: 5 problems with the shots; correct them$"):
        shots.find_pairs("a", "b")
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "a/alone.png: has no partner in b",
        "a/twice.jpg, a/twice.png: more than one image of that name",
        "b/broken.png: not an image, or of an unsupported format",
        "b/lonely.png: has no partner in a",
        "b/size.png: is 6x8, but a/size.png is 8x6",
    ]
    with pytest.raises(dnnlib.UserError, match="same folder"):
        shots.find_pairs("a", "./a")


def test_list_of_problems_is_limited(tmp_path, capsys):
    for index in range(15):
        save(tmp_path / "a" / f"a{index}.png")
        save(tmp_path / "b" / f"b{index}.png")
    with pytest.raises(dnnlib.UserError, match=r"30 problems .*the first 20 are listed"):
        shots.find_pairs(str(tmp_path / "a"), str(tmp_path / "b"))
    assert len(capsys.readouterr().err.splitlines()) == 20


def test_bursts_and_their_problems(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dnnlib.UserError, match="no scenes"):
        shots.find_bursts(".")
    for name in ("y/1.png", "y/2.png", "x/a.png", "x/b.png", "x/c.jpg", ".hidden/1.png"):
        save(tmp_path / name)
    assert shots.find_bursts(".") == [["./x/a.png", "./x/b.png", "./x/c.jpg"], ["./y/1.png", "./y/2.png"]]
    save(tmp_path / "y" / "3.png", (9, 6))
    save(tmp_path / "z" / "1.png")
    save(tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(dnnlib.UserError, match="4 problems"):
        shots.find_bursts(".")
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "./empty: has 0 images; a scene needs two or more",
        "./loose.png: is outside the folders of scenes",
        "./y/3.png: is 9x6, but ./y/1.png is 8x6",
        "./z: has 1 images; a scene needs two or more",
    ]


@pytest.mark.parametrize("blur", [0, 2])  # Plain phase correlation fails on the second.
@pytest.mark.parametrize("shift", [(0, 0), (0.6, 0.3), (3, -2), (-15, 20)])
def test_shift_is_found_in_noise(blur, shift):
    rng, content = np.random.default_rng(1), textured_image(400, 500, seed=1)
    content += rng.normal(0, 30, content.shape)
    content = ndimage.gaussian_filter(content, (0, blur, blur))
    moved = ndimage.shift(content, (0, *shift), order=3, mode="reflect")
    a, b = (np.clip(x + rng.normal(0, 20, x.shape), 0, 255).astype(np.uint8) for x in (content, moved))
    assert shots.estimate_shift(a, b) == pytest.approx(shift, abs=0.25)


def test_pure_noise_has_no_shift():
    rng = np.random.default_rng(2)
    for shape in [(3, 600, 700), (3, 100, 100), (3, 20, 30), (3, 1, 5)]:
        a, b = (rng.normal(128, 20, shape).astype(np.uint8) for _ in range(2))
        assert shots.estimate_shift(a, b) is None
    flat = np.full([3, 100, 100], 9, np.uint8)
    assert shots.estimate_shift(flat, flat) is None
