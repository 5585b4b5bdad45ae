"""The C allocator's threshold."""

import ctypes
import platform
import subprocess
import sys

import pytest

from service.server import allocator


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_threshold_is_set_where_the_library_has_one() -> None:
    """In a process of its own: it concerns the whole process."""
    command = (sys.executable, "-c", "from service.server import allocator; assert allocator.tune_allocator()")
    assert subprocess.run(command, check=False).returncode == 0  # noqa: S603 - our own code


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such call."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not allocator.tune_allocator()
