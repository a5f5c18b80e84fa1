"""Types of samples, and the choice of those that are black and white."""

import numpy as np
import pytest

import dnnlib
from imaging import images
from imaging.scale import EIGHT_BITS, Extent, Scale, from_data, full_scale, parse_range, scale_of_set, to_data

RNG = np.random.default_rng(0)


def extent_of(*arrays):
    extent = Extent(len(arrays))
    for array in arrays:
        extent.add(np.asarray(array))
    return extent


def test_conversion():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(EIGHT_BITS.to_float(levels), images.to_float(levels))
    for scale in (EIGHT_BITS, Scale("uint16", 64, 4095), full_scale("uint16"), Scale("float32", -3, 200)):
        samples = (RNG.random([3, 40, 50]) * 250).astype(scale.dtype)
        np.testing.assert_allclose(scale.to_samples(scale.to_float(samples)), samples, rtol=1e-4, atol=1e-4)
    scale = Scale("uint16", 64, 4095)
    assert scale.to_float([64, 4095]).tolist() == [-0.5, 0.5]
    assert scale.to_samples(np.array([0.6, -0.6, 20])).tolist() == [4498, 0, 65535]  # Only the type clips.


@pytest.mark.parametrize("largest,white", [(900, 4095), (4095, 4095), (4096, 16383), (16384, 65535)])
def test_bits_are_recognised(largest, white):
    scale, how = scale_of_set("uint16", None, extent_of(np.uint16([0, 5]), np.uint16([largest])))
    assert scale == Scale("uint16", 0, white) and f"no sample is above {largest}; --range 0 {white}" in how


def test_auto_range():
    many = [RNG.permutation(np.linspace(k, k + 1, 10001)).astype(np.float32) for k in range(10)]
    scale, _ = scale_of_set("float32", "auto", extent_of(*many, np.float32([np.nan])))
    assert (scale.black, scale.white) == pytest.approx((0.01, 9.99), abs=2e-3)
    with pytest.raises(dnnlib.UserError, match="nearly all samples are 7; name LOW HIGH"):
        scale_of_set("uint8", "auto", extent_of(np.full(9000, 7, np.uint8)))


def test_floats_of_another_range_are_refused():
    assert scale_of_set("float32", None, extent_of(np.float32([-0.2, 1.3])))[0] == Scale("float32", 0, 1)
    with pytest.raises(dnnlib.UserError, match=r"reach from 5 to 900, .*; set both by --range LOW HIGH, or .* auto"):
        scale_of_set("float32", None, extent_of(np.float32([5, 900])))
    assert scale_of_set("float32", (5.0, 900.0), extent_of())[0] == Scale("float32", 5, 900)


def test_option():
    assert parse_range(None) is None and parse_range(["auto"]) == "auto" and parse_range([-1.0, 4.0]) == (-1, 4)
    for words in ([1.0], ["auto", 3.0], [1.0, 2.0, 3.0], [2.0, 2.0]):
        with pytest.raises(dnnlib.UserError, match=r"^--range "):
            parse_range(words)


def test_what_a_snapshot_says():
    scale = Scale("uint16", 0, 4095)
    assert from_data(to_data(scale)) == scale and to_data(EIGHT_BITS) == {} and from_data({}) is None
    wrong = ({"dtype": "int8", "black": 0, "white": 1}, {"dtype": "uint8", "black": 1, "white": 0}, [1], {"a": 1})
    for samples in (*wrong, {"dtype": "uint8", "black": float("nan"), "white": 1}, "uint8"):
        with pytest.raises(dnnlib.UserError, match=r"^samples "):
            from_data({"samples": samples})
