"""The kernel's side of the gate: ifb, plug, ingress and redirect, by netlink.

Only this module of the gate talks netlink. All calls block and belong to one thread. rtnetlink
carries a request out within the call that sends it, so the order of calls is that of the effects.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from colod.errors import NetworkError
from colod.output.naming import EMULATED_SUFFIX, alias_of, domid_of, ifb_of, read_back

_ROOT = 0xFFFFFFFF
_INGRESS = 0xFFFF0000
_ETH_P_ALL = 3
_ADDR_GEN_NONE = 1
# What a redirect shows when its device is gone, and what stands here for any other filter.
_NO_TARGET = 0
_OTHER = -1
IFB_QUEUE_PACKETS = 1000
"""Length of the ifb's own queue behind the plug; its default of 32 throttles large releases."""

# What a missing module makes of each request; the kernel tries to load it before it says so.
_ABSENT = frozenset({errno.ENOENT, errno.EOPNOTSUPP})
_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})


class PlugAction(Enum):
    """What can be asked of a plug, as pyroute2 spells it.

    It turns every other spelling into BUFFER without a word, so nothing else is ever passed.
    Source: Linux include/uapi/linux/pkt_sched.h, TCQ_PLUG_*.
    """

    BUFFER = "TCQ_PLUG_BUFFER"
    RELEASE_ONE = "TCQ_PLUG_RELEASE_ONE"
    RELEASE_INDEFINITE = "TCQ_PLUG_RELEASE_INDEFINITE"
    LIMIT = "TCQ_PLUG_LIMIT"


@dataclass(frozen=True, slots=True)
class Queue:
    """What a plug holds and has done.

    Attributes:
        held_packets: Packets in it now; one that will be segmented later counts as one.
        held_bytes: Their bytes.
        passed_packets: Packets that left, from the beginning.
        dropped_packets: Packets that did not fit into its limit.
    """

    held_packets: int = 0
    held_bytes: int = 0
    passed_packets: int = 0
    dropped_packets: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An ifb of colod's that is there, of any guest.

    Attributes:
        ifb: Its name.
        interface: Whose output it takes, "" if that is not known.
        label: Whose gate it is.
        is_held: Whether that interface's output goes there.
    """

    ifb: str
    interface: str
    label: str
    is_held: bool


class Kernel(Protocol):
    """What the gate needs of the kernel, by the names of interfaces.

    Each call raises NetworkError when it fails.
    """

    def close(self) -> None:
        """Let go of the kernel; what was set up stays."""

    def interfaces(self, known: Collection[str]) -> frozenset[str]:
        """Return which of `known` there are, and all others of the same guests."""

    def add_queue(self, interface: str, label: str, limit_bytes: int) -> None:
        """Create the interface's ifb with a fresh, closed plug; fail if its name is taken."""

    def remove_queue(self, interface: str) -> None:
        """Remove the ifb and drop what its plug holds; fine if there is none."""

    def has_queue(self, interface: str) -> bool:
        """Whether the interface has its ifb."""

    def add_ingress(self, interface: str) -> None:
        """Give the interface an ingress qdisc; fail if it has one."""

    def remove_ingress(self, interface: str) -> None:
        """Remove the ingress qdisc with its redirect; fine if there is none, or another's."""

    def redirect(self, interface: str) -> None:
        """Turn all that comes in by the interface into its ifb."""

    def change(self, interface: str, action: PlugAction) -> None:
        """Ask something of the interface's plug."""

    def is_held(self, interface: str) -> bool:
        """Whether the interface's output goes to its ifb, and that is up and has its plug."""

    def queue(self, interface: str) -> Queue:
        """Return the plug's figures."""

    def is_drained(self, interface: str) -> bool:
        """Whether nothing is left in the plug and in the ifb behind it."""

    def found(self) -> tuple[Found, ...]:
        """Return all ifbs of colod's, of any guest."""


class Netlink:
    """The real kernel, by rtnetlink."""

    filter_kind = "matchall"
    queue_kind = "plug"
    actions = "TCA_MATCHALL_ACT"

    def __init__(self, connect: Callable[[], Any] = IPRoute) -> None:
        """Open a netlink socket with `connect`; use it from this thread only."""
        self._route = connect()
        self._indices: dict[str, int] = {}

    def close(self) -> None:
        """Close the socket; what was set up stays."""
        self._route.close()

    def interfaces(self, known: Collection[str]) -> frozenset[str]:
        """Look at each device's name, and at what it belongs to."""
        with _asking("list network devices"):
            links = list(self._route.get_links())
        domids = {link.get("IFLA_IFNAME"): _domid(link) for link in links}
        guests = {domids.get(name) for name in known} - {None}
        found = {name for name, domid in domids.items() if name in known or domid in guests}
        return frozenset(found | {n + EMULATED_SUFFIX for n in found} & domids.keys())

    def add_queue(self, interface: str, label: str, limit_bytes: int) -> None:
        """Create the ifb with a fresh plug, and leave nothing behind if that fails."""
        ifb, mtu = ifb_of(interface), self._link(interface).get("IFLA_MTU")
        with _asking(f"create {ifb}", modules="ifb"):
            self._route.link("add", ifname=ifb, kind="ifb")
        try:
            self._dress(ifb, alias_of(interface, label), mtu, limit_bytes)
        except NetworkError:
            self.remove_queue(interface)
            raise

    def _dress(self, ifb: str, alias: str, mtu: int, limit_bytes: int) -> None:
        index = self._index(ifb)
        with _asking(f"set up {ifb}"):
            self._route.link("set", index=index, ifalias=alias)
            self._route.link("set", index=index, mtu=mtu)
            self._route.link("set", index=index, txqlen=IFB_QUEUE_PACKETS)
        self._silence(index)
        with _asking(f"queue on {ifb}", modules="sch_plug"):
            self.add_qdisc(index, limit_bytes)
        with _asking(f"start {ifb}"):
            self._route.link("set", index=index, state="up")

    def _silence(self, index: int) -> None:
        """Keep dom0's own IPv6 from speaking on the ifb; what it says there would only be dropped.

        A kernel without IPv6 refuses, and has nothing to say either.
        """
        inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_NONE)]}
        try:
            self._route.link("set", index=index, IFLA_AF_SPEC={"attrs": [("AF_INET6", inet6)]})
        except NetlinkError:
            return

    def add_qdisc(self, index: int, limit_bytes: int) -> None:
        """Put the plug on the ifb: it starts closed."""
        self._route.tc(
            "add",
            self.queue_kind,
            index,
            parent=_ROOT,
            action=PlugAction.LIMIT.value,
            limit=limit_bytes,
        )

    def remove_queue(self, interface: str) -> None:
        """Remove the ifb."""
        self._indices.pop(ifb_of(interface), None)
        if (link := self._ifb(interface)) is not None:
            with _asking(f"remove {ifb_of(interface)}", fine=_GONE):
                self._route.link("del", index=link["index"])

    def has_queue(self, interface: str) -> bool:
        """Look for an ifb of that name."""
        return self._ifb(interface) is not None

    def add_ingress(self, interface: str) -> None:
        """Give the interface an ingress qdisc."""
        index = self._index(interface)
        with _asking(f"ingress qdisc on {interface}", modules="sch_ingress"):
            self._route.tc("add", "ingress", index)

    def remove_ingress(self, interface: str) -> None:
        """Remove the ingress qdisc, unless it has a filter that is not ours."""
        link, ifb = self._find(interface), self._ifb(interface)
        if link is None:
            return
        targets = set(self._targets(link["index"]))
        ours = {_NO_TARGET} if ifb is None else {_NO_TARGET, ifb["index"]}
        is_ours = targets <= ours and (ifb is not None or targets)
        if is_ours:
            with _asking(f"remove the ingress qdisc of {interface}", fine=_GONE):
                self._route.tc("del", "ingress", link["index"])

    def redirect(self, interface: str) -> None:
        """Redirect every protocol, VLAN-tagged frames included."""
        source, target = self._index(interface), self._index(ifb_of(interface))
        action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": target}
        with _asking(f"redirect {interface}", modules="cls_matchall act_mirred"):
            self.add_filter(source, action)

    def add_filter(self, index: int, action: Mapping[str, Any]) -> None:
        """Put the filter on the interface's ingress."""
        self._route.tc(
            "add-filter",
            self.filter_kind,
            index,
            parent=_INGRESS,
            prio=1,
            protocol=_ETH_P_ALL,
            action=dict(action),
        )

    def filters(self, index: int) -> list[Any]:
        """Return the filters on the interface's ingress, without the heads of their lists."""
        found = self._route.get_filters(index=index, parent=_INGRESS)
        return [each for each in found if each["handle"]]

    def change(self, interface: str, action: PlugAction) -> None:
        """Ask something of the plug."""
        index = self._index(ifb_of(interface))
        with _asking(f"{action.value} on {ifb_of(interface)}"):
            self._route.tc("change", "plug", index, parent=_ROOT, action=action.value)

    def is_held(self, interface: str) -> bool:
        """Look at the filter, at the ifb's state and at its qdisc."""
        source, ifb = self._find(interface), self._ifb(interface)
        if source is None or ifb is None or ifb.get("state") != "up":
            return False
        with _asking(f"look at {ifb_of(interface)}"):
            qdiscs = list(self._route.get_qdiscs(index=ifb["index"]))
        has_plug = any(each.get("TCA_KIND") == self.queue_kind for each in qdiscs)
        return has_plug and ifb["index"] in self._targets(source["index"])

    def queue(self, interface: str) -> Queue:
        """Read the qdisc's statistics."""
        index = self._index(ifb_of(interface))
        with _asking(f"statistics of {ifb_of(interface)}"):
            for qdisc in self._route.get_qdiscs(index=index):
                if qdisc["parent"] == _ROOT and qdisc.get("TCA_KIND") == self.queue_kind:
                    return _queue(qdisc.get("TCA_STATS2"))
        raise NetworkError(f"{ifb_of(interface)} has no {self.queue_kind} qdisc any more")

    def is_drained(self, interface: str) -> bool:
        """Compare what went into the ifb with what came out of it."""
        if self.queue(interface).held_packets:
            return False
        stats = self._link(ifb_of(interface)).get("IFLA_STATS64")
        return bool(stats["rx_packets"] <= stats["tx_packets"] + stats["rx_dropped"])

    def found(self) -> tuple[Found, ...]:
        """Look at every ifb's name and alias."""
        with _asking("list network devices"):
            links = list(self._route.get_links())
        found = []
        for link in links:
            if not _is_ifb(link):
                continue
            name = link.get("IFLA_IFNAME")
            known = read_back(name, link.get("IFLA_IFALIAS") or "")
            if known is not None:
                found.append(Found(name, *known, is_held=bool(known[0]) and self.is_held(known[0])))
        return tuple(found)

    def _targets(self, index: int) -> list[int]:
        """Return where each filter on the interface's ingress redirects to, -1 for nowhere."""
        with _asking("list filters", fine=_GONE):
            return [_target(each.get("TCA_OPTIONS"), self.actions) for each in self.filters(index)]

    def _find(self, name: str) -> Any:
        with _asking(f"look at {name}", fine=_GONE):
            return next(iter(self._route.get_links(ifname=name)), None)

    def _ifb(self, interface: str) -> Any:
        """Return the interface's ifb; another device of that name is none of ours."""
        link = self._find(ifb_of(interface))
        return link if link is not None and _is_ifb(link) else None

    def _link(self, name: str) -> Any:
        if (link := self._find(name)) is None:
            raise NetworkError(f"there is no network device {name}")
        return link

    def _index(self, name: str) -> int:
        """Return its index; kept, because the guest is suspended while a barrier is set."""
        if name not in self._indices:
            self._indices[name] = int(self._link(name)["index"])
        return self._indices[name]


@contextmanager
def _asking(what: str, *, modules: str = "", fine: frozenset[int] = frozenset()) -> Iterator[None]:
    """Turn netlink's refusals into NetworkError, but for those in `fine`."""
    try:
        yield
    except NetlinkError as error:
        if error.code in fine:
            return
        raise _explained(what, error.code, modules) from error
    except (OSError, TimeoutError) as error:
        raise NetworkError(f"{what}: {error}") from error


def _explained(what: str, code: int, modules: str) -> NetworkError:
    reason = errno.errorcode.get(code, str(code))
    if code in _ABSENT and modules:
        message = f"{what}: {reason}; the kernel lacks {modules.replace(' ', ' or ')}"
        return NetworkError(message, advice=f"run: modprobe -a {modules}")
    if code == errno.EEXIST:
        message = f"{what}: it is there already, and colod takes nothing that is in use"
        return NetworkError(message, advice="run: colodctl doctor")
    return NetworkError(f"{what}: {reason}")


def _is_ifb(link: Any) -> bool:
    info = link.get("IFLA_LINKINFO")
    return info is not None and info.get("IFLA_INFO_KIND") == "ifb"


def _domid(link: Any) -> int | None:
    return domid_of(link.get("IFLA_IFNAME"), link.get("IFLA_PARENT_DEV_NAME") or "")


def _target(options: Any, actions: str) -> int:
    """Return the device that a filter redirects to, or _OTHER if it does something else."""
    listed = options.get(actions) if options else None
    for _, action in listed["attrs"] if listed else ():
        parms = _attribute(action, "TCA_ACT_OPTIONS", "TCA_MIRRED_PARMS")
        if parms:
            return int(parms["ifindex"])
    return _OTHER


def _attribute(nla: Any, *path: str) -> Any:
    for name in path:
        nla = nla.get(name) if nla else None
    return nla


def _queue(stats: Any) -> Queue:
    basic, queue = stats.get("TCA_STATS_BASIC"), stats.get("TCA_STATS_QUEUE")
    return Queue(
        held_packets=queue["qlen"],
        held_bytes=queue["backlog"],
        passed_packets=basic["packets"],
        dropped_packets=queue["drops"],
    )
