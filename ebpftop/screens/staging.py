# SPDX-License-Identifier: Apache-2.0
"""What an operator has chosen for VIPs and backends and not written yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ebpftop.model import Backend, Service, Snapshot, Vip
from ebpftop.screens.backend_history import BackendKey


class Staged:
    """Values that wait to be written, each locked to the VIP or backend that it is for."""

    def __init__(self) -> None:
        self._backends: dict[BackendKey, dict[str, Any]] = {}
        self._algorithms: dict[Service, str] = {}

    def stage(self, key: BackendKey, present: Backend, **values: Any) -> None:
        """Stage values by the names of `Backend`; what is so already is staged no more."""
        merged = {**self._backends.get(key, {}), **values}
        self._backends[key] = {
            name: value for name, value in merged.items() if value != getattr(present, name)
        }
        if not self._backends[key]:
            del self._backends[key]

    def stage_algorithm(self, present: Vip, algorithm: str) -> None:
        """Stage another algorithm; the present one is staged no more."""
        self._algorithms[present.service] = algorithm
        if algorithm == present.algorithm:
            del self._algorithms[present.service]

    def of(self, key: BackendKey) -> Mapping[str, Any]:
        """Return what is staged for a backend, by the names of `Backend`."""
        return self._backends.get(key, {})

    def wanted(self, key: BackendKey, present: Backend) -> Backend:
        """Return a backend as it would be once what is staged is written."""
        return replace(present, **self.of(key))

    def algorithm(self, vip: Service) -> str | None:
        """Return the algorithm that is staged for a VIP, None where none is."""
        return self._algorithms.get(vip)

    def changes(self, vip: Service) -> Mapping[Service, Mapping[str, Any]]:
        """Return what is staged for the backends of a VIP."""
        return {
            key.backend: dict(values) for key, values in self._backends.items() if key.vip == vip
        }

    def touches(self, vip: Service) -> bool:
        """Whether anything is staged for a VIP or its backends."""
        return vip in self._algorithms or any(key.vip == vip for key in self._backends)

    def described(self, vip: Service) -> str:
        """Say in words what is staged for a VIP and its backends."""
        parts = [f"by {self._algorithms[vip]}"] if vip in self._algorithms else []
        for backend, values in self.changes(vip).items():
            said = ", ".join(f"{name} {value}" for name, value in values.items())
            parts.append(f"{backend.endpoint} {said}")
        return "; ".join(parts)

    def drop(self, vip: Service) -> None:
        """Forget all that is staged for a VIP and its backends."""
        self._algorithms.pop(vip, None)
        self._backends = {key: v for key, v in self._backends.items() if key.vip != vip}

    def drop_written(self, vip: Service, changes: Mapping[Service, Mapping[str, Any]]) -> None:
        """Forget what was written, and keep what was staged over it meanwhile."""
        for backend, values in changes.items():
            key = BackendKey(vip, backend)
            left = {n: v for n, v in self.of(key).items() if values.get(n) != v}
            self._backends.pop(key, None)
            if left:
                self._backends[key] = left

    def drop_algorithm(self, vip: Service, algorithm: str) -> None:
        """Forget an algorithm that was written, if no other is staged meanwhile."""
        if self._algorithms.get(vip) == algorithm:
            del self._algorithms[vip]

    def settle(self, snapshot: Snapshot) -> None:
        """Forget what is in force by now, and what is for a VIP or backend that is gone."""
        held = snapshot.backends
        present = {
            BackendKey(vip, wanted.service): wanted
            for vip, wanted in zip(held.vip, held.wanted, strict=True)
        }
        for key in [key for key in self._backends if key not in present]:
            del self._backends[key]
        for key in list(self._backends):
            self.stage(key, present[key])
        vips = {vip.service: vip for vip in snapshot.vips.wanted}
        for service, algorithm in list(self._algorithms.items()):
            if service not in vips:
                del self._algorithms[service]
            else:
                self.stage_algorithm(vips[service], algorithm)
