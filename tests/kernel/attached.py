# SPDX-License-Identifier: Apache-2.0
"""A host that the program is tried on: every verb in its network namespace, and what is left.

Nothing here looks at, or touches, an instance of another network namespace.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpftop import cli
from ebpftop.kernel import bpffs
from ebpftop.kernel.instance import Instance, find
from ebpftop.kernel.loading import SYSTEM_PYTHON
from ebpftop.kernel.netlink.links import netlink
from ebpftop.lab import Host, joined
from tests.kernel.terminal import Terminal

EBPFTOP = (sys.executable, "-m", "ebpftop")
CHILD_TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[2]


def _into_the_checkout() -> tuple[str, ...]:
    """Return what must precede a user's command where only root may enter the checkout."""
    folders = (*reversed(ROOT.parents), ROOT)
    closed = next((path for path in folders if not path.stat().st_mode & 0o001), None)
    if closed is None:
        return ()
    parts = [ROOT / ".venv", ROOT / "ebpftop"]
    lines = [
        "set -e",
        f"mount --bind '{ROOT}' /mnt",
        f"mount -t tmpfs -o mode=0755 none '{closed}'",
        *(f"mkdir -p '{part}' && mount --bind '/mnt/{part.name}' '{part}'" for part in parts),
        'cd / && exec "$@"',
    ]
    return ("unshare", "--mount", "sh", "-c", "\n".join(lines), "sh")


AS_USER = (*_into_the_checkout(), "setpriv")
"""In front of the options of setpriv: run a command as another user."""
NOBODY = (*AS_USER, "--reuid", "65534", "--regid", "65534", "--clear-groups")
"""In front of a command: run it as somebody who is in no group."""
READ_ONLY_BPFFS = f"mount -o remount,bind,ro {bpffs.BPFFS}"
"""For `Site.with_mounts`; without `bind` it would hold for everybody."""


def hidden(folder: str) -> str:
    """Return a line of shell, for `Site.with_mounts`, that hides what a folder holds."""
    return f"mount -t tmpfs none {folder}"


def bcc_folder() -> str:
    """Return the folder of the system's Python packages that bcc is in."""
    program = "import bcc, pathlib; print(pathlib.Path(bcc.__file__).parents[1])"
    return subprocess.check_output([SYSTEM_PYTHON, "-c", program], text=True).strip()


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        assert self.status == 0, self
        return json.loads(self.out)

    def refused(self, status: int, *words: str) -> None:
        """Expect this exit status, and one line of complaint that has all of `words`."""
        assert self.status == status, self
        assert self.err.startswith("ebpftop: "), self
        assert len(self.err.splitlines()) == 1, self
        for word in words:
            assert word in self.err, self


class Site:
    """A host, and the program on it; at the end, nothing of the program is left there.

    Args:
        host: In whose network namespace everything runs.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.prefix = f"{host.netns_path.stat().st_ino}-"
        self._terminals: list[Terminal] = []

    def ebpftop(self, *arguments: str) -> Result:
        """Run one command line in this process."""
        out, err = io.StringIO(), io.StringIO()
        with (
            joined(self.host),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = cli.run(list(arguments))
        return Result(status, out.getvalue(), err.getvalue())

    def done(self, *arguments: str) -> str:
        """Run one command line in this process that must succeed; returns its output."""
        result = self.ebpftop(*arguments)
        assert result.status == 0, result
        return result.out

    def status(self, interface: str = "eth0") -> Any:
        """Return what `status --json` prints."""
        return self.ebpftop("status", interface, "--json").json

    def child(self, *argv: str) -> Result:
        """Run another program, with the namespace as its network."""
        done = self.host.run(argv, check=False, timeout_s=CHILD_TIMEOUT_S)
        return Result(done.returncode, done.stdout, done.stderr)

    def with_mounts(self, preparation: str, *arguments: str) -> Result:
        """Run one command line where mounts are its own, after a line of shell changed them."""
        script = f'set -e\n{preparation}\nexec "$@"'
        return self.child("unshare", "--mount", "sh", "-c", script, "sh", *EBPFTOP, *arguments)

    def dashboard(self, *arguments: str, through: Sequence[str] = ()) -> Terminal:
        """Open the program on a terminal; `through` are commands in front of it."""
        argv = ["nsenter", f"--net={self.host.netns_path}", *through, *EBPFTOP, *arguments]
        terminal = Terminal(argv)
        self._terminals.append(terminal)
        return terminal

    @contextmanager
    def instance(self, interface: str = "eth0") -> Iterator[Instance]:
        """Open what is attached, for writing."""
        with joined(self.host):
            instance = find(interface, read_only=False)
        try:
            yield instance
        finally:
            instance.close()

    def program_on(self, interface: str = "eth0") -> int:
        """Return the number of the XDP program on an interface, 0 for none."""
        with joined(self.host), netlink() as socket:
            return socket.link(interface).xdp_program

    def add_interface(self, name: str) -> None:
        """Add a veth pair, `name` and its other end, both here."""
        self.host.ip(
            f"link add {name} type veth peer name {name}-peer",
            f"link set {name}-peer up",
            f"link set {name} up",
        )

    def left(self) -> list[str]:
        """Return the folders and files of all instances of this namespace."""
        paths = [*bpffs.BPFFS.iterdir(), *bpffs.RUN.iterdir()]
        return sorted(path.name for path in paths if path.name.startswith(self.prefix))

    def is_clean(self, *interfaces: str) -> bool:
        """Whether there is nothing of ours: no program on `interfaces`, no pin, no lock."""
        return not self.left() and not any(map(self.program_on, interfaces or ("eth0",)))

    def close(self) -> None:
        """End the dashboards, and take away what is left."""
        for terminal in self._terminals:
            terminal.close()
        for name in {name.partition(".")[0] for name in self.left()}:
            with bpffs.locked(name):
                shutil.rmtree(bpffs.BPFFS / name, ignore_errors=True)
                for duty in bpffs.DUTIES:
                    (bpffs.RUN / f"{name}.{duty}").unlink(missing_ok=True)


@contextmanager
def trying(host: Host) -> Iterator[Site]:
    """Try the program on `host`."""
    opened = Site(host)
    try:
        yield opened
    finally:
        opened.close()


def run_tool(*argv: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done
