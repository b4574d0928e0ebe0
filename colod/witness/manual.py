"""The witness `manual`: no third party; both hosts keep a copy, and a person decides a partition.

Each change needs the other host's consent or an operator's recorded word, on this host, that the
other host is down; without either it is Unknown. What that does not guarantee: two operators who
give their word on both hosts at once, or one who is wrong, make two owners. See docs/witness.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from colod.durable import replace_file, sync_directory
from colod.errors import PeerError, WitnessError, WitnessUnreachable
from colod.failover.record import (
    MAX_REASON_CHARS,
    OwnershipRecord,
    RecordState,
    check_transition,
)
from colod.model import GuestName, HostName, parse_guest_name
from colod.options import parse_options
from colod.witness.base import Outcome, Stored, Unknown, Won
from colod.witness.blocking import BlockingCalls, TooManyHanging
from colod.witness.content import after_write, last_generation, outcome_of_mismatch
from colod.witness.recordfile import RecordFile

Offer = Callable[[GuestName, Stored], Awaitable[bool]]
"""Sends a copy to the other host's `ManualWitness.accept` and returns its answer."""

_Result = TypeVar("_Result")


class ManualOptions(BaseModel):
    """The table `[witness]` of kind `manual`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Path = Field(
        default=Path("/var/lib/colod/witness"),
        description="Existing directory for this host's copies, on a disk of its own: never one "
        "that both hosts share.",
    )
    timeout_s: float = Field(
        default=2.0,
        ge=0.05,
        le=60,
        description="Longest wait for the disk, and for the other host's consent. Too short: a "
        "busy disk looks like a lost witness. Too long: a decision waits that long.",
    )


class ManualWitness:
    """Keeps this host's copy of each record, in step with the other host's."""

    def __init__(self, directory: Path, *, host: HostName, timeout_s: float = 2.0) -> None:
        """Keep the copies of `host` in `directory`; nobody consents before `attach`."""
        self._directory = directory
        self._host = host
        self._timeout_s = timeout_s
        self._offer: Offer | None = None
        self._calls = BlockingCalls()
        self._locks: dict[GuestName, asyncio.Lock] = {}
        self._leaving: Counter[GuestName] = Counter()
        self._under_way: set[asyncio.Task[Outcome]] = set()

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the witness from its table; see `ManualOptions`."""
        parsed = parse_options(ManualOptions, options, "witness")
        return cls(parsed.directory, host=host, timeout_s=parsed.timeout_s)

    def attach(self, offer: Offer) -> None:
        """Take the way to the other host's `accept`.

        Args:
            offer: Returns True once the other host holds the copy on disk, False if it refused;
                raises PeerError if it is not known.
        """
        self._offer = offer

    async def read(self, guest: GuestName) -> Stored:
        """Return this host's copy; see `Witness.read`."""
        try:
            return await self._run(partial(self._file(guest).read, self._timeout_s))
        except (OSError, TooManyHanging) as error:
            raise WitnessUnreachable(f"{self._directory}: {str(error) or 'timed out'}") from error

    async def compare_and_swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Replace `expected` by `new` in both copies; see `Witness.compare_and_swap`."""
        check_transition(expected.record, new, by=self._host, after=expected.last_generation)
        try:
            if _needs_leave(expected.record, new, by=self._host):
                return await self._carried_through(self._after_leave(guest, expected, new))
            return await self._and_tell(guest, expected, new)
        except (OSError, TooManyHanging) as error:
            return Unknown(f"{self._directory}: {str(error) or 'timed out'}")

    async def accept(self, guest: GuestName, offered: Stored, *, sender: HostName) -> bool:
        """Take over the other host's copy if it is the newer one; the daemon's peer service calls.

        Args:
            guest: The protected guest.
            offered: The other host's copy; its revision counts on that host only.
            sender: That host, as its certificate names it.

        Returns:
            Whether this host's copy, on disk, is now the same.

        Raises:
            WitnessError: If this host's copy cannot be read, or the disk does not answer.
        """
        try:
            await self._run(partial(self._forget_word, guest))  # that host is not down
            async with self._lock(guest):
                return await self._accept(guest, offered, sender)
        except (OSError, TooManyHanging) as error:
            raise WitnessUnreachable(f"{self._directory}: {str(error) or 'timed out'}") from error

    async def tell(self, guest: GuestName) -> bool:
        """Offer this host's copy to the other host again, which was away when it was made.

        Where it answers, an operator's word that it is down is void.

        Returns:
            Whether the other host holds it now.

        Raises:
            WitnessUnreachable: If this host's copy cannot be read.
        """
        copy = await self.read(guest)
        try:
            return await self._has_consent(guest, copy)
        except (OSError, TooManyHanging) as error:
            raise WitnessUnreachable(f"{self._directory}: {str(error) or 'timed out'}") from error

    async def confirm(self, guest: GuestName, reason: str) -> None:
        """Record an operator's word that the other host of `guest` is down.

        It holds for the record as it is now, once, and only on this host.

        Raises:
            ValueError: If the reason is empty or longer than `MAX_REASON_CHARS`.
            WitnessError: If there is nothing to decide, or the word cannot be written.
        """
        if not 0 < len(reason.strip()) <= len(reason) <= MAX_REASON_CHARS:
            raise ValueError(f"reason of {len(reason)} characters: want 1 to {MAX_REASON_CHARS}")
        record = (await self.read(guest)).record
        if record is None or not _concerns_other(record, self._host):
            raise WitnessError(f"{guest} is not paired: nobody has to be down for it")
        word = json.dumps(_word_on(record) | {"reason": reason}).encode()
        try:
            await self._run(partial(replace_file, self._word_path(guest), word))
        except (OSError, TooManyHanging) as error:
            raise WitnessUnreachable(f"{self._directory}: {str(error) or 'timed out'}") from error

    async def close(self) -> None:
        """Wait for what nobody waits for any more; it ends within its time limits."""
        if self._under_way:
            await asyncio.wait(tuple(self._under_way))

    async def _carried_through(self, leaving: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Return what comes of it; it goes on where the caller is cancelled.

        The offer may be at the other host by then. Until it was answered this host consents to
        nothing, or each could come to hold the other for the owner.
        """
        task = asyncio.create_task(leaving)
        self._under_way.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Outcome]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # fetched, so that asyncio does not report it as forgotten

    async def _after_leave(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Leave PAIRED: the other host gives up its own right first, or an operator vouches."""
        assert expected.record is not None
        wanted = after_write(expected, new, expected.revision + 1)
        async with self._leave(guest, expected.record):
            async with self._lock(guest):
                present = await self._run(partial(self._file(guest).read, self._timeout_s))
            if present != expected:
                return outcome_of_mismatch(expected, present, new)
            if not (
                await self._has_consent(guest, wanted)
                or await self._run(partial(self._has_word, guest, expected.record))
            ):
                return Unknown(
                    f"{self._other(expected.record)} did not consent: this needs the operator's "
                    f"word, on {self._host}, that it is down"
                )
            outcome = await self._swap(guest, expected, new)
        if isinstance(outcome, Won):
            await self._run(partial(self._forget_word, guest))
        return outcome

    async def _and_tell(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Make a change that is this host's alone to make, and tell the other host of it.

        One that only counts once the other host holds it is in force by an operator's word, too,
        that it is down: else a host that dies before it has answered would leave the guest held.
        That word is void once the other host is heard: it is not about another loss.
        """
        outcome = await self._swap(guest, expected, new)
        if not isinstance(outcome, Won):
            return outcome
        is_held_there = await self._has_consent(guest, outcome.stored)
        if is_held_there or new is None or not _counts_only_when_told(expected.record, new):
            return outcome
        if not await self._run(partial(self._has_word, guest, new)):
            return Unknown(
                f"{self._other(new)} has not confirmed that it holds its copy: this needs it, or "
                f"the operator's word, on {self._host}, that it is down"
            )
        return outcome

    async def _has_consent(self, guest: GuestName, wanted: Stored) -> bool:
        """Return whether the other host holds the copy now; whatever it answers, it is not down."""
        if self._offer is None:
            return False
        try:
            async with asyncio.timeout(self._timeout_s):
                is_held = await self._offer(guest, wanted)
        except (PeerError, TimeoutError):
            return False
        await self._run(partial(self._forget_word, guest))
        return is_held

    async def _accept(self, guest: GuestName, offered: Stored, sender: HostName) -> bool:
        # The owner's copy is the arbiter: while it leaves PAIRED itself, the other's wish waits.
        # Otherwise each could agree to the other's wish, and nobody would own the guest.
        if self._leaving[guest]:
            return False
        copy = await self._run(partial(self._file(guest).read, self._timeout_s))
        if copy.record == offered.record and last_generation(copy) == last_generation(offered):
            return True
        if not _may_accept(copy, offered, own=self._host, sender=sender):
            return False
        swap = partial(self._file(guest).put, copy, offered, self._timeout_s)
        return isinstance(await self._run(swap), Won)

    @asynccontextmanager
    async def _leave(self, guest: GuestName, record: OwnershipRecord) -> AsyncIterator[None]:
        is_owner = record.owner == self._host
        async with self._lock(guest):
            self._leaving[guest] += is_owner
        try:
            yield
        finally:
            self._leaving[guest] -= is_owner

    async def _swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        async with self._lock(guest):
            return await self._run(partial(self._file(guest).swap, expected, new, self._timeout_s))

    def _lock(self, guest: GuestName) -> asyncio.Lock:
        return self._locks.setdefault(guest, asyncio.Lock())

    def _file(self, guest: GuestName) -> RecordFile:
        return RecordFile(self._directory, guest)

    def _other(self, record: OwnershipRecord) -> HostName:
        return record.peer if record.owner == self._host else record.owner

    def _word_path(self, guest: GuestName) -> Path:
        return self._directory / f"{parse_guest_name(guest)}.word"

    def _has_word(self, guest: GuestName, record: OwnershipRecord) -> bool:
        try:
            word = json.loads(self._word_path(guest).read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return isinstance(word, dict) and _word_on(record).items() <= word.items()

    def _forget_word(self, guest: GuestName) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._word_path(guest).unlink()
            sync_directory(self._directory)

    async def _run(self, call: Callable[[], _Result]) -> _Result:
        return await self._calls.run(call, timeout_s=self._timeout_s * 1.25)


def _concerns_other(record: OwnershipRecord, own: HostName) -> bool:
    """Tell whether the other host has a say in what follows: it may own the guest, or does."""
    return record.state is RecordState.PAIRED or record.owner != own


def _needs_leave(old: OwnershipRecord | None, new: OwnershipRecord | None, *, by: HostName) -> bool:
    """Tell whether `by` takes what the other host, too, has a right to: its consent comes first.

    A hand-over gives this host's own right away, and a forced change is an operator's word itself.
    """
    if old is None or new is None or old.state is not RecordState.PAIRED or new.forced:
        return False
    return new.owner == by


def _counts_only_when_told(old: OwnershipRecord | None, new: OwnershipRecord | None) -> bool:
    """Tell whether the change is of no use before the other host holds it: it is to act on it."""
    if new is None or old is None or new.forced:
        return False
    return new.state is RecordState.PAIRED or new.owner != old.owner


def _may_accept(copy: Stored, offered: Stored, *, own: HostName, sender: HostName) -> bool:
    """Tell whether `offered` by `sender` is newer than `copy`: the higher generation is.

    With equal generations only the owner's own later change of its record is.
    """
    parties = {own, sender}
    for one in (copy.record, offered.record):
        if one is not None and {one.owner, one.peer} != parties:
            return False
    if last_generation(offered) != last_generation(copy):
        return last_generation(offered) > last_generation(copy)
    if copy.record is None or copy.record.owner != sender:
        return False
    return offered.record is None or offered.record.owner == sender


def _word_on(record: OwnershipRecord) -> dict[str, object]:
    return {"generation": record.generation, "attempt": record.attempt}
