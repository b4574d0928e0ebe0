"""One round of chaos: faults by its seed, everything mended, and what became of the guest."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from colod.errors import ColodError
from tests.pair import SimulatedHost
from tests.scenarios.arena import GUEST, Arena
from tests.scenarios.faults import Fault, Faults

PROTECTED: Final = "protected"
HEALING_S: Final = 120.0
_OPERATOR_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass(slots=True)
class Outcome:
    """What came of a round.

    Attributes:
        seed: Of its faults.
        faults: What was done.
        end: Where it ended, in words.
        violations: What the guest's copies should not have said.
        states: What both daemons say in the end.
        healed_s: From the mending to the end.
    """

    seed: int
    faults: list[str] = field(default_factory=list)
    end: str = ""
    violations: list[str] = field(default_factory=list)
    states: str = ""
    healed_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was said that should not, and a good end was reached."""
        return not self.violations and (self.end == PROTECTED or "after two deaths" in self.end)


class Round:
    """One round in an arena that is protected."""

    def __init__(self, arena: Arena, seed: int) -> None:
        """Prepare the faults of `seed`."""
        self._arena = arena
        self._plans = Faults(arena, Random(seed)).plan()
        self._begun: list[Fault] = []
        self._outcome = Outcome(seed)

    def run(self) -> Outcome:
        """Run it; afterwards the arena is protected again, or should be thrown away."""
        self._rage()
        self._arena.mend()
        began = time.monotonic()
        self._outcome.end = self._heal(began + HEALING_S)
        self._outcome.healed_s = time.monotonic() - began
        self._outcome.violations = list(self._arena.words.violations)
        self._outcome.states = "; ".join(map(self._state, self._arena.hosts))
        return self._outcome

    def _rage(self) -> None:
        began = time.monotonic()
        waiting = sorted(self._plans, key=lambda plan: plan.at_s)
        ending: list[tuple[float, Fault]] = []
        while waiting or ending:
            now = time.monotonic() - began
            if waiting and waiting[0].at_s <= now:
                plan = waiting.pop(0)
                fault = plan.begin()
                if fault is not None:
                    self._begun.append(fault)
                    self._outcome.faults.append(f"{now:.1f} s {fault.what} for {plan.for_s:.1f} s")
                    ending.append((now + plan.for_s, fault))
            for at_s, fault in list(ending):
                if at_s <= now:
                    ending.remove((at_s, fault))
                    fault.end()
            self._listen()
            time.sleep(_POLL_S / 2)

    def _listen(self) -> None:
        still = [str(fault.still.root / "xen") for fault in self._begun if fault.still]
        self._arena.words.read(stood_still=still)

    def _heal(self, until: float) -> str:
        operator_at = time.monotonic() + _OPERATOR_S
        while time.monotonic() < until:
            self._listen()
            if self._is_well():
                return PROTECTED
            if time.monotonic() > operator_at:
                self._act_as_operator()
                operator_at = time.monotonic() + _OPERATOR_S
            time.sleep(_POLL_S)
        return self._bad_end()

    def _is_well(self) -> bool:
        arena = self._arena
        return arena.is_protected() and len(arena.running()) == arena.running_when_well

    def _bad_end(self) -> str:
        deaths = {each for fault in self._begun for each in fault.deaths}
        two = any(
            ("power", one.name) in deaths and ("replica", self._arena.other(one).name) in deaths
            for one in self._arena.hosts
        )
        if self._arena.running():
            return "unsettled"
        kept = any(self._arena.copies(host) for host in self._arena.hosts)
        return f"{'kept for a person' if kept else 'lost'}{' after two deaths' if two else ''}"

    def _act_as_operator(self) -> None:
        """Do what `status` advises: want the guest protected, and destroy a copy that lost."""
        for host in self._arena.running():
            status = host.protection(GUEST)
            if status.state in ("", "SUSPENDED"):
                with suppress(ColodError):
                    self._arena.protect(host)
            other = self._arena.other(host)
            if "xl destroy" in other.protection(GUEST).advice:
                other.xl("destroy", GUEST, check=False)

    def _state(self, host: SimulatedHost) -> str:
        status = host.protection(GUEST)
        return f"{host.name}: {status.state or 'no answer'} ({status.cause} | {status.advice})"
