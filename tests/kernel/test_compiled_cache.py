# SPDX-License-Identifier: Apache-2.0
"""Compiled programs that are kept: the same programs again, and nothing that root did not write."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ebpftop.bpf import layout
from ebpftop.errors import KernelRefusedError
from ebpftop.kernel import bpffs, compiled, compiled_cache, libbpf, loading
from ebpftop.kernel.compiled import CompiledProgram, RefusedProgramError
from ebpftop.kernel.maps import MapInfo
from tests.kernel.attached import EBPFTOP, NOBODY, Site
from tests.kernel.shaper import CAPACITY

pytestmark = pytest.mark.kernel

MODULE = loading.SHAPER
NO_COMPILER = Path("/nonexistent/compile.py")
OTHER_UID = 65534
Made = tuple[dict[str, str], dict[str, bytes]]
"""Tags of programs, and what the kernel says of maps, by name."""


@contextmanager
def pins(name: str = "cache") -> Iterator[Path]:
    """Make a folder on the bpffs that nobody sweeps, and take it away again."""
    bpffs.mount(lasting=False)
    folder = bpffs.BPFFS / f"test-{os.getpid()}-{name}"
    with bpffs.locked(folder.name):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            (bpffs.RUN / f"{folder.name}.lock").unlink(missing_ok=True)


def load() -> Made:
    """Load the shaper as an attach does; return what came of it."""
    tags, maps = {}, {}
    with pins() as folder:
        loading.load(folder, CAPACITY, [MODULE])
        for pin in folder.iterdir():
            fd = libbpf.open_pin(pin)
            if pin.name.startswith("prog_"):
                tags[pin.name] = libbpf.program_info(fd).tag
            else:
                maps[pin.name] = described(fd)
            os.close(fd)
    return tags, maps


def described(fd: int) -> bytes:
    """What the kernel says of a map but its number: type, sizes, flags and name."""
    said = bytearray(bytes(libbpf.object_info(fd, MapInfo)))
    said[4:8] = bytes(4)
    return bytes(said)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    """What a compiler made, and the folder that it is kept in."""
    kept = tmp_path_factory.mktemp("kept") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_cache, "FOLDER", kept)
        return load(), kept


@pytest.fixture
def cache(fresh: tuple[Made, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own with the shaper in it, and no compiler."""
    folder = tmp_path / "cache"
    shutil.copytree(fresh[1], folder)
    monkeypatch.setattr(compiled_cache, "FOLDER", folder)
    monkeypatch.setattr(loading, "COMPILER", NO_COMPILER)
    return folder


def entry(cache: Path) -> Path:
    """Return the one entry."""
    (found,) = cache.iterdir()
    return found


def test_what_is_kept_loads_the_same_programs_and_maps_without_a_compiler(
    fresh: tuple[Made, Path], cache: Path
) -> None:
    assert load() == fresh[0]
    assert set(fresh[0][0]) == {f"prog_{name}" for name in MODULE.programs}
    assert set(fresh[0][1]) >= set(MODULE.maps)


def test_types_are_kept_for_those_who_dump_maps(cache: Path) -> None:
    with pins() as folder:
        loading.load(folder, CAPACITY, [MODULE])
        dumped = subprocess.run(
            ["bpftool", "map", "dump", "pinned", str(folder / "shaper_config")],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    assert '"generation": 0' in dumped


def test_only_root_gets_at_it(fresh: tuple[Made, Path]) -> None:
    folder = fresh[1]
    modes = [path.stat().st_mode & 0o7777 for path in (folder, entry(folder))]

    assert modes == [0o700, 0o600]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _move_folder(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "spoil",
    [
        _flip,
        _link,
        _move_folder,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.chmod(0o620),
        lambda path: path.parent.chmod(0o750),
        lambda path: os.chown(path, OTHER_UID, 0),
        lambda path: os.chown(path.parent, OTHER_UID, 0),
        lambda path: os.link(path, path.parent.parent / "second name"),
        lambda path: os.utime(compiler_part(path), ns=(1, 1)),
    ],
    ids=[
        "damaged", "a link", "a linked folder", "empty", "cut short", "writable by a group",
        "a folder for a group", "another's", "in another's folder", "with a second name",
        "of another compiler",
    ],
)  # fmt: skip
def test_what_is_damaged_foreign_or_old_is_not_taken(
    cache: Path, spoil: Callable[[Path], None]
) -> None:
    name = entry(cache).name
    assert compiled_cache.take(name)

    spoil(entry(cache))

    assert compiled_cache.take(name) is None
    with pytest.raises(KernelRefusedError, match=r"compile\.py"):
        load()


def compiler_part(path: Path) -> Path:
    """Have an entry made by a compiler of which a part is in a file that may be changed."""
    kept = compiled_cache.take(path.name)
    assert kept
    part = path.parent.parent / "libbcc.so"
    part.touch()
    status = part.stat()
    made_by = [(str(part), status.st_size, status.st_mtime_ns)]
    compiled_cache.put(path.name, replace(kept, tools=made_by))
    assert compiled_cache.take(path.name)
    return part


def test_the_compiler_is_known_by_its_libraries_its_python_and_the_headers(cache: Path) -> None:
    kept = compiled_cache.take(entry(cache).name)

    assert kept
    parts = " ".join(Path(path).name for path, _, _ in kept.tools)
    for part in ("libbcc.so", "libLLVM", "libclang", "version.py", "version.h"):
        assert part in parts


def test_a_damaged_entry_is_compiled_anew_and_then_kept(
    fresh: tuple[Made, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _flip(entry(cache))
    monkeypatch.undo()
    monkeypatch.setattr(compiled_cache, "FOLDER", cache)

    assert load() == fresh[0]
    assert compiled_cache.take(entry(cache).name)


def test_each_source_each_capacity_and_the_compilers_script_has_its_own_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "bpf"
    shutil.copytree(Path(layout.__file__).parent, sources)
    monkeypatch.setattr(compiled_cache, "_SOURCES", sources)
    names = {compiled_cache.key("one", "python"), compiled_cache.key("two", "python")}
    changed = ["compile.py", "token_bucket.h", "tc_traffic_shaper.c", "include/asm/page.h"]
    for name in changed:
        with (sources / name).open("a") as file:
            file.write(" ")
        names.add(compiled_cache.key("one", "python"))

    assert len(names) == 2 + len(changed)


def test_what_is_kept_is_checked_against_its_twin_at_each_load(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, value = MODULE.maps["buckets"]
    other = replace(MODULE, maps={**MODULE.maps, "buckets": (value, key)})
    with pins() as folder, pytest.raises(KernelRefusedError, match="of map buckets"):
        loading.load(folder, CAPACITY, [other])


def test_those_used_last_stay(cache: Path) -> None:
    kept = compiled_cache.take(entry(cache).name)
    assert kept
    first = entry(cache).name
    for number in range(compiled_cache.KEPT):
        os.utime(cache / first, ns=(number, number))
        compiled_cache.put(f"{number:064x}", kept)
        os.utime(cache / f"{number:064x}", ns=(1000 + number, 1000 + number))
        assert (cache / first).exists() == (number < compiled_cache.KEPT - 1)

    assert len(list(cache.iterdir())) == compiled_cache.KEPT
    assert compiled_cache.take(f"{0:064x}")  # which makes 1 the oldest
    compiled_cache.put(first, kept)
    assert not (cache / f"{1:064x}").exists()
    assert (cache / f"{0:064x}").exists()


LOADS = """
import sys
from pathlib import Path
from ebpftop.kernel import compiled_cache, loading
from tests.kernel.shaper import CAPACITY
compiled_cache.FOLDER = Path(sys.argv[1])
loading.load(Path(sys.argv[2]), CAPACITY, [loading.SHAPER])
"""


def test_two_at_once_both_load_and_leave_one_whole_entry(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pins("one") as one, pins("two") as two:
        running = [
            subprocess.Popen([sys.executable, "-c", LOADS, str(cache), str(folder)])
            for folder in (one, two)
        ]
        assert [child.wait() for child in running] == [0, 0]
        assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}

    assert compiled_cache_entry(cache)


def compiled_cache_entry(cache: Path) -> bool:
    """Whether the one entry of a folder can be taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_cache, "FOLDER", cache)
        return compiled_cache.take(entry(cache).name) is not None


def test_where_it_cannot_be_written_attaching_works_and_doctor_says_so(site: Site) -> None:
    closed = "mount -t tmpfs -o ro none /var/cache"
    attached = site.with_mounts(closed, "attach", "eth0")
    doctor = site.with_mounts(closed, "doctor")
    site.child(*EBPFTOP, "detach", "eth0")

    assert (attached.status, attached.err) == (0, "")
    assert "note  compiled programs are not kept in /var/cache/ebpftop: Read-only" in doctor.out
    assert doctor.status == 0


def test_doctor_says_where_they_are_kept(site: Site) -> None:
    assert "ok    compiled programs are kept in" in site.child(*EBPFTOP, "doctor").out
    unprivileged = site.child(*NOBODY, *EBPFTOP, "doctor")
    assert "note  compiled programs are not kept" in unprivileged.out


def test_a_program_that_the_verifier_refuses_is_refused_in_its_words(cache: Path) -> None:
    kept = compiled_cache.take(entry(cache).name)
    assert kept
    ends_without_an_answer = CompiledProgram(bytes([0x95]) + bytes(7), [])
    broken = replace(kept, programs={"broken": ends_without_an_answer})
    with pins() as folder, pytest.raises(RefusedProgramError) as refused:
        compiled.load(broken, MODULE.program_type, folder)

    assert refused.value.errno == errno.EACCES
    assert "R0 !read_ok" in refused.value.log


def test_maps_that_are_shared_are_used_and_not_made(cache: Path) -> None:
    with pins("one") as one, pins("two") as two:
        loading.load(one, CAPACITY, [MODULE])
        loading.load(two, CAPACITY, [MODULE], share=one)

        assert {pin.name for pin in two.iterdir()} == {f"prog_{name}" for name in MODULE.programs}
        (two / "own").mkdir()
        (one / "buckets").unlink()
        loading.load(two / "own", CAPACITY, [MODULE], share=one)
        assert (two / "own" / "buckets").exists()


@pytest.mark.parametrize("field", ["type", "key_bytes", "value_bytes", "max_entries"])
def test_a_shared_map_that_was_made_in_another_way_is_refused(cache: Path, field: str) -> None:
    kept = compiled_cache.take(entry(cache).name)
    assert kept
    other = replace(kept.maps["buckets"], **{field: getattr(kept.maps["buckets"], field) + 1})
    with pins("one") as one, pins("two") as two:
        loading.load(one, CAPACITY, [MODULE])
        with pytest.raises(KernelRefusedError, match=f"map buckets has {field}"):
            compiled.load(
                replace(kept, maps={**kept.maps, "buckets": other}),
                MODULE.program_type, two, share=one,
            )  # fmt: skip

        assert list(two.iterdir()) == []
