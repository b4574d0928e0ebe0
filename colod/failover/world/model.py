"""The graph of all worlds, coded as integers: each step is worked out once for what it depends on.

A world is two hosts and what they share. What a host does depends on itself and what is shared, or
on itself, the network and a little of the other host; so the same step is taken in many worlds
and is computed once. That, and comparing numbers in place of records, lets millions of worlds be
walked in minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from colod.failover.effects import Decision, Do
from colod.failover.explorer import Step, Verdict
from colod.failover.rules import RULES, Rule, decide
from colod.failover.view import View
from colod.failover.world import daemon, faults, promises, xen
from colod.failover.world.state import (
    HOSTS,
    Bounds,
    Host,
    Meeting,
    Move,
    Shared,
    World,
    first_world,
)

T = TypeVar("T", bound=Hashable)

_BITS = 22
_MASK = (1 << _BITS) - 1


class _Table(Generic[T]):
    """Values and their numbers."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class _Move(NamedTuple):
    name: str
    host: int
    shared: int
    is_fault: bool
    wrong: str


class _Meeting(NamedTuple):
    name: str
    host: int
    act: int
    is_fault: bool
    wrong: str


class Model:
    """The ways on from a world, under a table of rules.

    Attributes:
        bounds: What may happen.
        decisions: What was decided, for every view that was met.
    """

    def __init__(self, bounds: Bounds, rules: tuple[Rule, ...] = RULES) -> None:
        """Take what may happen, and the rules to judge.

        Raises:
            ValueError: If a kind of accident is not known.
        """
        if unknown := bounds.kinds - faults.KINDS:
            raise ValueError(f"no such kinds of accidents: {sorted(unknown)}")
        self.bounds = bounds
        self._rules = rules
        self.decisions: dict[View, Decision] = {}
        self._hosts: _Table[Host] = _Table()
        self._shared: _Table[Shared] = _Table()
        self._facets: _Table[Hashable] = _Table()
        self._acts: _Table[str] = _Table()
        self._marks: _Table[promises.Mark] = _Table()
        self._grants: _Table[promises.Grant] = _Table()
        self._acts.number("")
        # By a host's number: its facet, its mark, itself once the other has spoken, what it knows.
        self._facet: list[int] = []
        self._mark: list[int] = []
        self._stale: list[int] = []
        self._knows: list[int] = []
        self._grant: list[int] = []
        self._spent: list[int] = []
        self._own: tuple[dict[int, list[_Move]], ...] = ({}, {})
        self._met: tuple[dict[int, list[_Meeting]], ...] = ({}, {})
        self._common: dict[int, list[tuple[str, int, bool, str]]] = {}
        self._acted: dict[tuple[int, int, int], int] = {}
        self._judged: dict[int, Verdict] = {}

    # --- the graph ------------------------------------------------------------------------

    def starts(self) -> Iterable[int]:
        """Return the world just after `protect`."""
        world = first_world(self.bounds)
        a, b = (self._host(host) for host in world.hosts)
        return [self._code(a, b, self._share(world.shared))]

    def world(self, state: int) -> World:
        """Return the world that `state` stands for."""
        a, b, s = state & _MASK, state >> _BITS & _MASK, state >> 2 * _BITS
        return World((self._hosts.values[a], self._hosts.values[b]), self._shared.values[s])

    def judge(self, state: int) -> Verdict:
        """Return what a state is worth."""
        a, b = self._mark[state & _MASK], self._mark[state >> _BITS & _MASK]
        grant = self._grant[state >> 2 * _BITS]
        key = self._pack(a, b, grant)
        verdict = self._judged.get(key)
        if verdict is None:
            marks, grants = self._marks.values, self._grants.values
            verdict = promises.judge(marks[a], marks[b], grants[grant], self.bounds)
            self._judged[key] = verdict
        return verdict

    def steps(self, state: int) -> list[Step]:
        """Return everything that can happen next."""
        a, b, s = state & _MASK, state >> _BITS & _MASK, state >> 2 * _BITS
        if self.bounds.prompt and (urgent := self._urgent(a, b, s)):
            return urgent
        steps: list[Step] = []
        for name, host, shared, is_fault, wrong in self._moves(0, a, s):
            steps.append(Step(name, self._code(host, b, shared), is_fault, wrong))
        for name, host, shared, is_fault, wrong in self._moves(1, b, s):
            steps.append(Step(name, self._code(a, host, shared), is_fault, wrong))
        for name, host, act, is_fault, wrong in self._meetings(0, a, b, s):
            shared = self._spent[s] if is_fault else s
            if shared >= 0:
                other = self._apply(1, b, act) if act else b
                steps.append(Step(name, self._code(host, other, shared), is_fault, wrong))
        for name, host, act, is_fault, wrong in self._meetings(1, b, a, s):
            shared = self._spent[s] if is_fault else s
            if shared >= 0:
                other = self._apply(0, a, act) if act else a
                steps.append(Step(name, self._code(other, host, shared), is_fault, wrong))
        if "restore" in self.bounds.kinds:
            for name, after, _ in faults.restoring(
                self._shared.values[s], min(self._knows[a], self._knows[b])
            ):
                steps.append(Step(name, self._code(a, b, self._share(after)), is_fault=True))
        for name, shared, is_fault, wrong in self._happenings(s):
            steps.append(Step(name, self._code(a, b, shared), is_fault, wrong))
        return steps

    # --- coding ---------------------------------------------------------------------------

    @staticmethod
    def _pack(a: int, b: int, c: int) -> int:
        return a | b << _BITS | c << 2 * _BITS

    def _code(self, a: int, b: int, s: int) -> int:
        """Code a world; whoever speaks now leaves the other's copies behind."""
        marks = self._marks.values
        if self.bounds.gated:
            if marks[self._mark[a]].speaks:
                b = self._left_behind(b)
            if marks[self._mark[b]].speaks:
                a = self._left_behind(a)
        return a | b << _BITS | s << 2 * _BITS

    def _left_behind(self, number: int) -> int:
        stale = self._stale[number]
        if stale < 0:
            host = self._hosts.values[number]
            guest = host.guest and replace(host.guest, fresh=False)
            incoming = host.incoming and replace(host.incoming, fresh=False)
            stale = self._host(replace(host, guest=guest, incoming=incoming))
            self._stale[number] = self._stale[stale] = stale
        return stale

    def _host(self, host: Host) -> int:
        number = self._hosts.number(host)
        if number == len(self._facet):
            assert number <= _MASK
            self._facet.append(self._facets.number(_facet_of(host)))
            self._mark.append(self._marks.number(promises.mark_of(host)))
            self._stale.append(-1)
            self._knows.append(host.journal.generation if host.journal else sys.maxsize)
        return number

    def _share(self, shared: Shared) -> int:
        number = self._shared.number(shared)
        if number == len(self._grant):
            self._grant.append(self._grants.number(promises.grant_of(shared)))
            self._spent.append(-1)
            if shared.faults > 0:
                self._spent[number] = self._share(replace(shared, faults=shared.faults - 1))
        return number

    # --- steps, each worked out once ------------------------------------------------------

    def _decide(self, view: View) -> Decision:
        decision = self.decisions.get(view)
        if decision is None:
            decision = self.decisions[view] = decide(view, self._rules)
        return decision

    def _moves(self, i: int, number: int, s: int) -> list[_Move]:
        key = number | s << _BITS
        known = self._own[i].get(key)
        if known is None:
            host, shared = self._hosts.values[number], self._shared.values[s]
            known = [self._move(i, shared, move) for move in self._own_moves(i, host, shared)]
            self._own[i][key] = known
        return known

    def _own_moves(self, i: int, host: Host, shared: Shared) -> Iterable[Move]:
        yield from daemon.moves(i, host, shared, self.bounds, self._decide)
        if host.is_up:
            for name, after in xen.spontaneous(host):
                yield Move(name, after, shared)
        yield from faults.accidents(i, host, shared, self.bounds)
        yield from faults.repairs(i, host, shared)

    def _move(self, i: int, before: Shared, move: Move) -> _Move:
        wrong = move.wrong or promises.broken_write(before, move.shared)
        return _Move(
            f"{HOSTS[i]}: {move.name}",
            self._host(move.host),
            self._share(move.shared),
            move.is_fault,
            wrong,
        )

    def _meetings(self, i: int, number: int, other: int, s: int) -> list[_Meeting]:
        net = self._shared.values[s].net
        key = number << 1 | net | self._facet[other] << _BITS + 1
        known = self._met[i].get(key)
        if known is None:
            host, facet = self._hosts.values[number], self._facets.values[self._facet[other]]
            known = [self._meeting(i, each) for each in self._joint_moves(host, facet, net)]
            self._met[i][key] = known
        return known

    def _joint_moves(self, host: Host, facet: Hashable, net: bool) -> Iterable[Meeting]:
        assert isinstance(facet, _Facet)
        yield from daemon.meetings(host, facet.standing, net, self.bounds, self._decide)
        yield from xen.replication(host, facet.wire, net, self.bounds)
        yield from xen.contact(host, facet.says, net)
        if "force" in self.bounds.kinds:
            yield from faults.forcing(host, facet.is_up)

    def _meeting(self, i: int, meeting: Meeting) -> _Meeting:
        return _Meeting(
            f"{HOSTS[i]}: {meeting.name}",
            self._host(meeting.host),
            self._acts.number(meeting.other),
            meeting.is_fault,
            meeting.wrong,
        )

    def _apply(self, i: int, number: int, act: int) -> int:
        key = (i, number, act)
        after = self._acted.get(key)
        if after is None:
            changed = self._change(i, self._hosts.values[number], self._acts.values[act])
            after = self._acted[key] = self._host(changed)
        return after

    def _change(self, i: int, host: Host, act: str) -> Host:
        if change := _ACTS.get(act):
            return change(host)
        if act == "dies":
            return faults.host_dies(host, self.bounds)
        _, pairing, generation = act.split()
        return daemon.prepares(i, host, pairing, int(generation))

    def _happenings(self, s: int) -> list[tuple[str, int, bool, str]]:
        known = self._common.get(s)
        if known is None:
            before = self._shared.values[s]
            known = self._common[s] = [
                (name, self._share(after), is_fault, _wrong_write(before, after, is_fault))
                for name, after, is_fault in faults.common(before, self.bounds)
            ]
        return known

    def _urgent(self, a: int, b: int, s: int) -> list[Step]:
        """Return the steps that nothing slower overtakes, where time is assumed to be kept."""
        steps: list[Step] = []
        for i, (mine, theirs) in enumerate(((a, b), (b, a))):
            for name, host, _, _, wrong in self._meetings(i, mine, theirs, s):
                if name.endswith("the session notices"):
                    pair = (host, theirs) if i == 0 else (theirs, host)
                    steps.append(Step(name, self._code(*pair, s), wrong=wrong))
            host_now = self._hosts.values[mine]
            decision = daemon.decision_of(host_now, self.bounds, self._decide)
            if decision is not None and decision.effect is Do.HOLD_GUEST:
                for name, host, shared, is_fault, wrong in self._moves(i, mine, s):
                    if name == f"{HOSTS[i]}: {decision.rule}":
                        pair = (host, theirs) if i == 0 else (theirs, host)
                        steps.append(Step(name, self._code(*pair, shared), is_fault, wrong))
        return steps


class _Facet(NamedTuple):
    """What one host's doings can depend on of the other host."""

    standing: daemon.Standing
    wire: xen.Wire
    says: xen.Said
    is_up: bool


def _facet_of(host: Host) -> _Facet:
    return _Facet(daemon.standing_of(host), xen.wire_of(host), xen.hear_of(host), host.is_up)


def _wrong_write(before: Shared, after: Shared, is_fault: bool) -> str:
    return "" if is_fault else promises.broken_write(before, after)


_ACTS: dict[str, Callable[[Host], Host]] = {**xen.RECEIVER_ACTS, "forgets": daemon.forgets}
