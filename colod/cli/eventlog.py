"""What the daemon has recorded and records, as one sequence of events: read once, or followed.

The daemon's logs only grow, and their newest entries can be asked for. So nothing is lost and
nothing repeated if each reading goes back to an entry that was seen before, also over a restart of
the daemon, which reads its logs back from the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from colod.cli.daemon import newest
from colod.errors import DaemonUnreachable, OutcomeUnknown

if TYPE_CHECKING:
    from colod.rpc.admin_client import AdminClient
    from colod.v1.admin_pb2 import Automation, DrillRecord, HistoryEntry, StatusReply

Entry = TypeVar("Entry", "HistoryEntry", "DrillRecord")

_LIMITS: Final = (100, 1000, 10_000)
"""How many entries are asked for until one is among them that is known; the last is all there are.
They are asked for each second: all of them each time would be megabytes."""
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; exactly one of the last four is set.

    Attributes:
        unix_s: When, by the host's clock; of a drill, when it was begun.
        host: Where.
        guest: To which guest, "" for the host as a whole.
        change: A change of a guest's state.
        drill: A drill that has ended.
        automation: How it is from now on.
        reachable: Whether the daemon answers from now on.
    """

    unix_s: float
    host: str
    guest: str = ""
    change: HistoryEntry | None = None
    drill: DrillRecord | None = None
    automation: Automation | None = None
    reachable: bool | None = None


class EventLog:
    """The events of one guest, or of all, on the daemon's host."""

    def __init__(self, guest: str = "") -> None:
        """Know nothing yet."""
        self._changes: _Tail[HistoryEntry] = _Tail(
            lambda client, limit: newest(lambda most: client.history(guest, most), limit).entries
        )
        self._drills: _Tail[DrillRecord] = _Tail(
            lambda client, limit: newest(lambda most: client.drills(guest, most), limit).drills
        )
        self._pause = 0.0
        self._host = ""

    def past(
        self, client: AdminClient, *, since_unix_s: float | None, limit: int | None
    ) -> Sequence[Event]:
        """Return what was recorded, oldest first, and whether automation is paused now.

        Args:
            client: The daemon.
            since_unix_s: Nothing that is older; None for no bound.
            limit: At most the newest so many; None for no bound.
        """
        oldest_s = float("-inf") if since_unix_s is None else since_unix_s
        wanted = max(_LIMITS) if limit is None else limit
        events = merge(
            map(_of_change, self._changes.past(client, oldest_s, wanted)),
            map(_of_drill, self._drills.past(client, oldest_s, wanted)),
            self._automation(client.status()),
            key=attrgetter("unix_s"),
        )
        found = [event for event in events if event.unix_s >= oldest_s]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def follow(
        self, connect: Callable[[], AdminClient], *, retry_s: float = _RETRY_S
    ) -> Iterator[Event]:
        """Yield what happens after `past`, without end, as soon as it is seen.

        Args:
            connect: Connects to the daemon.
            retry_s: Seconds from one attempt to the next while the daemon does not answer.
        """
        is_lost = False
        while True:
            try:
                with connect() as client:
                    for reply in client.watch_status():
                        if is_lost:
                            is_lost = False
                            yield self._contact(reachable=True)
                        yield from self._news(client, reply)
            except (DaemonUnreachable, OutcomeUnknown):
                pass  # it was ended, or is restarted; a refusal is not meant for another attempt
            if not is_lost:
                is_lost = True
                yield self._contact(reachable=False)
            time.sleep(retry_s)

    def _news(self, client: AdminClient, reply: StatusReply) -> Iterator[Event]:
        """Yield what was recorded since the last look."""
        # Both are read before either counts as seen: the daemon may go away in between.
        changes, drills = self._changes.newest(client), self._drills.newest(client)
        yield from merge(
            map(_of_change, self._changes.take(changes)),
            map(_of_drill, self._drills.take(drills)),
            self._automation(reply),
            key=attrgetter("unix_s"),
        )

    def _automation(self, reply: StatusReply) -> Iterable[Event]:
        """Return how automation is, if it was not so before; who ended a pause is not kept."""
        self._host = reply.host
        automation = reply.automation
        # A pause that is not dated is still another thing than none.
        pause = (automation.since_unix_s or -1.0) if automation.paused else 0.0
        if pause == self._pause:
            return []
        self._pause = pause
        unix_s = automation.since_unix_s or time.time()
        return [Event(unix_s=unix_s, host=reply.host, automation=automation)]

    def _contact(self, *, reachable: bool) -> Event:
        return Event(unix_s=time.time(), host=self._host, reachable=reachable)


class _Tail(Generic[Entry]):
    """The end of one of the daemon's logs, up to what was seen of it."""

    def __init__(self, ask: Callable[[AdminClient, int], Sequence[Entry]]) -> None:
        """Begin before the first entry.

        Args:
            ask: Returns the newest so many entries, oldest first.
        """
        self._ask: Callable[[AdminClient, int], Sequence[Entry]] = ask
        self._seen: frozenset[bytes] = frozenset()

    def past(self, client: AdminClient, oldest_s: float, most: int) -> Sequence[Entry]:
        """Return at most the newest `most` entries; some older than `oldest_s` may be among them.

        What is left out counts as seen.
        """
        found = self._read(client, lambda entries: entries[0].unix_s < oldest_s, most)
        self.take(found)
        return found[max(0, len(found) - most) :]

    def newest(self, client: AdminClient) -> Sequence[Entry]:
        """Return the newest entries, as far back as to one that was seen."""
        return self._read(client, lambda entries: any(map(self._is_seen, entries)), max(_LIMITS))

    def take(self, found: Sequence[Entry]) -> Sequence[Entry]:
        """Return those of the newest entries that came after all that was seen; now they are."""
        known = [index for index, entry in enumerate(found) if self._is_seen(entry)]
        self._seen = frozenset(map(_key, found))
        return found[known[-1] + 1 :] if known else found

    def _read(
        self, client: AdminClient, suffices: Callable[[Sequence[Entry]], bool], most: int
    ) -> Sequence[Entry]:
        """Return entries up to the newest that suffice, up to `most`, or all there are."""
        found: Sequence[Entry] = []
        for limit in _LIMITS:
            found = self._ask(client, limit)
            if len(found) < limit or limit >= most or suffices(found):
                break
        return found

    def _is_seen(self, entry: Entry) -> bool:
        return _key(entry) in self._seen


def _key(entry: HistoryEntry | DrillRecord) -> bytes:
    return entry.SerializeToString(deterministic=True)


def _of_change(entry: HistoryEntry) -> Event:
    return Event(unix_s=entry.unix_s, host=entry.host, guest=entry.guest, change=entry)


def _of_drill(record: DrillRecord) -> Event:
    return Event(unix_s=record.unix_s, host=record.host, guest=record.guest, drill=record)
