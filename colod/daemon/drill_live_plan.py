"""What a live drill would do, and whether it may begin; nothing is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from colod.daemon.drill_health import check_healthy, check_healthy_there
from colod.daemon.handover_plan import check_fence
from colod.daemon.host import Host
from colod.daemon.peer_calls import PEER_CALLS
from colod.daemon.protection import ProtectionService
from colod.errors import NotAllowedNow
from colod.failover.effects import State
from colod.failover.view import needs_fencing
from colod.v1 import admin_pb2, peer_pb2

_ASKED_S = 10.0


async def check_may_begin(
    host: Host, service: ProtectionService, request: admin_pb2.DrillLiveRequest
) -> None:
    """Check that the guest may be failed over for a drill.

    Raises:
        NotAllowedNow: If not all is well, this is the wrong host, or a host would be fenced that
            nobody has agreed to.
        PeerError: If the other host does not know how to give a guest back, and is to.
        ToolstackError: If xl does not answer.
    """
    stays, peer = f"{service.guest} stays where it is", service.journal.peer
    if request.as_if_host_died:
        service.check_failover("")
        if service.state is State.REPLICATING:
            raise NotAllowedNow(
                service.state,
                f"output of {service.guest} is not held: what clients have seen since the newest "
                "epoch would be taken back",
                advice=f"without --as-if-host-died, on {peer}, once it is PROTECTED",
            )
        await check_healthy_there(host, service, stays=stays)
        instead = f"without --as-if-host-died, on {peer}"
        check_fence(host, service, instead=instead, may_fence=request.fence)
    else:
        service.check_switchover()
        await check_healthy(host, service, stays=stays)
    if host.parts.heartbeat.peer_paused:
        raise NotAllowedNow(
            service.state,
            f"{stays}: automation is paused on {peer}",
            advice="colodctl unpause",
        )
    if request.failback and not request.as_if_host_died:
        asked = peer_pb2.GiveBackRequest(guest=service.guest, dry_run=True)
        await PEER_CALLS.run(host.parts.peer_client.give_back, asked, timeout_s=_ASKED_S)


def plan_of(
    host: Host, service: ProtectionService, request: admin_pb2.DrillLiveRequest
) -> Sequence[str]:
    """Return what a drill would do, for people."""
    return list(_plan(host, service, request))


def _plan(
    host: Host, service: ProtectionService, request: admin_pb2.DrillLiveRequest
) -> Iterator[str]:
    guest, here, peer = service.guest, host.parts.host, service.journal.peer
    owner, former = (here, peer) if request.as_if_host_died else (peer, here)
    yield from _probing(guest, request)
    if request.as_if_host_died:
        yield from _taking(service, request)
    else:
        yield from _giving(service)
    yield (
        f"have {guest} replicated back, from {owner} to {former}: all its memory goes over the "
        f"link. Until it is PROTECTED again, the death of {owner} loses it"
    )
    if request.failback:
        yield (
            f"then give it back: {owner} stops it at a checkpoint and gives {former} the "
            f"ownership, {former} runs it on, and it is replicated to {owner} again"
        )
    else:
        yield f"leave it on {owner}; there, colodctl failback {guest} brings it back"
    yield "record how long each took; a step that fails ends the drill where it is"


def _probing(guest: str, request: admin_pb2.DrillLiveRequest) -> Iterator[str]:
    if request.probe:
        yield (
            f"have colodctl run `{request.probe}` again and again: nothing is begun before "
            f"{guest} answers, and it has to answer after each step"
        )
    else:
        yield f"no --probe: nothing says whether {guest} answers, so the drill cannot pass"


def _giving(service: ProtectionService) -> Iterator[str]:
    guest, here, peer = service.guest, service.journal.host, service.journal.peer
    view = service.facts.view
    is_kept = view is not None and view.keep_quarantined
    yield (
        f"stop {guest} at a checkpoint here, give {peer} the ownership at the witness once it has "
        f"it all, and let it run {guest}; nothing of it is lost"
    )
    yield f"should that fail before the handover, {guest} runs on here, and the drill has failed"
    gone = "put aside" if is_kept else "destroyed"
    yield f"once {peer} runs its copy, the one on {here} is {gone}"


def _taking(service: ProtectionService, request: admin_pb2.DrillLiveRequest) -> Iterator[str]:
    guest, peer = service.guest, service.journal.peer
    view = service.facts.view
    epoch = view.acked_epoch if view is not None else 0
    yield (
        f"take the ownership of {guest} from {peer} at the witness, without asking {peer}, and run "
        f"the replica here from epoch {epoch} or a newer one, the newest acknowledged"
    )
    yield (
        f"what {guest} has done since that epoch is rolled back: its disks and its clients have to "
        "bear that, as they would have to bear a dead host"
    )
    if request.fence and needs_fencing(service.journal.protection.disks):
        yield f"before the replica runs, fence {peer}: it is switched off, with all its guests"
    yield (
        f"{peer} stops its copy as soon as it learns of it, and destroys it or puts it aside, by "
        "its policy.quarantine"
    )
