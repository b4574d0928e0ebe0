"""What a failover and a switchover would do, said before they are done."""

from __future__ import annotations

from collections.abc import Iterator

from colod.daemon.colo import is_colo
from colod.daemon.host import Host
from colod.daemon.protection import ProtectionService
from colod.errors import NotAllowedNow
from colod.failover.view import Contact, needs_fencing
from colod.model import Role


def check_fence(host: Host, service: ProtectionService, *, instead: str, may_fence: bool) -> None:
    """Check that a takeover from a host that lives does not switch it off unasked.

    Args:
        host: This host.
        service: The protection.
        instead: How the guest comes here without that.
        may_fence: Whether that was asked for.

    Raises:
        NotAllowedNow: If it would, or would wait for a proof that cannot be had.
    """
    peer = service.journal.peer
    if not needs_fencing(service.journal.protection.disks):
        return
    if not host.parts.has_fencing:
        raise NotAllowedNow(
            service.state,
            f"the disks of {service.guest} are shared, and nothing here can prove that {peer} is "
            "off: the takeover would wait for a person",
            advice=f"{instead}: nobody is fenced then",
        )
    if not may_fence:
        raise NotAllowedNow(
            service.state,
            f"the disks of {service.guest} are shared: {peer} would be fenced, with all its guests",
            advice=f"if that is wanted: --fence; {instead}, nobody is fenced",
        )


def check_failover(host: Host, service: ProtectionService, *, may_fence: bool) -> None:
    """Check that a failover does not switch a host off that answers, unless that was asked for.

    A host that is silent is fenced unasked: that is what a failover is for.

    Raises:
        NotAllowedNow: If it would.
    """
    view = service.facts.view
    if view is not None and view.contact is Contact.UP and not may_fence:
        instead = f"{service.journal.peer} answers, so by colodctl switchover there"
        check_fence(host, service, instead=instead, may_fence=False)


def failover_plan(host: Host, service: ProtectionService, force_reason: str) -> list[str]:
    """Return what a failover to this host does, and what it loses.

    Raises:
        NotAllowedNow: If the record does not let this host take over, and no reason overrides that.
    """
    view, journal = service.facts.view, service.journal
    assert view is not None
    if journal.role is Role.PRIMARY:
        return [
            f"take ownership of {service.guest} back from {journal.peer} at the witness",
            *_fencing(host, service),
            f"run the copy here, which was stopped when {journal.peer} became the owner",
            f"should {journal.peer} have run its own, what the guest did there is lost",
        ]
    if not view.is_replica_promised and not force_reason:
        raise NotAllowedNow(
            service.state,
            f"the record does not let {journal.host} take {service.guest} over",
            advice=f"wait until it is REPLICATING, or, only if {journal.peer} is off for good: "
            "--force-reason",
        )
    if is_colo(journal.protection):
        return [
            f"take ownership of {service.guest} from {journal.peer} at the witness",
            *_fencing(host, service),
            "let the copy here go on from where it is, heard by the network from then on",
            f"{journal.peer} stops its copy as soon as it learns of it; what clients were told "
            "there, the copy here has said, too",
        ]
    return [
        f"take ownership of {service.guest} from {journal.peer} at the witness",
        *_fencing(host, service),
        f"promote the replica here from epoch {view.acked_epoch}, the newest acknowledged one",
        f"{journal.peer} stops its copy as soon as it learns of it; what the guest did there "
        "since that epoch is lost",
    ]


def _fencing(host: Host, service: ProtectionService) -> Iterator[str]:
    peer = service.journal.peer
    if not needs_fencing(service.journal.protection.disks):
        return
    if host.parts.has_fencing:
        yield f"switch {peer} off, with all its guests, unless it is proved to be off"
    else:
        yield f"wait for a person's colodctl fence-confirm that {peer} is off"


def switchover_plan(service: ProtectionService) -> list[str]:
    """Return what a switchover to the other host does."""
    journal = service.journal
    return [
        f"stop {service.guest} at a checkpoint here, and wait until {journal.peer} has it",
        f"give {journal.peer} the ownership at the witness, and let it run {service.guest}",
        f"if that cannot be done, {service.guest} runs on here; nothing of it is lost either way",
        f"destroy the copy here once {journal.peer} runs its own, then replicate back from there",
    ]
