"""What is known of the copies that lost their guest, and orders that one be kept: on disk, fsynced.

`STATE/quarantine/DOMAIN.json` for each domain, under its present name. A copy is known by the
number that Xen gave its domain under this boot: neither a name nor an order passes on to another
domain that has it later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from colod.daemon.unbroken import unbroken
from colod.durable import replace_file, sync_directory
from colod.errors import JournalError
from colod.model import Generation, GuestName, quarantine_name

_SUFFIX: Final = ".json"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Keep(_Stored):
    """Who ordered that a copy be kept, why, and when (wall-clock time, for people only)."""

    operator: str
    reason: str
    unix_s: FiniteFloat


class Aside(_Stored):
    """A copy that colod put aside: under which generation the guest was lost, why and when."""

    guest: str
    generation: int
    why: str
    unix_s: FiniteFloat


class Entry(_Stored):
    """What is known of one domain.

    Attributes:
        format: Of the file.
        domid: Its number, 0 where the file cannot be read.
        boot: The boot id under which that is its number.
        aside: Set where colod has put it aside.
        keep: Set where somebody has ordered that it be kept.
    """

    format: Literal[1] = 1
    domid: int
    boot: str
    aside: Aside | None = None
    keep: Keep | None = None


class QuarantineLog:
    """The files of one host; kept in memory too, since every decision asks."""

    def __init__(self, directory: Path, boot: str) -> None:
        """Read what is there of this `boot`; the domains of an earlier one are gone.

        A file that cannot be read counts as an order to keep the domain of its name.
        """
        self._directory = directory
        self._boot = boot
        self._lock = asyncio.Lock()
        self._entries: dict[str, Entry] = {}
        for path in sorted(directory.glob(f"[!.]*{_SUFFIX}")):
            entry = _read(path, boot)
            if entry is not None and entry.boot == boot:
                self._entries[path.name.removesuffix(_SUFFIX)] = entry

    def entry(self, domain: str, domid: int) -> Entry | None:
        """Return what is known of the domain of that name and number, None if nothing is."""
        found = self._entries.get(domain)
        return found if found is not None and found.domid in (0, domid) else None

    def is_kept(self, domain: str, domid: int) -> bool:
        """Whether somebody has ordered that this domain be kept."""
        found = self.entry(domain, domid)
        return found is not None and found.keep is not None

    async def put_aside(
        self, guest: GuestName, domid: int, generation: Generation, *, why: str
    ) -> str:
        """Write down that a guest's copy is about to be put aside; return the name it is to have.

        An order to keep it goes with it.

        Raises:
            JournalError: If it did not reach the disk.
        """
        known = self.entry(guest, domid)
        name = quarantine_name(guest, generation)
        aside = Aside(guest=guest, generation=generation, why=why, unix_s=time.time())
        entry = Entry(domid=domid, boot=self._boot, aside=aside, keep=known.keep if known else None)
        # The order under the old name stays until the number tells that the domain is gone.
        await self._change(name, entry)
        return name

    async def keep(self, domain: str, domid: int, *, operator: str, reason: str) -> None:
        """Have a domain kept; on disk when this returns.

        Raises:
            JournalError: If it did not reach the disk.
        """
        order = Keep(operator=operator, reason=reason, unix_s=time.time())
        await self._ordered(domain, domid, order)

    async def withdraw(self, domain: str, domid: int) -> None:
        """Give up the order to keep a domain.

        Raises:
            JournalError: If that did not reach the disk.
        """
        await self._ordered(domain, domid, None)

    async def _ordered(self, domain: str, domid: int, order: Keep | None) -> None:
        known = self.entry(domain, domid)
        aside = known.aside if known else None
        if order is None and aside is None:
            await self._change(domain, None)
            return
        await self._change(domain, Entry(domid=domid, boot=self._boot, aside=aside, keep=order))

    async def forget(self, domain: str) -> None:
        """Forget a domain that is gone.

        Raises:
            JournalError: If that did not reach the disk.
        """
        await self._change(domain, None)

    async def _change(self, domain: str, entry: Entry | None) -> None:
        await unbroken(self._write(domain, entry))

    async def _write(self, domain: str, entry: Entry | None) -> None:
        path = self._directory / f"{domain}{_SUFFIX}"
        write: Callable[[], None] = partial(_remove, path)
        if entry is not None:
            write = partial(_replace, path, entry.model_dump_json(indent=1).encode() + b"\n")
        async with self._lock:
            try:
                await asyncio.to_thread(write)
            except OSError as error:
                raise JournalError(f"{path}: {error.strerror}") from error
            if entry is None:
                self._entries.pop(domain, None)
            else:
                self._entries[domain] = entry


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, content)


def _remove(path: Path) -> None:
    if path.exists():
        path.unlink()
        sync_directory(path.parent)


def _read(path: Path, boot: str) -> Entry | None:
    """Return what a file holds; None where it is gone."""
    try:
        return Entry.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = f"{path} cannot be read: {type(error).__name__}"
        return Entry(domid=0, boot=boot, keep=Keep(operator="", reason=why, unix_s=0.0))
