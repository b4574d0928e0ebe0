"""The toolstack verifies what its commands did, by what xl lists afterwards.

`FakeXl` answers with the statuses and the words of real xl 4.17.5: `pause` and `unpause` exit with
0 even when libxl failed, pauses are counted, an unknown name exits with 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from colod.errors import DomainNotFound, ToolstackError
from colod.model import GuestName
from colod.toolstack.command import Completed
from colod.toolstack.port import DomainState, ProcessRef
from colod.toolstack.xl import Limits, XlToolstack

GUEST = GuestName("guest")
HEADER = "Name                                        ID   Mem VCPUs\tState\tTime(s)"
INFO = """host                   : alpha
machine                : x86_64
hw_caps                : 0783fbff:80802001:20100800:00000001:00000004:00000000:00000000:00000000
free_memory            : 1000
xen_extra              : .5
xen_version            : 4.17.5
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32
xen_commandline        : placeholder dom0_mem=1024M,max:1024M com1=115200,8n1
"""


@dataclass
class FakeDomain:
    """A domain with Xen's counted pauses."""

    domid: int
    pauses: int = 0
    suspended: bool = False
    letters: str = "-b----"
    cpu_time_s: float = 1.0

    @property
    def state(self) -> str:
        paused = "p" if self.pauses else "-"
        ending = "ss" if self.suspended else "--"
        return f"{'--' if self.pauses or self.suspended else self.letters[:2]}{paused}{ending}-"


@dataclass
class FakeXl:
    """Takes the place of `CommandRunner`, and of xl behind it."""

    domains: dict[str, FakeDomain] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    special: dict[str, Callable[[str], tuple[int, str, str] | None]] = field(default_factory=dict)

    async def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        assert timeout_s > 0
        self.ran.append(tuple(argv))
        status, stdout, stderr = self.answer(*argv[1:])
        return Completed(tuple(argv), status, stdout, stderr)

    def answer(self, verb: str, *rest: str) -> tuple[int, str, str]:
        wanted = rest[0] if rest else ""
        if verb in self.special and (special := self.special[verb](wanted)):
            return special
        if verb == "list" and not rest:
            return 0, self.listing(), ""
        if verb == "info":
            return 0, INFO, ""
        found = self.find(wanted)
        if not found:
            return 1, "", f"{wanted} is an invalid domain identifier (rc=-6)"
        return self.change(verb, *found)

    def find(self, wanted: str) -> tuple[str, FakeDomain] | None:
        for name, domain in self.domains.items():
            if wanted == (str(domain.domid) if wanted.isdecimal() else name):
                return name, domain
        return None

    def change(self, verb: str, name: str, domain: FakeDomain) -> tuple[int, str, str]:
        if verb == "pause":
            domain.pauses += 1
        elif verb == "unpause":
            if not domain.pauses:
                text = f"domain_unpause_done: Domain {domain.domid}:Unpausing domain"
                return 0, "", f"libxl: error: libxl_domain.c:688:{text}: Invalid argument"
            domain.pauses -= 1
        elif verb == "destroy":
            del self.domains[name]
        elif verb == "resume":
            domain.suspended = False
        return 0, "", ""

    def listing(self) -> str:
        rows = (
            f"{name:<40} {each.domid:5d} {88:5d} {1:5d}     {each.state}  {each.cpu_time_s:8.1f}"
            for name, each in self.domains.items()
        )
        return "\n".join((HEADER, *rows)) + "\n"

    def verbs(self) -> list[str]:
        return [argv[1] for argv in self.ran if argv[1] != "list"]


def toolstack(xl: FakeXl, *, xl_conf: Path = Path("/nonexistent")) -> XlToolstack:
    limits = Limits(query_s=1, change_s=1, destroy_s=0.1, running_s=0.1)
    resume = ("python3", "libxl_resume")
    return XlToolstack(runner=xl, limits=limits, resume_argv=resume, xl_conf=xl_conf)
    assert port.receive_argv() == ("sim", "xl", "migrate-receive", "-r")
    assert port.pause_argv("guest--incoming") == ("sim", "xl", "pause", "guest--incoming")
    assert port.exists_argv("guest") == ("sim", "xl", "domid", "guest")
