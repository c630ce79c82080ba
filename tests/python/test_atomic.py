"""Files are whole or not there, whatever happens in the middle."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from visionrt import errors
from visionrt.atomic import replacing, write_bytes


def test_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def write_half() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(errors.InputDataError, match="No such file"):
        write_bytes(tmp_path / "none" / "x", b"")


FULL_DISK = """
import resource, signal, sys
from visionrt.atomic import write_bytes
from visionrt.errors import VisionrtError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(sys.argv[1], b"x" * 5000)
except VisionrtError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no RLIMIT_FSIZE here")
def test_full_disk(tmp_path: Path) -> None:
    """A write that the system refuses half way leaves the old file and nothing else."""
    path = tmp_path / "x"
    write_bytes(path, b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 8, done.stderr
    assert "Free some space" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_umask_is_honoured(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_every_error_has_its_own_exit_code_and_survives_pickling() -> None:
    kinds = errors.VisionrtError.__subclasses__()
    codes = sorted(kind.exit_code for kind in kinds)
    assert codes == [2, 3, 4, 5, 6, 7, 8]
    for kind in kinds:
        error = kind("a", got="b", fix="c")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error) == "expected a, got b. c"
