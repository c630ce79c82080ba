"""The emulation itself: intrinsics against NumPy, launches, orders, registered memory, threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulation import build
from emulation.emulator import EmulationError, Emulator

if build.compiler() is None:
    pytest.skip("the emulation is built by g++", allow_module_level=True)

SOURCE = Path(build.__file__).with_name("intrinsics.cu")
I32, U32, F32 = np.int32, np.uint32, np.float32


@pytest.fixture(scope="module", params=[True, False], ids=["checked", "fast"])
def emulator(request: pytest.FixtureRequest) -> Emulator:
    device = Emulator(build.kernel_library([SOURCE]))
    device.checking(request.param)
    return device


@pytest.fixture
def checked() -> Emulator:
    device = Emulator(build.kernel_library([SOURCE]))
    device.checking(True)
    device.findings()
    return device


def shuffled(values: np.ndarray[Any, Any], kind: str, operand: int, width: int) -> list[int]:
    out = []
    for t in range(len(values)):
        segment, place = t // width * width, t % width
        source = {
            "index": operand % width,
            "up": place - operand if place >= operand else place,
            "down": place + operand if place + operand < width else place,
            "xor": (t ^ operand) - segment if (t ^ operand) < segment + width else place,
        }[kind]
        out.append(int(values[segment + source]))
    return out


@pytest.mark.parametrize("threads", [32, 128])
def test_warp_and_block_intrinsics(emulator: Emulator, threads: int) -> None:
    rng = np.random.default_rng(threads)
    for seed, (width, operand) in enumerate([(32, 1), (32, 16), (8, 3), (16, 5), (4, 4), (2, 1)]):
        emulator.seed(seed)
        values = rng.integers(-100, 101, threads).astype(I32)
        with emulator.buffer(values, "in") as given, emulator.empty((11, threads), I32) as out:
            emulator.launch(
                "warp_intrinsics", (1,), (threads,), given, out, c_int(width), c_int(operand)
            )
            emulator.check()
            rows = out.array.copy()
        for row, kind in enumerate(["index", "up", "down", "xor"]):
            assert rows[row].tolist() == shuffled(values, kind, operand, width), kind
        warps = values.reshape(-1, 32)
        votes = [sum(1 << i for i in range(32) if w[i] > 0) for w in warps]
        assert rows[4].view(U32).reshape(-1, 32).tolist() == [[v] * 32 for v in votes]
        for row, expected in ((5, (warps > 90).any(1)), (6, (warps > -90).all(1))):
            assert (rows[row].reshape(-1, 32) == np.reshape(expected, (-1, 1))).all(), row
        assert (rows[7] == (values > 0).sum()).all()
        assert (rows[8] == (values > 95).any()).all()
        assert (rows[9] == (values > -99).all()).all()
        halves = rows[10].reshape(-1, 32)
        assert (halves[:, :16] == warps[:, np.arange(16) ^ 1]).all()
        assert not halves[:, 16:].any()


def test_atomics(emulator: Emulator) -> None:
    values = np.random.default_rng(1).integers(-1000, 1000, 300).astype(I32)
    start = np.array([0, 2000, -2000, -1, 0, 0, 0, 0], I32)
    with (
        emulator.buffer(values, "in") as given,
        emulator.buffer(start, "counters") as counters,
        emulator.empty(300, I32, "slots") as slots,
        emulator.buffer(np.zeros(1, F32), "sum") as total,
        emulator.buffer(np.zeros(1, U32), "wrapped") as wrapped,
    ):
        emulator.launch("atomics", (5,), (64,), given, c_int(300), counters, slots, total, wrapped)
        emulator.check()
        assert counters.array.tolist() == [
            values.sum(),
            values.min(),
            values.max(),
            np.bitwise_and.reduce(values),
            np.bitwise_or.reduce(values),
            np.bitwise_xor.reduce(values),
            300,
            900,
        ]
        assert sorted(slots.array) == list(range(300))
        assert total.array[0] == 150
        assert wrapped.array[0] == 300 % 7


def test_half_conversions_over_every_half_and_awkward_floats(emulator: Emulator) -> None:
    n = 1 << 16
    every = np.arange(n, dtype=np.uint16).view(np.float16)
    rng = np.random.default_rng(2)
    floats = rng.integers(0, 2**32, n, np.uint64).astype(U32).view(F32)
    finite = every[np.isfinite(every)].astype(F32)
    # Next to every half, and next to the middle of two halves.
    middle = (finite[:-1] + finite[1:]) / 2
    for given in (floats, *(np.resize(np.nextafter(v, F32(d)), n) for v in (finite, middle)
                            for d in (-np.inf, np.inf)), np.resize(middle, n)):  # fmt: skip
        with np.errstate(over="ignore"):
            expected = given.astype(np.float16)
        with (
            emulator.buffer(given.astype(F32), "in") as source,
            emulator.empty(n, np.uint16, "halves") as halves,
            emulator.empty(n, F32, "back") as back,
        ):
            emulator.launch("half_conversions", (n // 256,), (256,), source, halves, back)
            emulator.check()
            got = halves.array.view(np.float16)
            same = halves.array == expected.view(np.uint16)
            assert (same | (np.isnan(got) & np.isnan(expected))).all()
            np.testing.assert_array_equal(back.array, every.astype(F32))


def test_bit_intrinsics(emulator: Emulator) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 2**32, 200, np.uint64).astype(U32) for _ in range(2))
    a[:4] = [0, 1, 2**31, 2**32 - 1]
    with emulator.buffer(a) as x, emulator.buffer(b) as y, emulator.empty((4, 200), U32) as out:
        emulator.launch("bits", (4,), (64,), x, y, out, c_int(200))
        emulator.check()
        rows = out.array.tolist()
    for i, (p, q) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        text = f"{p:032b}"
        expected = [
            text.count("1"),
            text[::-1].find("1") + 1,
            32 if p == 0 else text.find("1"),
            p * q >> 32,
        ]
        assert [row[i] for row in rows] == expected


def test_tables_of_constants(emulator: Emulator) -> None:
    places = np.arange(64, dtype=I32) % 4
    with emulator.buffer(places) as given, emulator.empty(64, I32) as out:
        emulator.launch("constants", (1,), (64,), given, out)
        emulator.check()
        assert out.array.tolist() == [3, 70, 300, 7000] * 16


def test_three_dimensions(emulator: Emulator) -> None:
    grid, block = (3, 2, 4), (5, 3, 2)
    with emulator.empty((24, 30, 4), U32, "out") as out:
        emulator.launch("indices", grid, block, out)
        emulator.check()
        for number in range(24):
            for thread in range(30):
                place = [thread % 5, thread // 5 % 3, thread // 15]
                assert out.array[number, thread].tolist() == [number, *place]


def arrivals(emulator: Emulator, seed: int) -> list[int]:
    emulator.seed(seed)
    with emulator.buffer(np.zeros(1, I32)) as counter, emulator.empty(256, I32) as order:
        emulator.launch("arrival", (4,), (64,), counter, order)
        emulator.check()
        return order.array.tolist()  # type: ignore[no-any-return]


def test_the_order_is_random_and_the_seed_fixes_it(emulator: Emulator) -> None:
    orders = [arrivals(emulator, seed) for seed in range(10)]
    assert len({tuple(order) for order in orders}) == 10
    assert len({order[0] // 64 for order in orders}) > 1, "blocks come in any order too"
    assert orders[4] == arrivals(emulator, 4)


def test_a_grid_one_block_short_leaves_memory_unwritten(checked: Emulator) -> None:
    with (
        checked.buffer(np.arange(128, dtype=I32)) as source,
        checked.empty(128, I32, "middle") as middle,
        checked.empty(128, I32) as out,
    ):
        assert checked.launch("copy", (1,), (64,), source, middle, c_int(128)) == 0
        assert checked.launch("copy", (2,), (64,), middle, out, c_int(128)) == 1
        assert "read of unwritten memory" in checked.findings()[0]
        checked.mark_written(middle.address, 512)
        assert checked.launch("copy", (2,), (64,), middle, out, c_int(128)) == 0


@pytest.mark.parametrize(
    ("name", "grid", "block", "words"),
    [
        ("copy", (0,), (64,), "an empty grid or block"),
        ("copy", (1,), (1025,), "1025 threads in a block"),
        ("copy", (1, 65536), (1,), "a grid side over the limit"),
        ("no_such_kernel", (1,), (1,), "no_such_kernel: invalid launch: there is no such kernel"),
    ],
)
def test_launches_that_a_driver_refuses(
    checked: Emulator, name: str, grid: tuple[int, ...], block: tuple[int, ...], words: str
) -> None:
    assert checked.launch(name, grid, block, c_int(0), c_int(0), c_int(0)) == 1
    assert words in checked.findings()[0]


def test_memory_that_was_freed_is_out_of_bounds(checked: Emulator) -> None:
    with checked.buffer(np.zeros(64, I32)) as source:
        out = checked.empty(64, I32, "freed")
        out.close()
        assert checked.launch("copy", (1,), (64,), source, out, c_int(64)) == 1
    with pytest.raises(EmulationError, match="out of bounds"):
        checked.check()


def test_an_overwritten_guard_is_told() -> None:
    device = Emulator(build.kernel_library([SOURCE]))
    device.checking(False)
    source, out = device.buffer(np.zeros(64, I32)), device.empty(63, I32, "short")
    device.launch("copy", (1,), (64,), source, out, c_int(64))
    source.close()
    with pytest.raises(EmulationError, match="memory beside 'short' was overwritten"):
        out.close()


def test_threads_launch_one_after_another(emulator: Emulator) -> None:
    def once(number: int) -> bool:
        values = np.full(256, number, I32)
        with emulator.buffer(values) as source, emulator.empty(256, I32) as out:
            emulator.launch("copy", (4,), (64,), source, out, c_int(256))
            return bool((out.array == number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(once, range(200)))
    emulator.check()


def test_processes_that_build_at_once_share_one_build(tmp_path: Path) -> None:
    source = tmp_path / "tiny.cu"
    source.write_text('extern "C" __global__ void tiny(int* out) { *out = 7; }\n')
    code = (
        "import sys; from pathlib import Path; from emulation import build;"
        f"build.CACHE = Path({str(tmp_path / 'cache')!r});"
        f"print(build.kernel_library([Path({str(source)!r})]))"
    )
    tests = Path(build.__file__).parents[1]
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tests, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    paths = {process.communicate()[0] for process in started}
    assert len(paths) == 1
    assert [process.returncode for process in started] == [0, 0, 0]
    device = Emulator(Path(paths.pop().strip()))
    with device.empty(1, I32) as out:
        device.launch("tiny", (1,), (1,), out)
        assert out.array[0] == 7
    folders = [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]
    assert len(folders) == 1


def test_a_kernel_that_does_not_compile_is_told_in_the_compilers_words(tmp_path: Path) -> None:
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void broken(int* out) { *out = __no_such(7); }\n')
    with pytest.raises(build.BuildError, match=r"broken\.cu.*__no_such"):
        build.kernel_library([source])


def test_every_kernel_of_the_project_is_emulated() -> None:
    device = Emulator(build.kernel_library())
    names = [name for source in build.kernel_sources() for name in build.kernel_names(source)]
    for source in build.kernel_sources():
        entry_points = source.read_text("utf-8").count("__global__")
        assert entry_points == len(build.kernel_names(source)) > 0, source.name
    assert all(device.has_kernel(name) for name in names)
    assert len(set(names)) == len(names) >= 10
