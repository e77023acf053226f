# SPDX-License-Identifier: Apache-2.0
"""What the dashboard knows: a `Snapshot` and its parts. No I/O.

Tables are columns (numpy arrays of one length), so that a hundred thousand sources are
sorted and filtered without a Python object a row. Everything here is immutable by
convention: a snapshot crosses threads and is never written after it was built.

Units: `_ns` are nanoseconds of CLOCK_MONOTONIC, `_s` seconds, `bps` bits a second, `pps`
packets a second. A rate that is not known yet is NaN in a column and None elsewhere.
"""

from ebpftop.model.addresses import SERVICE_PROTOCOLS, Prefix, Service
from ebpftop.model.balancing import (
    ALGORITHMS,
    BACKEND_STATES,
    BALANCING_MODES,
    CONNECTION_STATES,
    GONE,
    NO_BACKEND_CHOICES,
    Backend,
    Backends,
    Connections,
    Flow,
    HealthCheck,
    Vip,
    Vips,
    wished_shares,
)
from ebpftop.model.columns import F64, U64, Clock, Column
from ebpftop.model.inspection import (
    Fixture,
    Inspection,
    InterfaceCounters,
    Listing,
    ProgramFacts,
)
from ebpftop.model.protection import (
    Allowed,
    BlockRequest,
    Blocks,
    Limits,
    Sent,
    Sources,
    SourceState,
)
from ebpftop.model.shaping import (
    DIRECTIONS,
    SHAPINGS,
    Classes,
    ClassKey,
    TrafficClass,
    default_burst,
)
from ebpftop.model.snapshot import (
    VERDICTS,
    Count,
    Event,
    Interface,
    MapInfo,
    Program,
    Rates,
    Snapshot,
    Totals,
)

__all__ = [
    "ALGORITHMS",
    "BACKEND_STATES",
    "BALANCING_MODES",
    "CONNECTION_STATES",
    "DIRECTIONS",
    "F64",
    "GONE",
    "NO_BACKEND_CHOICES",
    "SERVICE_PROTOCOLS",
    "SHAPINGS",
    "U64",
    "VERDICTS",
    "Allowed",
    "Backend",
    "Backends",
    "BlockRequest",
    "Blocks",
    "ClassKey",
    "Classes",
    "Clock",
    "Column",
    "Connections",
    "Count",
    "Event",
    "Fixture",
    "Flow",
    "HealthCheck",
    "Inspection",
    "Interface",
    "InterfaceCounters",
    "Limits",
    "Listing",
    "MapInfo",
    "Prefix",
    "Program",
    "ProgramFacts",
    "Rates",
    "Sent",
    "Service",
    "Snapshot",
    "SourceState",
    "Sources",
    "Totals",
    "TrafficClass",
    "Vip",
    "Vips",
    "default_burst",
    "wished_shares",
]
