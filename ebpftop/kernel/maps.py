# SPDX-License-Identifier: Apache-2.0
"""Maps of the kernel as numpy records, read in batches."""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.errors import KernelRefusedError
from ebpftop.kernel.libbpf import call, object_info, possible_cpus

MAP_TYPES = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash",
             11: "lpm_trie"}  # fmt: skip
"""Names of the map types that ebpftop makes, by number."""
ARRAYS = frozenset({"array", "percpu_array"})


class MapInfo(ct.Structure):
    """What the kernel says of a map: `struct bpf_map_info` as far as it is read."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_bytes", ct.c_uint32),
        ("value_bytes", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("name", ct.c_char * 16),
    )


class Map:
    """One open map, its entries as numpy records.

    Args:
        fd: Its file descriptor, which the map closes.
        key: dtype of a key.
        value: dtype of a value; of a per-CPU map, of one CPU's value.
    """

    def __init__(self, fd: int, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        self.fd = fd
        info = object_info(fd, MapInfo)
        self.name = info.name.decode(errors="replace")
        self.type = MAP_TYPES.get(info.type, str(info.type))
        self.max_entries = int(info.max_entries)
        self.key = key
        per_cpu = self.type.startswith("percpu")
        self.value = np.dtype((value, (possible_cpus(),))) if per_cpu else value
        if (info.key_bytes, info.value_bytes) != (key.itemsize, value.itemsize):
            os.close(fd)
            raise KernelRefusedError(
                f"map {self.name} has another layout than this version of ebpftop",
                "run the version that attached it, or detach and attach again",
            )
        self._keys = np.empty(0, key)
        self._values = np.empty(0, self.value)

    def close(self) -> None:
        """Close the file descriptor."""
        os.close(self.fd)

    @property
    def memory_bytes(self) -> int | None:
        """Memory the kernel accounts to it."""
        for line in Path(f"/proc/self/fdinfo/{self.fd}").read_text().splitlines():
            if line.startswith("memlock:"):
                return int(line.split()[1])
        return None

    def get(self, key: Any) -> NDArray[Any] | None:
        """Return the value of `key` as a one-element array, None where there is none."""
        found = np.zeros(1, self.value)
        wanted = np.array([key], self.key)
        try:
            call("bpf_map_lookup_elem", self.fd, _at(wanted), _at(found))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return found

    def put(self, key: Any, value: NDArray[Any]) -> None:
        """Write one entry; `value` is a one-element array."""
        wanted = np.array([key], self.key)
        call("bpf_map_update_elem", self.fd, _at(wanted), _at(value), ct.c_uint64(0))

    def delete(self, key: Any) -> bool:
        """Remove one entry; False where there was none."""
        wanted = np.array([key], self.key)
        try:
            call("bpf_map_delete_elem", self.fd, _at(wanted))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def put_all(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Write entries in one system call; of those that it refuses, some may be written."""
        if len(keys) == 0:
            return
        count = ct.c_uint32(len(keys))
        call("bpf_map_update_batch", self.fd, _at(keys), _at(values), ct.byref(count), None)

    def delete_all(self, keys: NDArray[Any]) -> None:
        """Remove entries; those that are not there are passed over."""
        for key in keys:
            self.delete(key)

    def read_part(self, first: int, count: int) -> NDArray[Any]:
        """Read some neighbouring entries of an array in one system call; returns a copy."""
        values, read = np.empty(count, self.value), ct.c_uint32(count)
        keys = np.empty(count, self.key)
        # The kernel goes on after the key that it is given.
        before = np.array([max(0, first - 1)], self.key)
        cursor = _at(before) if first else None
        after = ct.create_string_buffer(8)
        try:
            call(
                "bpf_map_lookup_batch", self.fd, cursor, after, _at(keys), _at(values),
                ct.byref(read), None,
            )  # fmt: skip
        except OSError as error:
            if error.errno != errno.ENOENT:  # the end of the array
                raise
        return values[: read.value]

    def read(self, limit: int | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Read all entries, or the first `limit`, in batches.

        Returns:
            Keys and values, views that the next call overwrites.
        """
        room = self.max_entries if limit is None else min(limit, self.max_entries)
        self._make_room(room)
        filled, cursors, more = 0, self._cursors(), True
        while more and filled < room:
            count, more = self._read_on(cursors, filled, room - filled)
            filled += count
        return self._keys[:filled], self._values[:filled]

    def batches(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Read all entries, some at a time, which takes little memory and stays in the caches.

        Args:
            size: Entries at a time; of a hash, more than one of its buckets holds.

        Yields:
            Keys and values, views that the next step overwrites.
        """
        self._make_room(size)
        cursors, more = self._cursors(), True
        while more:
            count, more = self._read_on(cursors, 0, size)
            yield self._keys[:count], self._values[:count]

    def _make_room(self, entries: int) -> None:
        if len(self._keys) < entries:
            self._keys, self._values = np.empty(entries, self.key), np.empty(entries, self.value)

    def _cursors(self) -> _Cursors:
        return [None, ct.create_string_buffer(max(8, self.key.itemsize))]

    def _read_on(self, cursors: _Cursors, at: int, room: int) -> tuple[int, bool]:
        """Read up to `room` entries to `at`; returns how many, and whether there may be more."""
        before, after = cursors
        count = ct.c_uint32(room)
        try:
            call(
                "bpf_map_lookup_batch", self.fd, before, after,
                _at(self._keys, at), _at(self._values, at), ct.byref(count), None,
            )  # fmt: skip
        except OSError as error:
            if error.errno == errno.ENOENT:
                return count.value, False
            if error.errno == errno.ENOSPC:
                return 0, False
            raise
        # The kernel writes a whole key into the cursor of a trie, and a bucket's number into
        # that of a hash; in and out must not be one buffer.
        cursors[:] = [after, before or self._cursors()[1]]
        return count.value, True


_Cursors = list["ct.Array[ct.c_char] | None"]
"""Where the last step ended, None before the first; and where the next one says where it did."""


def _at(array: NDArray[Any], row: int = 0) -> ct.c_void_p:
    return ct.c_void_p(array.ctypes.data + row * array.strides[0])
