"""`colod-simxl sim colo …`: what QMP and the kernel's plugs do for a guest in COLO on real Xen."""

import json
from collections.abc import Callable
from typing import Any

from colod.simxen import control
from colod.simxen.colo import xl
from colod.simxen.colo.nic import Filters
from colod.simxen.control import DomainGone
from colod.simxen.host import Host
from colod.simxen.selection import find_domain
from colod.simxen.speech import fail

USAGE = "Usage: sim colo [NAME show|compare SOCKET|pass|lock|unlock|diverge]"


def colo(host: Host, arguments: list[str]) -> int:
    """Run one; without arguments, tell by the status whether libxl has COLO."""
    if not arguments:
        return 0 if xl.is_supported(host) else 1
    action = _ACTIONS.get(arguments[1]) if len(arguments) > 1 else None
    if action is None:
        fail(USAGE, 2)
    domid = find_domain(host, arguments[0])
    try:
        action(host, domid, arguments[2:])
        print(json.dumps(xl.describe(host, domid)))
    except DomainGone:
        fail(f"no such domain: {arguments[0]}")
    return 0


def _compare(host: Host, domid: int, arguments: list[str]) -> None:
    """Have the guest's frames compared by the proxy that listens for libxl at a socket."""
    if not arguments:
        fail(USAGE, 2)
    path = host.root / "domains" / str(domid) / xl.NOTIFY_FILE
    path.write_text(arguments[0], encoding="utf-8")
    _use(host, domid, Filters.COMPARING)


def _pass(host: Host, domid: int, _: list[str]) -> None:
    """Take the filters away: the guest speaks to the network itself."""
    _use(host, domid, Filters.PLAIN)


def _lock(host: Host, domid: int, _: list[str]) -> None:
    """Put a closed plug on an incoming copy whose filters lead to the relay only."""
    reply = _checked(control.ask(host, domid, "filters"))
    if reply["filters"] != Filters.SECONDARY:
        fail(f"domain {domid} has no filters of a secondary, but {reply['filters']}")
    _checked(control.ask(host, domid, "plug", vif=reply["vif"], action="add"))


def _unlock(host: Host, domid: int, _: list[str]) -> None:
    """Take filters and plug of a copy away that was promoted."""
    _use(host, domid, Filters.PLAIN)
    vif = _checked(control.ask(host, domid, "filters"))["vif"]
    if control.ask(host, domid, "plug", vif=vif, action="show")["ok"]:
        _checked(control.ask(host, domid, "plug", vif=vif, action="del"))


def _diverge(host: Host, domid: int, _: list[str]) -> None:
    """Have this copy do what the other one does not."""
    _checked(control.ask(host, domid, "diverge"))


def _use(host: Host, domid: int, filters: Filters) -> None:
    _checked(control.ask(host, domid, "filters", use=filters))


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    if not reply["ok"]:
        fail(str(reply["error"]))
    return reply


_ACTIONS: dict[str, Callable[[Host, int, list[str]], None]] = {
    "show": lambda *_: None,
    "compare": _compare,
    "pass": _pass,
    "lock": _lock,
    "unlock": _unlock,
    "diverge": _diverge,
}
