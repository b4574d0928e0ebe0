"""The kinds of output gate that a guest can have, and how to get rid of what one left.

A session that dies leaves its plugs closed, for the kernel keeps them. Only the daemon, once this
host owns the guest alone, may open them: `open_left`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from colod.output.port import Plugs

if TYPE_CHECKING:
    from colod.output.plug import Found

DEFAULT_LIMIT_BYTES: Final = 32 << 20
"""Most that one plug holds: a quarter of a second of a 1 Gbit/s link."""

LIMIT_BYTES: Final = (64 << 10, (2 << 30) - 1)
"""Least and most of that."""


class Kind(StrEnum):
    """How a guest's output is held."""

    NONE = "none"
    """Not at all."""
    PLUG = "plug"
    """By the kernel's `plug` qdisc."""
    SIMULATED = "simulated"
    """By the plugs of the simulated Xen."""
    COLO = "colo"
    """By the session's own comparator, to which the guest's filters lead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Which gate a guest has.

    Attributes:
        kind: How output is held.
        interfaces: Of the guest in dom0, `vif3.0`, and `vif3.0-emu` of an HVM guest.
        limit_bytes: Most that the plug of each holds; what does not fit is lost.
        argv: SIMULATED and COLO: `colod-simxl` with what it needs to find its host.
    """

    kind: Kind = Kind.NONE
    interfaces: tuple[str, ...] = ()
    limit_bytes: int = DEFAULT_LIMIT_BYTES
    argv: tuple[str, ...] = ()


def parse_gate(given: Any) -> GateSpec:
    """Return the specification that a JSON value holds.

    Raises:
        ValueError: With the first thing that is wrong with it.
    """
    table = dict(given) if isinstance(given, dict) else {"kind": given}
    unknown = table.keys() - {"kind", "interfaces", "limit_bytes", "argv"}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    spec = GateSpec(
        kind=Kind(table.get("kind", Kind.NONE)),
        interfaces=_words(table.get("interfaces", [])),
        limit_bytes=table.get("limit_bytes", DEFAULT_LIMIT_BYTES),
        argv=_words(table.get("argv", [])),
    )
    _check(spec)
    return spec


def _check(spec: GateSpec) -> None:
    low, high = LIMIT_BYTES
    if type(spec.limit_bytes) is not int or not low <= spec.limit_bytes <= high:
        raise ValueError(f"limit_bytes {spec.limit_bytes!r} is not within {low} to {high}")
    if spec.kind is not Kind.NONE and not spec.interfaces:
        raise ValueError(f"{spec.kind} without interfaces holds nothing")
    if spec.kind in (Kind.SIMULATED, Kind.COLO) and not spec.argv:
        raise ValueError(f"{spec.kind} without argv")


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f"{value!r} is no list of words")
    return tuple(value)


def label_of(guest: str, pairing: str) -> str:
    """Return what tells people, and `without_strangers`, whose gate a device is."""
    return f"guest={guest} pairing={pairing}"


def make_plugs(spec: GateSpec, label: str = "") -> Plugs | None:
    """Return the plugs of a guest, None if it has no gate; nothing is touched yet.

    Args:
        spec: Which.
        label: What is written on the kernel's devices for people.
    """
    match spec.kind:
        case Kind.PLUG:
            from colod.output.plugs import KernelPlugs

            return KernelPlugs(spec.interfaces, spec.limit_bytes, label)
        case Kind.SIMULATED:
            from colod.output.simulated import SimulatedPlugs

            return SimulatedPlugs(spec.argv, spec.interfaces, spec.limit_bytes)
        case Kind.NONE | Kind.COLO:
            return None


def without_strangers(spec: GateSpec, guest: str, found: Iterable[Found]) -> GateSpec:
    """Return `spec` without the interfaces whose kernel device is labelled for another guest.

    After a reboot a domain id, and with it the name of an interface, may belong to any guest.
    """
    strangers = {
        each.interface
        for each in found
        if each.label and not each.label.startswith(label_of(guest, ""))
    }
    return replace(spec, interfaces=tuple(i for i in spec.interfaces if i not in strangers))


def _own(spec: GateSpec, guest: str) -> GateSpec:
    if spec.kind is not Kind.PLUG:
        return spec
    from colod.output.plugs import found_in_kernel

    return without_strangers(spec, guest, found_in_kernel())


def discard_left(spec: GateSpec, guest: str) -> None:
    """Drop what the gate of an ended session holds, and let its guest be heard no more; blocks.

    For a copy that another host has taken over from, before it is destroyed, or for one whose
    domain is gone. In COLO there is nothing to do: with its comparator gone it is mute.

    Raises:
        NetworkError: If something is left; it may be tried again.
    """
    plugs = make_plugs(_own(spec, guest))
    if plugs is not None:
        plugs.discard()


def open_left(spec: GateSpec, guest: str) -> None:
    """Open the gate that an ended session left, and take its plugs away; blocks.

    Call it only when this host owns the guest alone, and no session of the guest lives any more.
    Without anything to open it does nothing.

    Raises:
        NetworkError: If something is left; it may be tried again.
    """
    if spec.kind is Kind.COLO:
        from colod.output.colo.left import let_pass

        let_pass(spec.argv, guest)
        return
    plugs = make_plugs(_own(spec, guest))
    if plugs is not None:
        plugs.open()
