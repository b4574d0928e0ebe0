"""Each transport beside plain tcp, socat and ssh: speed, processor time, pause, acknowledgement."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colod.model import HostName
from colod.rpc import pki
from tests.bench.bed import MIB, Relay, epoch, timed, write_all
from tests.bench.links import THERE, WIRE_MTU, Far, Link, can_be_laid, far_host, has_netem, laid
from tests.bench.rivals import CIPHER, Rival, socat_to
from tests.bench.table import Figure, Row, Section
from tests.ssh_server import HOST, SshServer

KINDS: Final = ("tcp", "tls", "grpc", "ssh", "unix")
LINKS: Final = (
    Link(),
    Link(1),
    Link(10),
    Link(1, 0.1),
    Link(1, 5),
    Link(1, 20),
    Link(10, 1),
    Link(1, 1, 0.001),
    Link(1, 20, 0.01),
)
_RIVALS: Final = ("tcp", "socat", "ssh, bare")
_EPOCHS: Final = 3
_BYTES: Final = 32 * MIB
_LOSSY_BYTES: Final = 2 * MIB
"""Of an epoch where packets are lost: a connection then has a few MB/s."""
_SMALL_BYTES: Final = 64 << 10
_SMALL_EPOCHS: Final = 15


@dataclass(frozen=True, slots=True)
class Ran:
    """One transfer.

    Attributes:
        speed: MB/s.
        cpu_s: Processor seconds per GB, of all processes on both sides.
        pause_ms: For how long the writer of a checkpoint is blocked, and with it the guest.
        ack_ms: Median time from a small checkpoint's first byte to its acknowledgement; 0 for none.
    """

    speed: float
    cpu_s: float
    pause_ms: float
    ack_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """What all ways share."""

    far: Far
    pki: Path
    sshd: SshServer
    sockets: Path

    def options(self, kind: str) -> dict[str, Any]:
        """Return the changes of a specification for one kind of transport."""
        options = {
            "unix": {"directory": str(self.sockets)},
            "ssh": {"host": HOST, "config": str(self.sshd.config)},
        }.get(kind, {"listen": THERE})
        return {"transport": {"kind": kind, "options": options}, "pki": self.pki}


def measure(rounds: int) -> Section:
    """Run all rounds on each link, each of them all ways in turn."""
    rows: list[Row] = []
    with far_host() as far:
        for link in LINKS:
            if can_be_laid(link):
                rows += _rows(link, _measured(far, link, rounds))
    left_out = ", ".join(link.name for link in LINKS if not can_be_laid(link))
    return Section(
        "Transports",
        f"{_EPOCHS} epochs from libxl's pipe to xl's, of {_BYTES // MIB} MiB each "
        f"({_LOSSY_BYTES // MIB} MiB where packets are lost), between two network namespaces; "
        "delay and loss are each way's. *Pause*: how long one of those epochs needs to get out of "
        "libxl's hands, its guest suspended, once the memory for it is there; of socat and ssh the "
        "last one written. *Acknowledged*: median time from the first byte of a "
        f"checkpoint of {_SMALL_BYTES >> 10} KiB to its acknowledgement. socat and ssh ({CIPHER}, "
        "as the kind ssh has here) carry the same bytes and check nothing. Processor time is of "
        f"all processes on both sides, of the bare ssh of its client alone. {_means(left_out)}",
        rows,
    )


def _means(left_out: str) -> str:
    if has_netem():
        return "Links are the kernel's veth, netem and token bucket."
    return (
        "This kernel has no netem: links without delay are veth and the token bucket; the others a "
        f"process that holds packets of at most {WIRE_MTU} bytes (`tests/bench/wire.py`), whose "
        f"own work is in the time of all ways alike. Left out, as too fast for it: {left_out}."
    )


def _measured(far: Far, link: Link, rounds: int) -> dict[str, list[Ran]]:
    data = epoch(_LOSSY_BYTES if link.loss else _BYTES)
    small = epoch(_SMALL_BYTES)
    found: dict[str, list[Ran]] = defaultdict(list)
    with laid(far, link), _site(far) as site:
        ways: dict[str, Callable[[], Ran]] = {
            kind: lambda kind=kind: _ours(site, kind, data, small)  # type: ignore[misc]
            for kind in KINDS
            if kind != "unix" or link == Link()
        }
        ways["socat"] = lambda: _theirs(socat_to(THERE, far.prefix), data)
        ways["ssh, bare"] = lambda: _theirs(_ssh(site), data)
        for number in range(rounds):
            names = list(ways)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:  # nobody is always first
                found[name].append(ways[name]())
    return found


@contextmanager
def _site(far: Far) -> Iterator[Site]:
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="colod-bench-")))
        pki.create_authority(base / "pki")
        for host in ("alpha", "beta"):
            pki.issue_certificate(base / "pki", HostName(host))
        for folder in ("ssh", "sockets"):
            (base / folder).mkdir(mode=0o700)
        sshd = SshServer(base / "ssh", THERE, far.prefix)
        sshd.config = sshd.client_config("ssh_config", f"Ciphers {CIPHER}\nLogLevel ERROR\n")
        stack.enter_context(sshd.running())
        yield Site(far, base / "pki", sshd, base / "sockets")


def _ours(site: Site, kind: str, data: bytes, small: bytes) -> Ran:
    assert site.sshd.process is not None
    others = (site.sshd.process.pid,) if kind == "ssh" else ()
    with Relay(far=site.far.prefix, **site.options(kind)) as relay:
        before, began = relay.tree_cpu_s(*others), timed()
        for _ in range(_EPOCHS):
            relay.write(data)
        relay.await_ack()
        took_s = timed() - began
        spent_s = relay.tree_cpu_s(*others) - before
        pause_ms = _blocked_ms(relay, data)
        relay.await_ack()
        acks_ms = [_ack_ms(relay, small) for _ in range(_SMALL_EPOCHS)]
    sent = _EPOCHS * len(data)
    return Ran(sent / took_s / 1e6, spent_s / (sent / 1e9), pause_ms, statistics.median(acks_ms))


def _blocked_ms(relay: Relay, data: bytes) -> float:
    began = timed()
    relay.write(data)
    return 1000 * (timed() - began)


def _ack_ms(relay: Relay, small: bytes) -> float:
    began = timed()
    relay.write(small)
    relay.await_ack()
    return 1000 * (timed() - began)


def _theirs(rival: Rival, data: bytes) -> Ran:
    began = timed()
    for _ in range(_EPOCHS):
        piece_began = timed()
        write_all(rival.input, data)
        pause_ms = 1000 * (timed() - piece_began)
    spent_s = rival.finish()
    sent = _EPOCHS * len(data)
    return Ran(sent / (timed() - began) / 1e6, spent_s / (sent / 1e9), pause_ms)


def _ssh(site: Site) -> Rival:
    """Return a bare connection of ssh that stands; of its processor time the client's counts."""
    command = ["ssh", "-F", str(site.sshd.config), HOST, "echo; exec cat >/dev/null"]
    read, write = os.pipe()
    process = subprocess.Popen(command, stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    assert process.stdout is not None
    with process.stdout as said:  # sessions too have connected before they are measured
        assert said.readline(), "ssh does not connect"
    return Rival(write, [process])


def _rows(link: Link, found: dict[str, list[Ran]]) -> list[Row]:
    rows: list[Row] = []
    for kind in (each for each in KINDS if each in found):
        what = f"{kind}, {link.name}"
        rivals = [rival for rival in _RIVALS if rival != kind]
        rows += [_row(what, "MB/s", found, kind, each, lambda ran: ran.speed) for each in rivals]
        if link.is_plain and not link.gbit:
            rows += [
                _row(f"{what}: processor", "s/GB", found, kind, rival, lambda ran: ran.cpu_s)
                for rival in rivals
            ]
        rows += [
            _row(f"{what}: pause", "ms", found, kind, rival, lambda ran: ran.pause_ms)
            for rival in rivals
        ]
        ack = Figure([ran.ack_ms for ran in found[kind]], "ms")
        plain = Figure([ran.ack_ms for ran in found["tcp"]], "ms")
        rival = (None, "") if kind == "tcp" else (plain, "tcp")
        rows.append(Row(f"{what}: acknowledged", ack, *rival))
    return rows


def _row(
    what: str,
    unit: str,
    found: dict[str, list[Ran]],
    kind: str,
    rival: str,
    value: Callable[[Ran], float],
) -> Row:
    ours = Figure([value(ran) for ran in found[kind]], unit)
    theirs = Figure([value(ran) for ran in found[rival]], unit)
    return Row(what, ours, theirs, rival)
