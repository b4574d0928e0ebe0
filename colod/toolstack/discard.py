"""End the processes of a restore or a save so that none of them acts on its domain any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from colod.errors import ToolstackError
from colod.toolstack import process
from colod.toolstack.port import ProcessRef
from colod.toolstack.process import Process, SaveHelper

KILL_LIMIT_S = 20.0
"""Most seconds from SIGKILL to the end of a process; it may be in the middle of a hypercall."""

SIMULATION_VARIABLE = "COLOD_SIMXEN_DIR"
"""Set, it names the simulated host; simulated hosts share one table of processes."""

_RECEIVING = "migrate-receive"
_RESTORING = "restore"
_SAVING = frozenset({"remus", "migrate", "save"})


async def end_restore(
    receiver: ProcessRef | None, domid: int | None, simulated_host: str | None
) -> tuple[ProcessRef, ...]:
    """SIGKILL `xl migrate-receive`, and only after its end its save helper; verify both ends.

    The helper is looked for before xl dies, while it still is xl's child, and by its domain's
    number, in case xl died long ago.

    Args:
        receiver: xl's process, or None when unknown: it is then found as the helper's parent.
        domid: The incoming domain, if there is one.
        simulated_host: Which simulated host's processes to look at; None means real Xen's.

    Returns:
        What was killed, in that order.

    Raises:
        ToolstackError: If one of them does not end.
    """
    everything, all_helpers = await asyncio.to_thread(_scan, simulated_host)
    helpers = [
        helper
        for helper in all_helpers
        if helper.restores
        and (helper.domid == domid or (receiver and helper.process.parent_pid == receiver.pid))
    ]
    parents = [parent.ref for parent in _parents(helpers, everything) if _RECEIVING in parent.argv]
    first = dict.fromkeys([*([receiver] if receiver else []), *parents])
    killed = await _end(tuple(first))
    return killed + await _end([helper.process.ref for helper in helpers])


async def end_restore_of(image: Path, simulated_host: str | None) -> tuple[ProcessRef, ...]:
    """SIGKILL each `xl restore` of the file `image`, and then its save helper; verify their ends.

    Raises:
        ToolstackError: If one of them does not end.
    """
    everything, all_helpers = await asyncio.to_thread(_scan, simulated_host)
    restoring = {
        each.ref.pid: each.ref
        for each in everything
        if _RESTORING in each.argv and str(image) in each.argv
    }
    helpers = [each.process for each in all_helpers if each.process.parent_pid in restoring]
    killed = await _end(tuple(restoring.values()))
    return killed + await _end([helper.ref for helper in helpers])


async def end_stray_savers(domid: int, simulated_host: str | None) -> tuple[ProcessRef, ...]:
    """SIGKILL save helpers of the domain whose xl is gone.

    Raises:
        ToolstackError: If an xl still saves the domain: resuming it behind that xl's back would
            let it run while its image is being written.
    """
    everything, all_helpers = await asyncio.to_thread(_scan, simulated_host)
    helpers = [helper for helper in all_helpers if not helper.restores and helper.domid == domid]
    for parent in _parents(helpers, everything):
        if _SAVING.intersection(parent.argv):
            raise ToolstackError(parent.argv, 0, f"process {parent.ref.pid} still saves {domid}")
    return await _end([helper.process.ref for helper in helpers])


def _scan(simulated_host: str | None) -> tuple[Sequence[Process], Sequence[SaveHelper]]:
    """Return all processes, and those of them that are this host's save helpers."""
    everything = process.processes()
    helpers = [
        helper
        for helper in process.save_helpers(everything)
        if process.environment_value(helper.process.ref.pid, SIMULATION_VARIABLE) == simulated_host
    ]
    return everything, helpers


def _parents(helpers: Sequence[SaveHelper], everything: Sequence[Process]) -> Sequence[Process]:
    numbers = {helper.process.parent_pid for helper in helpers}
    return [each for each in everything if each.ref.pid in numbers]


async def _end(refs: Sequence[ProcessRef]) -> tuple[ProcessRef, ...]:
    killed = tuple([ref for ref in refs if await asyncio.to_thread(process.kill, ref)])
    for ref in refs:
        if not await process.wait_gone(ref, KILL_LIMIT_S):
            argv = ("kill", "-SIGKILL", str(ref.pid))
            raise ToolstackError(argv, None, f"process {ref.pid} does not end")
    return killed
