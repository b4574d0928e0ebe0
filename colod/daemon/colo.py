"""COLO as the daemon sees it: what it is refused for, and what its sessions are told.

The rules are those of Remus: a pairing in COLO has the same records, epochs and endings. What
differs is here, and where `is_colo` is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from colod.daemon.parts import Parts
from colod.daemon.sessions import SessionHandle
from colod.errors import ToolstackError
from colod.failover.view import Journal
from colod.model import INCOMING_SUFFIX, Disks, GuestName, Mode, Protection, Role
from colod.output.kinds import Kind
from colod.session.colo.spec import INTERVAL_S
from colod.toolstack.command import CommandRunner
from colod.toolstack.port import HostFacts, Vif

DEFAULT_INTERVAL_MS: Final = 4000
COMMAND_S: Final = 20.0

_INSTEAD: Final = "protect it with --mode remus"


def is_colo(terms: Protection) -> bool:
    """Tell whether a guest is replicated in COLO."""
    return terms.mode is Mode.COLO


def has_toolstack(journal: Journal, session: SessionHandle) -> bool:
    """Tell whether xl is still there, or what it left undone is still being done.

    Stock xl crashes when it lets a copy in COLO go, and the session then does the rest: until it
    says how that ended, a copy without its name is not one that cannot run.
    """
    if session.toolstack is not None:
        return True
    is_replica = journal.role is Role.SECONDARY and is_colo(journal.protection)
    return is_replica and session.speaks_for_toolstack


async def local_refusals(
    parts: Parts,
    *,
    config: Mapping[str, Any],
    facts: HostFacts,
    vifs: Sequence[Vif],
    disks: Disks,
) -> Sequence[str]:
    """Return why this guest cannot be replicated from here in COLO, each with what to do instead.

    Args:
        parts: Of this host.
        config: The guest's configuration as xl keeps it.
        facts: Of this host.
        vifs: The guest's interfaces.
        disks: What the operator said of its disks.
    """
    refusals = list(await host_refusals(parts, facts))
    kind = config.get("c_info", {}).get("type")
    if kind != "hvm":
        refusals.append(f"libxl's COLO is for HVM guests, and this one is {kind}: {_INSTEAD}")
    if len(vifs) != 1:
        count = f"COLO compares one interface, and the guest has {len(vifs)}"
        refusals.append(f"{count}: leave it one, or {_INSTEAD}")
    if disks is not Disks.NONE or config.get("disks"):
        refusals.append(
            "in COLO both copies would write to the guest's disks, and colod does not replicate "
            f"disks: {_INSTEAD}, or give it none (--disks none)"
        )
    if facts.simulated and not config.get("simulated", {}).get("wire"):
        refusals.append(
            "the simulated guest has no wire whose frames could be compared: create it with "
            "sim_wire (docs/simulated-xen.md)"
        )
    if not parts.limits.hold_output:
        refusals.append(
            f'COLO holds output, and output.hold is "off": set it to "automatic", or {_INSTEAD}'
        )
    return refusals


async def host_refusals(parts: Parts, facts: HostFacts) -> Sequence[str]:
    """Return why this host's toolstack cannot do COLO; asked on both hosts."""
    if not facts.simulated:
        return [
            f"{parts.host}: COLO mode is for the simulated Xen so far: on real Xen it needs a "
            "libxl and a QEMU that are built for it, and was not proved there (docs/colo.md): "
            f"{_INSTEAD}"
        ]
    try:
        await _run(parts, "sim", "colo")
    except ToolstackError:
        return [
            f"{parts.host}: its libxl was built without COLO, as Debian's is (docs/colo.md): "
            f"install one that has it, or {_INSTEAD}"
        ]
    return []


def interval_refusals(interval_ms: int) -> Sequence[str]:
    """Return what is wrong with an interval for COLO."""
    low, high = (round(each * 1000) for each in INTERVAL_S)
    if low <= interval_ms <= high:
        return []
    return [
        f"interval_ms {interval_ms}: in COLO it is the longest time between two checkpoints, "
        f"{low} to {high} ms"
    ]


def gate(parts: Parts, vifs: Sequence[Vif]) -> dict[str, Any]:
    """Return the table `gate` of the journal and of the sender's specification."""
    return {
        "kind": Kind.COLO,
        "interfaces": [vif.name for vif in vifs],
        "argv": list(parts.simulated_argv),
    }


def sender_argv(parts: Parts, guest: GuestName, command: str) -> Sequence[str]:
    """Return the command that replicates `guest` in COLO through the shell command `command`."""
    return (*parts.simulated_argv, "remus", "-c", "-p", "-s", "", guest, command)


def receiver_argv(parts: Parts) -> Sequence[str]:
    """Return the command that receives a guest in COLO on its standard input."""
    return (*parts.simulated_argv, "migrate-receive", "--colo", "--userspace-colo-proxy")


def sender_spec(parts: Parts, terms: Protection) -> dict[str, Any]:
    """Return what a sender's specification has in COLO besides, and instead of, that of Remus."""
    return _without_deltas() | {"colo": _colo(parts) | {"interval_max_s": terms.interval_ms / 1000}}


def receiver_spec(parts: Parts, guest: GuestName) -> dict[str, Any]:
    """Return what a receiver's specification has in COLO besides, and instead of, that of Remus."""
    rename = [*parts.simulated_argv, "rename", guest + INCOMING_SUFFIX, guest]
    return _without_deltas() | {
        "receive_argv": list(receiver_argv(parts)),
        # An image of the last checkpoint would not be what the copy is by now.
        "image": None,
        "colo": _colo(parts) | {"rename_argv": rename},
    }


async def unlock(parts: Parts, guest: GuestName) -> None:
    """Take the locks of a promoted copy away; only where this host owns the guest, and repeatable.

    Raises:
        ToolstackError: If they may still be there: the copy would be mute.
    """
    await _run(parts, "sim", "colo", guest, "unlock")


def _colo(parts: Parts) -> dict[str, Any]:
    return {"filters_argv": [*parts.simulated_argv, "sim", "colo"]}


def _without_deltas() -> dict[str, Any]:
    # A checkpoint's first record must not wait in an encoder for more: the secondary answers it.
    return {"deltas": {"codec": "off"}}


async def _run(parts: Parts, *arguments: str) -> None:
    runner = CommandRunner(workers=1, env=parts.session_env)
    try:
        argv = (*parts.simulated_argv, *arguments)
        (await runner.run(argv, timeout_s=COMMAND_S)).checked()
    finally:
        runner.close()
