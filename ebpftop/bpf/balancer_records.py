# SPDX-License-Identifier: Apache-2.0
"""Records of the balancer's maps, made of the model's values and read back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebpftop.bpf import layout
from ebpftop.format import printable
from ebpftop.model import (
    ALGORITHMS,
    BACKEND_STATES,
    BALANCING_MODES,
    NO_BACKEND_CHOICES,
    SERVICE_PROTOCOLS,
    Backend,
    HealthCheck,
    Prefix,
    Service,
    Vip,
)

CHECK_KINDS = ("", "tcp", "http")
"""Words for `enum check_kind`; the first is none."""
HEALTHS = (None, True, False)
"""What `enum health` says: not known, good, bad."""
_NS = 1_000_000_000


def service_record(service: Service) -> NDArray[Any]:
    """Return a `SERVICE` record without a dimension."""
    record = np.zeros((), layout.SERVICE)
    record["address"]["high"] = service.address.high
    record["address"]["low"] = service.address.low
    protocol = SERVICE_PROTOCOLS.index(service.protocol)
    record["port"] = protocol << layout.SERVICE_PROTOCOL_SHIFT | service.port
    return record


def service(record: Any) -> Service:
    """Read a `SERVICE` record."""
    port = int(record["port"])
    return Service(
        Prefix(int(record["address"]["high"]), int(record["address"]["low"])),
        port & 0xFFFF,
        SERVICE_PROTOCOLS[port >> layout.SERVICE_PROTOCOL_SHIFT & 1],
    )


def vip(slot: Any, in_force: Any, check: Any) -> Vip:
    """Read what a VIP's operator wants of its `VIP_SLOT`, `VIP` and `CHECK` records."""
    flags = int(slot["flags"])
    return Vip(
        service(slot["service"]),
        algorithm=ALGORITHMS[int(in_force["algorithm"]) & 3],
        mode=BALANCING_MODES[bool(flags & layout.VIP_DSR)],
        no_backend=NO_BACKEND_CHOICES[bool(flags & layout.VIP_ALL)],
        check=health_check(check),
    )


def slot_flags(wanted: Vip) -> int:
    """Return the flags of a VIP's slot."""
    flags = layout.VIP_DSR if wanted.mode == "dsr" else 0
    return flags | (layout.VIP_ALL if wanted.no_backend == "all" else 0)


def backend(record: Any) -> Backend:
    """Read what a backend's operator wants of its `BACKEND` record."""
    state = BACKEND_STATES[min(int(record["state"]), len(BACKEND_STATES) - 1)]
    return Backend(service(record["service"]), int(record["weight"]), state)


def healthy(record: Any) -> bool | None:
    """Read what the checks say of a `BACKEND` record; None where nothing checks."""
    return HEALTHS[min(int(record["health"]), len(HEALTHS) - 1)]


def somebody_checks(beat: NDArray[Any], now_ns: int) -> bool:
    """Whether a process checks health: `checker` holds a sign of life that is recent enough.

    Without it health is not known to readers, whatever the last one found; the rings keep it.
    """
    beat_ns = int(beat[0])
    return beat_ns > 0 and now_ns - beat_ns < layout.CHECKER_SILENT_S * _NS


def check_record(wanted: HealthCheck | None) -> NDArray[Any]:
    """Return a `CHECK` record without a dimension; of None, an empty one."""
    record = np.zeros((), layout.CHECK)
    if wanted is not None:
        record["kind"] = CHECK_KINDS.index(wanted.kind)
        record["interval_ns"] = round(wanted.interval_s * _NS)
        record["timeout_ns"] = round(wanted.timeout_s * _NS)
        for name in ("port", "rise", "fall", "status"):
            record[name] = getattr(wanted, name)
        record["path"], record["host"] = wanted.path.encode(), wanted.host.encode()
    return record


def health_check(record: Any) -> HealthCheck | None:
    """Read a `CHECK` record; None where nothing checks."""
    kind = CHECK_KINDS[min(int(record["kind"]), len(CHECK_KINDS) - 1)]
    if not kind:
        return None
    path, host = (
        printable(bytes(record[name]).decode(errors="replace")) for name in ("path", "host")
    )
    return HealthCheck(
        kind=kind,
        interval_s=int(record["interval_ns"]) / _NS,
        timeout_s=int(record["timeout_ns"]) / _NS,
        rise=int(record["rise"]),
        fall=int(record["fall"]),
        port=int(record["port"]),
        path=path,
        host=host,
        status=int(record["status"]),
    )
