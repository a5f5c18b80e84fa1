"""Snapshots in both formats: what is written, read and refused."""

import json
import os
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import dnnlib
import network
from dnnlib import tflib
from dnnlib.tflib import tf

FORMATS = ["pickle", "safetensors"]
FIELDS = ["version", "name", "static_kwargs", "build_module_src", "build_func_name", "variables"]  # As published.


@pytest.fixture(scope="module")
def net():
    with tf.Graph().as_default(), tflib.create_session() as session:
        net = network.create_autoencoder()
        session.run(tf.global_variables_initializer())
        yield net


def write_state(path, state):
    """Write a snapshot as another program does; the pickle names the class `dnnlib.tflib.network.Network`."""
    if path.endswith(".safetensors"):
        metadata = {name: json.dumps(state[name]) for name in FIELDS if not name.startswith(("variables", "build_mod"))}
        safetensors.numpy.save_file(dict(state["variables"]), path, metadata)
        return

    class Network:
        def __getstate__(self):
            return state

    Network.__module__, Network.__qualname__ = "dnnlib.tflib.network", "Network"
    saved, tflib.network.Network = tflib.network.Network, Network  # pickle looks the class up by its name.
    try:
        with open(path, "wb") as f:
            pickle.dump(Network(), f, 2)
    finally:
        tflib.network.Network = saved


def load_elsewhere(path, use=tflib.Network.get_values):
    with tf.Graph().as_default(), tflib.create_session():
        return use(network.load_autoencoder(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip(net, tmp_path, suffix):
    path = str(tmp_path / f"network.{suffix}")
    tflib.save_snapshot(net, path)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, [1, 3, 40, 50]).astype(np.float32)
    result = load_elsewhere(path, lambda loaded: loaded.run(x))
    np.testing.assert_allclose(result, net.run(x), atol=1e-5)  # A loaded network may add up in another order.
    loaded = load_elsewhere(path)
    for name, value in net.get_values().items():
        np.testing.assert_array_equal(value, loaded[name])


class Unpickler(pickle.Unpickler):
    """The first step of the published loader: NumPy arrays and the state of the class named Network."""

    class Network:
        def __setstate__(self, state):
            self.state = state

    def find_class(self, module, name):
        if (module, name) == ("dnnlib.tflib.network", "Network"):
            return self.Network
        return super().find_class(module, name)


def test_contents_of_the_files(net, tmp_path):
    """The pickle has exactly the published fields; other programs can read both files."""
    paths = [str(tmp_path / f"network.{suffix}") for suffix in FORMATS]
    for path in paths:
        tflib.save_snapshot(net, path)
    with open(paths[0], "rb") as f:
        state = Unpickler(f).load().state
    assert list(state) == FIELDS
    assert state["version"] == 2 and "def autoencoder" in state["build_module_src"]
    assert [name for name, _ in state["variables"]][:2] == ["enc_conv0/weight", "enc_conv0/bias"]
    with safetensors.safe_open(paths[1], framework="numpy") as f:
        metadata = {name: json.loads(text) for name, text in f.metadata().items()}
        assert set(f.keys()) == set(net.vars) and f.get_tensor("dec_conv1/bias").dtype == np.float32
    expected = {"version": 2, "name": "autoencoder", "static_kwargs": {}, "build_func_name": "autoencoder"}
    assert metadata == expected


def test_published_snapshot_runs_no_code(net, tmp_path):
    path, trap = str(tmp_path / "published.pickle"), tmp_path / "trap"
    state = {"static_kwargs": dnnlib.EasyDict(), "build_module_src": f"open({str(trap)!r}, 'w')"}
    write_state(path, net.__getstate__() | state)
    np.testing.assert_array_equal(load_elsewhere(path)["dec_conv1/weight"], net.get_values()["dec_conv1/weight"])
    assert not trap.exists()


def variables(change):
    return lambda state: state | {"variables": list(change(dict(state["variables"])).items())}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "mistake,message",
    [
        (lambda s: s | {"version": 3}, "version 3"),
        (
            lambda s: s | {"build_func_name": "generator\n"},
            r"a snapshot of 'generator\\n'; only 'autoencoder'",
        ),
        (lambda s: s | {"name": 7}, "name is missing or wrong"),
        (
            variables(lambda v: {"enc_conv0/weight": v["enc_conv0/weight"]}),
            "another network: it lacks dec_conv1/bias, dec_conv1/weight, dec_conv1a/bias and 32 more$",
        ),
        (
            variables(lambda v: {name.replace("enc_conv0/b", "enc_conv\n0/b"): a for name, a in v.items()}),
            r"it lacks enc_conv0/bias; it has enc_conv\\n0/bias$",
        ),
        (
            variables(lambda v: {name: np.ascontiguousarray(a[..., :1]) for name, a in v.items()}),
            r"enc_conv0/weight is \[3, 3, 3, 1\] there, \[3, 3, 3, 48\] here, .* and 33 more$",
        ),
        (variables(lambda v: v | {"enc_conv0/bias": np.ones(48, bool)}), "enc_conv0/bias is of type bool"),
        (
            variables(lambda v: v | {"enc_conv0/bias": np.full(48, np.nan, np.float32)}),
            "enc_conv0/bias holds NaN",
        ),
    ],
)
def test_snapshot_of_another_network(net, tmp_path, mistake, message, suffix):
    path = str(tmp_path / f"odd.{suffix}")
    write_state(path, mistake(net.__getstate__()))
    with pytest.raises(dnnlib.UserError, match=message) as caught:
        load_elsewhere(path)
    assert str(caught.value).startswith(path) and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "wrong",
    [
        *(7, ["abc"], [(1,)], [("a", "text")], [(1, np.zeros(2))], {"a": [1, [2]]}),
        {"a": ["x" * 10**6] + ["y"] * 30_000},  # As an array, 100 GB.
        np.zeros([10**7, 1], np.int8),  # As lists, 1 GB.
        [(str(number), array) for array in [np.zeros(10**6)] for number in range(300)],  # 1 GB of one array.
    ],
)
def test_wrong_variables(tmp_path, wrong):
    path = str(tmp_path / "odd.pickle")
    write_state(path, {"version": 2, "name": "n", "static_kwargs": {}, "build_func_name": "f", "variables": wrong})
    with pytest.raises(dnnlib.UserError, match=r"odd\.pickle: not a network snapshot: (its variables are|variable )"):
        tflib.load_snapshot(path)


def test_version_of_any_length(tmp_path):
    path = str(tmp_path / "odd.pickle")
    state = {"version": 1 << 20_000, "name": "n", "static_kwargs": {}, "build_func_name": "f", "variables": {}}
    write_state(path, state)
    with pytest.raises(dnnlib.UserError, match="only version 2 is known"):
        tflib.load_snapshot(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_file_kinds_are_named(tmp_path, suffix):
    path = str(tmp_path / f"photo.{suffix}")
    Image.new("RGB", (4, 4)).save(path, "PNG")
    with pytest.raises(dnnlib.UserError, match=rf"photo\.{suffix}: is a PNG picture, not a network snapshot"):
        tflib.load_snapshot(path)
    with pytest.raises(OSError) as caught:
        tflib.load_snapshot(f"missing.{suffix}")
    assert caught.value.filename == f"missing.{suffix}"


@pytest.mark.parametrize("suffix", FORMATS)
def test_arrays_of_any_layout_round_trip(tmp_path, suffix):
    path, rng = str(tmp_path / f"arrays.{suffix}"), np.random.default_rng(0)
    arrays = {
        "fortran": np.asfortranarray(rng.normal(size=[2, 3]).astype(np.float32)),
        "strided": rng.normal(size=[4, 6]).astype(np.float32)[::2, 1::2],
        "big endian": rng.normal(size=3).astype(">f4"),
        "no axes": np.float32(0.9),
        "empty": np.zeros([0, 3], np.float32),
    }
    tflib.save_arrays(arrays, path)
    loaded = tflib.load_snapshot(path)
    assert set(loaded) == {"variables"} and set(loaded.variables) == set(arrays)
    for name, value in loaded.variables.items():
        assert value.dtype == np.float32 and value.shape == np.shape(arrays[name])
        np.testing.assert_array_equal(value, arrays[name])


def header(**tensors):
    return json.dumps({name: dict(zip(("dtype", "shape", "data_offsets"), t)) for name, t in tensors.items()}).encode()


@pytest.mark.parametrize(
    "text",
    [
        header(a=("F32", [1 << 40], [0, 1 << 42])),
        header(a=("F32", [1 << 62, 1 << 62], [0, 16])),
        header(a=("F32", [0, 1 << 62, 1 << 62], [0, 0]), b=("F32", [4], [0, 16])),
        header(a=("F32", [4], [0, 16]), b=("F32", [4], [0, 16])),
        header(a=("F32", [2], [0, 8])),
        header(a=("F32", [1] * 99 + [4], [0, 16])),
        header(a=("O", [2], [0, 16])),
        header(a=("BF16", [8], [0, 16])),
        b'{"__metadata__": {"version": "os.mkdir()"}, ' + header(a=("F32", [4], [0, 16]))[1:],
        b'{"__metadata__": {"version": 2}, ' + header(a=("F32", [4], [0, 16]))[1:],
        b"[" * 100_000,
        b"\xff\n\x1b[31m",
    ],
)
def test_hostile_header(tmp_path, text):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(dnnlib.UserError, match=r"x\.safetensors: not a (safetensors file|network)") as caught:
        tflib.load_snapshot(str(path))
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(path)) + 200


def test_claimed_size_takes_no_memory(tmp_path):
    path, size = tmp_path / "x.safetensors", 1 << 36
    path.write_bytes(struct.pack("<Q", 1 << 62) + bytes(100))
    with pytest.raises(dnnlib.UserError, match=r"(?i)header ?too ?large"):
        tflib.load_snapshot(str(path))
    text = header(a=("U8", [size], [0, size]))
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + size)  # A sparse file takes no disk space.
    with pytest.raises(dnnlib.UserError, match="bytes are too many"):
        tflib.load_snapshot(str(path))


def test_damaged_file(tmp_path):
    path = tmp_path / "x.safetensors"
    tflib.save_arrays({"weight": np.arange(20.0), "bias": np.zeros([0, 3])}, str(path))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(dnnlib.UserError, match=r"x\.safetensors: not a safetensors file, truncated or damaged"):
            tflib.load_snapshot(str(path))
    for _ in range(500):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            tflib.load_snapshot(str(path))
        except dnnlib.UserError as error:
            assert str(error).startswith(str(path)) and str(error).isprintable()
