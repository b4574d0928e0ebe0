"""What a drill would do, and whether it may: decided before anything is touched."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colod.daemon.checkpoints import Checkpoints
from colod.daemon.image_disk import on_image_disk
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.errors import PreflightRefused, SessionError
from colod.model import DRILL_SUFFIX
from colod.session.keeping import CONFIG_FILE
from colod.toolstack import isolation
from colod.v1 import admin_pb2

DISKS: Final = "disks"
"""In `checkpoints.directory`: what drills may use in the place of a guest's disks."""

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is going to be done.

    Attributes:
        domain: Name of the drill's domain.
        uuid: Its UUID, which no other domain has.
        config: Its configuration, cut off.
        image: Where the image is written; it is removed again.
        config_file: Where its configuration is, for as long.
        epoch: The newest epoch now; a newer one may be taken.
        lines: For people.
    """

    domain: str
    uuid: str
    config: Mapping[str, Any]
    image: Path
    config_file: Path
    epoch: int
    lines: Sequence[str]


async def make_plan(
    parts: Parts,
    checkpoints: Checkpoints,
    service: ProtectionService,
    request: admin_pb2.DrillRequest,
) -> Plan:
    """Return the plan of a drill.

    Raises:
        NotAllowedNow: If there is no replica here of which an image is kept.
        PreflightRefused: With every reason why the drill may not be.
        ToolstackError: If xl does not answer.
    """
    image = await checkpoints.check(service)
    config = await asyncio.to_thread(_config_of, service)
    directory = checkpoints.directory()
    targets, reasons = await on_image_disk(_targets, request, directory / DISKS)
    domain = service.guest + DRILL_SUFFIX
    facts = await parts.toolstack.host_facts()
    reasons += await asyncio.to_thread(
        isolation.refusals, config, bridge=request.bridge, targets=targets
    )
    if request.bridge and not facts.simulated:
        reasons += await asyncio.to_thread(isolation.bridge_refusals, request.bridge)
    if await parts.toolstack.find(domain) is not None:
        reasons.append(f"A domain {domain} is there already; once you need it no more: xl destroy.")
    wanted = isolation.wanted_bytes(config)
    if facts.free_memory_bytes < wanted:
        reasons.append(
            f"This host has {facts.free_memory_bytes // _MIB} MiB free for domains; the drill "
            f"needs {-(-wanted // _MIB)} MiB beside the replica."
        )
    if reasons:
        raise PreflightRefused(reasons)
    own = str(uuid.uuid4())
    copy = isolation.cut_off(config, name=domain, uuid=own, bridge=request.bridge, targets=targets)
    return Plan(
        domain=domain,
        uuid=own,
        config=copy,
        image=directory / f".drill-{service.guest}.xlsave",
        config_file=directory / f".drill-{service.guest}.json",
        epoch=image.epoch,
        lines=_lines(service, request, domain, image.epoch, image.image_bytes, wanted, directory),
    )


def _targets(request: admin_pb2.DrillRequest, directory: Path) -> tuple[dict[str, str], list[str]]:
    """Return what replaces each disk, links followed, and why it may not.

    Only root can put something into that directory, and who may use the socket need not be root:
    it could else have a guest write to any disk of this host.
    """
    targets, reasons = {}, []
    for each in request.disks:
        path = Path(each.target)
        if path.parent != directory or path.name in ("", "..") or not path.exists():
            reasons.append(
                f"--disk-override {each.vdev}: {each.target} is not in {directory}, where root "
                "puts the copies of disks that drills may write to, or links to them."
            )
            continue
        targets[each.vdev] = str(path.resolve())
    return targets, reasons


def _config_of(service: ProtectionService) -> Mapping[str, Any]:
    assert service.session is not None
    path = service.session.directory / CONFIG_FILE
    try:
        config = json.loads(path.read_bytes())
        _ = config["c_info"]["name"], config["b_info"]["max_memkb"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SessionError(f"{path}: {error!r}") from error
    assert isinstance(config, dict)
    return config


def _lines(
    service: ProtectionService,
    request: admin_pb2.DrillRequest,
    domain: str,
    epoch: int,
    image_bytes: int,
    wanted_bytes: int,
    directory: Path,
) -> Sequence[str]:
    network = f"its interfaces on the bridge {request.bridge}" if request.bridge else "no network"
    disks = [f"disk {each.vdev} replaced by {each.target}" for each in request.disks]
    devices = ", ".join([network, *(disks or ["no disks"])])
    check = f"run here, as you: {request.check}" if request.check else "check nothing"
    after = (
        f"leave {domain} running; end it with: xl destroy {domain}"
        if request.keep
        else f"destroy {domain}"
    )
    return [
        f"write epoch {epoch} of {service.guest}, or a newer one, to {directory}: about "
        f"{-(-image_bytes // _MIB)} MiB; replication goes on meanwhile",
        f"restore it here as {domain}, with {devices}: {-(-wanted_bytes // _MIB)} MiB of memory",
        f"verify that it is cut off, and only then let it run; {check}",
        f"{after}; remove the image, and record what was seen",
    ]
