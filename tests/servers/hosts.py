"""Hosts of their own on one machine: network namespaces on a bridge, and a PostgreSQL that listens there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.child import Child
from tests.port import free_port
from tests.requirement import need_file, need_success

WITHOUT = "hosts of their own need root, network namespaces, and Debian's iproute2"
BINARIES = Path("/usr/lib/postgresql")
UNPRIVILEGED = "nobody"
"""Who runs PostgreSQL, which refuses to run as root."""

DEVICES = Path("/sys/class/net")

BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Network:
    """A bridge that hosts are plugged into."""

    number: int

    @property
    def bridge(self) -> str:
        """The device's name."""
        return f"jobify{self.number}"

    @property
    def prefix(self) -> str:
        """What its addresses begin with: a range for tests (RFC 2544), so nothing outside is ever there."""
        return f"198.18.{self.number}"


class Host:
    """A network namespace with a name of its own, plugged into the bridge.

    Args:
        network: where it is plugged in.
        number: the last part of its address.
        name: what it calls itself.
    """

    def __init__(self, network: Network, number: int, name: str) -> None:
        self.name = name
        self.address = f"{network.prefix}.{number}"
        self.namespace = f"{network.bridge}{name}"
        self._bridge = network.bridge
        self._plug = f"{network.bridge}p{number}"

    def __enter__(self) -> Host:
        need_success(["ip", "netns", "add", self.namespace], WITHOUT)
        ip("link", "add", self._plug, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self._plug, "master", self._bridge, "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")
        return self

    def __exit__(self, *error: object) -> None:
        ip("link", "del", self._plug)
        ip("netns", "del", self.namespace)

    def cut(self) -> None:
        """Pull its cable."""
        ip("link", "set", self._plug, "down")

    def mend(self) -> None:
        """Plug the cable in again."""
        ip("link", "set", self._plug, "up")

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a Django command there."""
        there = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c"]
        named = ['hostname "$0" && exec "$@"', self.name, sys.executable, "-m", "django"]
        return Child(["-c", BECOME, *there, *named, *arguments], environment)


@contextlib.contextmanager
def a_network() -> Iterator[Network]:
    """A bridge between hosts while the block runs, beside those of other test runs."""
    numbers = ((os.getpid() + step) % 256 for step in range(256))
    network = next(one for one in map(Network, numbers) if not (DEVICES / one.bridge).exists())
    need_success(["ip", "link", "add", network.bridge, "type", "bridge"], WITHOUT)
    try:
        ip("addr", "add", f"{network.prefix}.1/24", "dev", network.bridge)
        ip("link", "set", network.bridge, "up")
        yield network
    finally:
        ip("link", "del", network.bridge)


@contextlib.contextmanager
def cluster(network: Network) -> Iterator[str]:
    """A PostgreSQL on the bridge's address while the block runs; its URL."""
    address = f"{network.prefix}.1"
    found = sorted(BINARIES.glob("*/bin"), key=lambda path: int(path.parts[-2]))
    binaries = need_file(found[-1] if found else BINARIES)
    directory = Path(tempfile.mkdtemp(prefix="jobify-cluster-"))
    shutil.chown(directory, UNPRIVILEGED)
    data, port = directory / "data", free_port(address)

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(data), *arguments]
        subprocess.run(
            command, cwd=directory, user=UNPRIVILEGED, extra_groups=[], check=True, stdout=subprocess.DEVNULL
        )

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        run("initdb", "--username", "jobify", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network.prefix}.0/24 trust\n")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '{address}'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n"
            )
        run("pg_ctl", "--wait", "--log", str(directory / "log"), "start")
        stack.callback(run, "pg_ctl", "--wait", "--mode", "immediate", "stop")
        yield f"postgres://jobify@{address}:{port}/postgres"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
