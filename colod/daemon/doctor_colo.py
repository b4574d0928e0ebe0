"""Say whether this host's toolstack can do COLO; whoever only uses Remus need not care."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from colod.daemon.host import Host
from colod.errors import ColodError
from colod.toolstack import colo_support
from colod.toolstack.colo_support import DeviceModel, Has, Library, Support
from colod.toolstack.command import CommandRunner
from colod.toolstack.libxl_json import table
from colod.v1 import admin_pb2

_SEE: Final = "only for COLO: see docs/colo.md, 'The toolstack'"
_SUMMARY: Final = {
    Has.YES: "this toolstack can do COLO, as far as can be seen",
    Has.NO: "this toolstack does Remus only",
    Has.UNKNOWN: "Remus works; whether this toolstack can do COLO, too, is not known",
}


def _finding(has: Has, subject: str, text: str) -> admin_pb2.Finding:
    if has is Has.YES:
        return admin_pb2.Finding(severity="ok", subject=subject, text=text)
    return admin_pb2.Finding(severity="info", subject=subject, text=text, advice=_SEE)


async def examine_colo(host: Host, guest: str) -> Sequence[admin_pb2.Finding]:
    """Return what there is for COLO: of `guest`'s QEMU, if it has one of its own.

    Args:
        host: This host.
        guest: A domain's name, or "".
    """
    try:
        facts = await host.parts.toolstack.host_facts()
    except ColodError:
        return []  # that was said already
    if facts.simulated:
        text = "simulated: libxl and QEMU are not looked at"
        return [admin_pb2.Finding(severity="ok", subject="colo", text=text)]
    commands = CommandRunner(workers=1)
    try:
        own = await _device_model(host, guest)
        return colo_findings(await colo_support.look(facts.xen_version, commands, device_model=own))
    finally:
        commands.close()


async def _device_model(host: Host, guest: str) -> str:
    """Return the QEMU that the guest's configuration names, "" if it leaves that to libxl."""
    try:
        if not guest or await host.parts.toolstack.find(guest) is None:
            return ""
        config = await host.parts.toolstack.domain_config(guest)
    except ColodError:
        return ""
    return str(table(config, "b_info").get("device_model", ""))


def colo_findings(support: Support) -> Sequence[admin_pb2.Finding]:
    """Return what is to be said of a toolstack.

    Subjects are `colo` (all of it), `colo libxl`, `colo libxl fix`, `colo qemu` and
    `colo qemu fix`; severities `ok` (it is there) and `info` (it is not, or nobody knows), so no
    exit status depends on it.
    """
    library, model = support.library, support.device_model
    found = [_library(library)]
    if library.colo is Has.YES:
        text = "not known: whether init_dsps() sets its QMP event up cannot be seen from outside"
        found.append(_finding(Has.UNKNOWN, "colo libxl fix", text))
    found.append(_model(model))
    if model.replicates is Has.YES:
        found.append(_model_fix(model))
    has_all = _all_of(library.colo, model.replicates, model.loads_state)
    return [_finding(has_all, "colo", _SUMMARY[has_all]), *found]


def _all_of(*parts: Has) -> Has:
    if Has.NO in parts:
        return Has.NO
    return Has.UNKNOWN if Has.UNKNOWN in parts else Has.YES


def _library(library: Library) -> admin_pb2.Finding:
    path = library.path or "libxenlight of the Xen that runs"
    unknown = "does not tell" if library.path else "was not found"
    text = {
        Has.YES: f"{path} was built with COLO",
        Has.NO: f"{path} was built without COLO, for want of libnl",
        Has.UNKNOWN: f"{path} {unknown}",
    }
    return _finding(library.colo, "colo libxl", text[library.colo])


def _model(model: DeviceModel) -> admin_pb2.Finding:
    path = model.path or "QEMU for HVM guests"
    missing = ", ".join((*model.missing_filters, *model.missing_commands))
    text = {
        Has.YES: f"{path} has the filters, and replicates disks",
        Has.NO: f"{path} lacks {missing}",
        Has.UNKNOWN: f"{path}: {model.problem}",
    }
    return _finding(model.replicates, "colo qemu", text[model.replicates])


def _model_fix(model: DeviceModel) -> admin_pb2.Finding:
    text = {
        Has.YES: f"{model.path} survives xen-load-devices-state",
        Has.NO: f"{model.path} aborts at xen-load-devices-state, so at a secondary's checkpoints",
        Has.UNKNOWN: f"{model.path}: whether it survives xen-load-devices-state is not known",
    }
    return _finding(model.loads_state, "colo qemu fix", text[model.loads_state])
