"""The folder of rebuilt plans: damage, full and forbidden folders, and several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from visionrt.errors import InputDataError, MissingDependencyError
from visionrt.plan_cache import PlanCache, cache_folder, key_of

KEY = key_of({"gpu": "a"})


def test_an_entry_comes_back_whole(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "not" / "yet")
    assert cache.read(KEY) is None
    for data in (b"", b"\n", b"{}\nplan\n" * 1000):
        cache.write(KEY, {"plan": {"a": [1]}}, data)
        entry = cache.read(KEY)
        assert entry is not None
        assert (entry.header, entry.data) == ({"plan": {"a": [1]}}, data)
    assert (tmp_path / "not" / "yet").stat().st_mode & 0o077 == 0
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.read(KEY) is None


def test_a_key_depends_on_every_part_and_on_no_order() -> None:
    assert key_of({"a": 1, "b": (1, 2)}) == key_of({"b": [1, 2], "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": 2}), key_of({"b": 1}), key_of({})}) == 4


def test_any_damage_is_seen_and_removed(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.write(KEY, {"a": 1}, b"plan" * 10)
    whole = cache.path(KEY).read_bytes()
    start = whole.index(b"\n") + 1
    damaged = [whole[:cut] for cut in (0, 1, start - 1, start, len(whole) - 1)]
    damaged += [whole + b"x", b"[1]\n", b"{}\n", b"[" * 70000, os.urandom(200)]
    for at in (start, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        damaged.append(bytes(changed))
    for data in damaged:
        cache.path(KEY).write_bytes(data)
        assert cache.read(KEY) is None, data[:80]
        assert not cache.path(KEY).exists()
    cache.path(KEY).write_bytes(whole)
    assert cache.read(KEY) is not None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, limit_bytes=3500)
    (tmp_path / "notes.txt").write_bytes(b"x" * 9000)  # not an entry
    keys = [key_of({"n": n}) for n in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.write(key, {}, b"x" * 1000)
        os.utime(cache.path(key), (1000 + age, 1000 + age))
    assert cache.read(keys[0]) is not None  # used now
    cache.write(keys[3], {}, b"x" * 1000)
    assert [cache.path(key).exists() for key in keys] == [True, False, True, True]
    # One that is larger than the limit is kept alone.
    cache.write(keys[1], {}, b"x" * 5000)
    assert [cache.path(key).exists() for key in keys] == [False, True, False, False]
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    cache = PlanCache(in_the_way / "cache")
    with pytest.raises(InputDataError, match="VISIONRT_CACHE"):
        cache.write(KEY, {}, b"plan")
    with pytest.raises(InputDataError, match="VISIONRT_CACHE"), cache.locked(KEY):
        pytest.fail("locked")
    with pytest.raises(InputDataError, match="VISIONRT_CACHE"):
        cache.read(KEY)


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISIONRT_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.setenv("VISIONRT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "visionrt" / "plans"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "visionrt" / "plans"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(MissingDependencyError, match="VISIONRT_CACHE"):
        cache_folder()


def test_only_one_thread_makes_an_entry(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    inside, most, made = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, made
        for _ in range(10):  # some come while others wait for a lock that is being let go
            with cache.locked(KEY):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                if cache.read(KEY) is None:
                    made += 1
                    cache.write(KEY, {}, b"plan")
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, made) == (1, 1)
    assert [path.name for path in tmp_path.iterdir()] == [cache.path(KEY).name]  # no lock is left


_HOLD = """
import sys, time
from pathlib import Path
from visionrt.plan_cache import PlanCache
with PlanCache(Path(sys.argv[1])).locked(sys.argv[2]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path), KEY], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    cache, got = PlanCache(tmp_path), threading.Event()

    def wait() -> None:
        with cache.locked(KEY):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.wait(0.2)
    holder.send_signal(signal.SIGKILL)
    assert got.wait(20)
    thread.join()
    holder.communicate()
    assert list(tmp_path.iterdir()) == []
