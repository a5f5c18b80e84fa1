"""Tests of what is known of a machine."""

import ctypes
import io
import sys
from types import SimpleNamespace

import pytest

from dnnlib.tflib import tfutil

AVX2, AVX512, ARM = (
    "flags\t\t: fpu sse2 avx2 fma\n",
    "flags\t\t: fpu avx2 avx512f avx512_bf16\n",
    "Features\t: fp asimd bf16\n",
)


@pytest.mark.parametrize(
    "system, machine, cpuinfo, plain",
    [
        ("linux", "x86_64", "processor\t: 0\n" + AVX2, True),
        ("linux", "x86_64", "processor\t: 0\n" + AVX512, False),
        ("linux", "aarch64", "processor\t: 0\n" + ARM, False),
        ("darwin", "arm64", None, False),
        ("darwin", "x86_64", None, True),
        ("win32", "AMD64", None, True),
        ("win32", "AMD64", AVX512, False),
        ("win32", "ARM64", None, False),
    ],
)
def test_plain_cpus(system, machine, cpuinfo, plain, monkeypatch):
    """`cpuinfo` is what Linux says in /proc/cpuinfo; Windows answers whether there is AVX-512."""

    def read(path, **kwargs):
        if system == "linux" and path == "/proc/cpuinfo":
            return io.StringIO(cpuinfo)
        raise FileNotFoundError(path)

    kernel32 = SimpleNamespace(IsProcessorFeaturePresent=lambda feature: int(feature == 41 and bool(cpuinfo)))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(tfutil.platform, "machine", lambda: machine)
    monkeypatch.setattr(tfutil, "open", read, raising=False)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    tfutil.cpu_flags.cache_clear()
    try:
        assert tfutil.on_plain_cpu() == plain
    finally:
        tfutil.cpu_flags.cache_clear()
