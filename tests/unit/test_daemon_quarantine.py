"""What an operator may discard is decided on answers that were asked for just then."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from colod.daemon import quarantine as module
from colod.daemon.host import Host
from colod.daemon.quarantine import Quarantine
from colod.daemon.quarantine_log import QuarantineLog
from colod.errors import NotAllowedNow, NotFound
from colod.failover.effects import Decision, State
from colod.failover.view import View
from colod.model import HostName
from colod.toolstack.port import Domain, DomainState
from colod.v1 import admin_pb2, peer_pb2
from tests.unit.test_failover_quarantine import BETA, BETAS, GUEST, LOST_UNDER, view_of

ASIDE = f"{GUEST}--quarantine-{LOST_UNDER}"
DOMID = 7
PAUSED = Domain(
    domid=DOMID,
    name=ASIDE,
    state=DomainState.PAUSED,
    paused=True,
    memory_bytes=64 << 20,
    cpu_time_s=1.0,
)


class Xen:
    """A host with some domains."""

    def __init__(self, *domains: Domain) -> None:
        self.listed = {each.name: each for each in domains}

    async def by_name(self, *, since: float) -> Mapping[str, Domain]:
        """List them."""
        return dict(self.listed)

    async def find(self, name: str) -> Domain | None:
        """Return one."""
        return self.listed.get(name)

    async def destroy(self, name: str) -> None:
        """Destroy one."""
        del self.listed[name]


class Peer:
    """The other host, which says the same whenever it is asked, or said it when asked at `at`."""

    def __init__(self, said: peer_pb2.ProtectionView | None, at: float = float("inf")) -> None:
        self.said, self.at = said, at

    def answer(self, guest: str, *, asked_after: float) -> peer_pb2.ProtectionView | None:
        """Repeat it."""
        return self.said if self.at > asked_after else None


class Service:
    """The guest's protection on this host."""

    def __init__(self, view: View) -> None:
        self.journal, self.facts = view.journal, SimpleNamespace(view=view)
        self.decision = Decision(rule="stand_by", state=State.STOPPED)
        self.guest, self.state, self.since_unix_s = GUEST, State.STOPPED, 1e9

    @asynccontextmanager
    async def undecided(self) -> AsyncIterator[None]:
        """Nothing is decided anyway."""
        yield

    async def look_now(self) -> View:
        """Give the facts."""
        view: View = self.facts.view
        return view


HAS = peer_pb2.ProtectionView(guest=GUEST, generation=BETAS.generation, has_guest=True)


async def quarantine_of(
    tmp_path: Path,
    *,
    said: peer_pb2.ProtectionView | None = HAS,
    at: float = float("inf"),
    view: View | None = None,
    domain: Domain = PAUSED,
    peer: HostName = BETA,
) -> tuple[Quarantine, Xen, QuarantineLog]:
    """Return a host on which a copy was put aside."""
    log = QuarantineLog(tmp_path, "boot")
    await log.put_aside(GUEST, DOMID, LOST_UNDER, why="beta owns it")
    xen = Xen(domain)
    parts = SimpleNamespace(
        host="alpha",
        peer=peer,
        quarantine=log,
        domains=xen,
        toolstack=xen,
        heartbeat=Peer(said, at),
    )
    services = {GUEST: Service(view or view_of(BETAS))}
    host = SimpleNamespace(parts=parts, services=services)
    return Quarantine(cast("Host", host)), xen, log


def discard(**fields: Any) -> admin_pb2.DiscardQuarantinedRequest:
    """Return the request."""
    return admin_pb2.DiscardQuarantinedRequest(domain=ASIDE, operator="ann", **fields)


async def test_a_copy_goes_once_the_owner_says_that_it_has_the_guest(tmp_path: Path) -> None:
    quarantine, xen, log = await quarantine_of(tmp_path)
    (told,) = await quarantine.listing()
    assert (told.domain, told.kind, told.refusal) == (ASIDE, "aside", "")
    foretold = await quarantine.discard(discard(dry_run=True))
    assert "64 MiB" in foretold.plan[0]
    assert ASIDE in xen.listed
    await quarantine.discard(discard())
    assert xen.listed == {}
    assert log.entry(ASIDE, DOMID) is None
    with pytest.raises(NotFound):
        await quarantine.discard(discard())


def said(**changes: Any) -> peer_pb2.ProtectionView:
    """Return what the peer says, but for some of it."""
    fields: dict[str, Any] = {
        "guest": GUEST,
        "generation": BETAS.generation,
        "has_guest": True,
    }
    return peer_pb2.ProtectionView(**fields | changes)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"said": None}, "may be the last copy"),
        ({"said": said(has_guest=False)}, "may be the last copy"),
        ({"said": said(generation=BETAS.generation - 1)}, "may be the last copy"),
        ({"peer": HostName("gamma")}, "may be the last copy"),
        ({"domain": replace(PAUSED, paused=False, state=DomainState.RUNNING)}, "let it go"),
        ({"domain": replace(PAUSED, domid=DOMID + 1)}, "nothing that this colod has put aside"),
    ],
)
async def test_anything_less_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(module, "_HEARD_S", 0.1)
    quarantine, xen, _ = await quarantine_of(tmp_path, **case)
    (told,) = await quarantine.listing()
    assert why in told.refusal
    with pytest.raises(NotAllowedNow, match=why) as refused:
        await quarantine.discard(discard(force_reason="no room"))
    assert refused.value.advice
    assert ASIDE in xen.listed


async def test_what_the_owner_said_before_the_command_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HEARD_S", 0.1)
    quarantine, xen, _ = await quarantine_of(tmp_path, at=time.monotonic())
    (told,) = await quarantine.listing()
    assert told.refusal == ""
    with pytest.raises(NotAllowedNow, match="may be the last copy"):
        await quarantine.discard(discard())
    assert ASIDE in xen.listed


async def test_only_a_reason_overrides_an_order_to_keep(tmp_path: Path) -> None:
    quarantine, xen, _ = await quarantine_of(tmp_path)
    order = admin_pb2.KeepQuarantinedRequest(domain=ASIDE, operator="bob", reason="evidence")
    kept = await quarantine.keep(order)
    assert (kept.copy.keep.operator, kept.copy.keep.reason) == ("bob", "evidence")
    with pytest.raises(NotAllowedNow, match="bob: evidence"):
        await quarantine.discard(discard())
    assert ASIDE in xen.listed
    done = await quarantine.discard(discard(force_reason="no room"))
    assert "in spite of bob" in done.plan[1]
    assert xen.listed == {}
