"""Compare the output of two running copies of a guest, and decide what may leave.

The promise: outside a checkpoint no frame of the primary is released before the secondary has
produced the same: every byte of a TCP stream and every acknowledgement of it, or an equal packet.
Whatever is not proved is held; what is held too long, or differs, or needs too much room, asks for
a checkpoint.

Frames come with whole checksums (no checksum is left to the hardware), the secondary's after
`rewriter`. The caller carries decisions out in their order, asks `next_deadline` after each call,
and counts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable

from colod.output.compare.conversation import Conversation
from colod.output.compare.decisions import (
    Decision,
    Decisions,
    Drop,
    Lose,
    Reason,
    Release,
    RequestCheckpoint,
    Side,
)
from colod.output.compare.entry import Entry
from colod.output.compare.fragments import Reassembly
from colod.output.compare.identity import frame_identity, packet_identity
from colod.output.compare.limits import Limits
from colod.output.compare.multiset import Multiset
from colod.output.compare.packet import IPPROTO_TCP, IpPacket, parse_ethernet, parse_ip
from colod.output.compare.segment import RST, SYN, Segment, parse_segment
from colod.output.compare.silent import forget_silent


class Comparator:
    """The comparison of one pair of running copies, over all their interfaces' frames.

    Attributes:
        requests: How many checkpoints were asked for, by reason.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Begin right after a checkpoint: both copies are equal, and nothing of either waits."""
        self.requests: Counter[Reason] = Counter()
        self._limits = limits or Limits()
        self._decisions: list[Decision] = []
        self._waiting: OrderedDict[Entry, None] = OrderedDict()
        self._waiting_bytes = 0
        self._conversations: OrderedDict[Hashable, Conversation] = OrderedDict()
        self._stored_bytes = 0
        self._touched: set[Hashable] = set()
        self._multiset = Multiset()
        self._fragments = {side: Reassembly(self._limits.datagrams) for side in Side}
        self._requested: Reason | None = None
        self._is_overrun = False

    # -- what can be seen

    @property
    def held_frames(self) -> int:
        """How many packets of both sides wait."""
        return len(self._waiting)

    @property
    def held_bytes(self) -> int:
        """What all that is kept is counted as, in bytes; never above the limit."""
        return self._waiting_bytes + self._stored_bytes

    @property
    def connections(self) -> int:
        """How many pairs of TCP ends are remembered."""
        return len(self._conversations)

    @property
    def requested(self) -> Reason | None:
        """The checkpoint that was asked for and was not made yet."""
        return self._requested

    def next_deadline(self) -> float | None:
        """Return when to call `on_deadline`, in seconds; None for never."""
        if self._requested is not None or not self._waiting:
            return None
        return next(iter(self._waiting)).arrived + self._limits.timeout_s

    # -- events

    def primary(self, frame: bytes, now: float) -> Decisions:
        """Take a frame that the primary wants to send.

        Args:
            frame: An Ethernet frame without its check sequence.
            now: In seconds; never less than before.
        """
        return self._take(Side.PRIMARY, frame, now)

    def secondary(self, frame: bytes, now: float) -> Decisions:
        """Take a frame that the secondary would send: one that it made since the last checkpoint.

        Nothing here can tell an older one, and it would prove what the secondary has forgotten.

        Args:
            frame: An Ethernet frame without its check sequence, after `rewriter`.
            now: In seconds; never less than before.
        """
        return self._take(Side.SECONDARY, frame, now)

    def on_deadline(self, now: float) -> Decisions:
        """Ask for a checkpoint if a frame has waited too long."""
        deadline = self.next_deadline()
        if deadline is not None and now >= deadline:
            self._ask(next(iter(self._waiting)).overdue)
        return self._decided()

    def checkpoint_committed(self) -> Decisions:
        """Release all that the primary sent before the checkpoint, and drop the secondary's.

        Call it when both copies are suspended, all that they had sent before was taken in, and the
        secondary holds the primary's state; let them run on only afterwards.
        """
        self._empty()
        for key in self._touched:
            if key in self._conversations:
                conversation = self._conversations[key]
                self._stored_bytes -= conversation.stored_bytes
                conversation.checkpointed()
                self._stored_bytes += conversation.stored_bytes
        self._touched.clear()
        return self._decided()

    def owner_alone(self) -> Decisions:
        """Release all that is held: the witness confirmed that this host owns the guest alone.

        Then there is nothing to compare with. Begin anew with another comparator.
        """
        self._empty()
        self._forget_conversations()
        return self._decided()

    # -- taking frames in

    def _take(self, side: Side, frame: bytes, now: float) -> Decisions:
        entry = Entry(side, (frame,), now)
        if self._is_overrun or not self._has_room(entry):
            self._overrun(entry)
            return self._decided()
        ethernet = parse_ethernet(frame)
        packet = None if ethernet is None else parse_ip(frame, ethernet)
        if packet is None:
            settled = self._multiset.take(frame_identity(frame, ethernet), entry)
        elif packet.fragment is None:
            settled = self._compare(packet, entry)
        else:
            settled = self._reassemble(packet, entry)
        self._settle(settled)
        if not entry.is_settled:
            self._wait(entry)
        self._watch_room()
        return self._decided()

    def _reassemble(self, packet: IpPacket, entry: Entry) -> list[Entry]:
        """Compare the datagram that a fragment completes, if it does."""
        fragments = self._fragments[entry.side]
        if not fragments.has_room(packet):
            self._ask(Reason.SPACE)
            return []
        whole = fragments.add(packet, entry)
        if whole is None:
            return []
        datagram, entries = whole
        for each in entries:
            self._forget(each)
            each.is_settled = True
        frames = [frame for each in entries for frame in each.frames]
        # The time limit of the whole begins when it is whole; until then its pieces had theirs.
        combined = Entry(entry.side, frames, entry.arrived)
        self._settle(self._compare(datagram, combined))
        if not combined.is_settled:
            self._wait(combined)
        return []

    def _compare(self, packet: IpPacket, entry: Entry) -> list[Entry]:
        if packet.protocol == IPPROTO_TCP:
            segment = parse_segment(packet.body)
            # The text that a RST may carry is none of the stream; it is compared as a whole.
            if segment is not None and not (segment.flags & RST and segment.payload):
                return self._compare_segment(packet, segment, entry)
        return self._multiset.take(packet_identity(packet), entry)

    def _compare_segment(self, packet: IpPacket, segment: Segment, entry: Entry) -> list[Entry]:
        key = (packet.vlan, packet.source, packet.destination, segment.ports)
        conversation = self._conversation(key)
        if conversation is None:
            self._ask(Reason.SPACE)
            return []
        self._touched.add(key)
        if segment.flags & SYN:
            # It may begin a new connection, and so end the memory of an old one.
            self._stored_bytes -= conversation.stored_bytes
            flow = conversation.flow(entry.side, segment)
            self._stored_bytes += conversation.stored_bytes
        else:
            flow = conversation.flow(entry.side, segment)
        before = flow.stored_bytes
        if entry.side is Side.PRIMARY:
            header_at = packet.at if len(entry.frames) == 1 else 0
            settled = flow.primary(segment, entry, header_at)
        else:
            settled = flow.secondary(segment, entry)
        self._stored_bytes += flow.stored_bytes - before
        if flow.diverged is not None:
            self._ask(flow.diverged)
        return settled

    # -- bounds

    def _conversation(self, key: Hashable) -> Conversation | None:
        """Return the one of a pair of ends, as the newest; None if there is no room for it."""
        conversation = self._conversations.get(key)
        if conversation is None:
            if len(self._conversations) >= self._limits.flows and not self._forget_oldest():
                return None
            conversation = self._conversations[key] = Conversation(self._limits)
        else:
            self._conversations.move_to_end(key)
        return conversation

    def _forget_oldest(self) -> bool:
        """Forget a conversation that was silent for long and has nothing that waits."""
        forgotten = forget_silent(self._conversations, lambda each: each.is_idle)
        if forgotten is None:
            return False
        key, conversation = forgotten
        self._stored_bytes -= conversation.stored_bytes
        self._touched.discard(key)
        return True

    def _has_room(self, entry: Entry) -> bool:
        """Whether a packet can be held, and what it adds to a stream kept, within the bounds."""
        has_frames = len(self._waiting) < self._limits.held_frames
        return has_frames and self.held_bytes + 2 * entry.cost_bytes <= self._limits.held_bytes

    def _watch_room(self) -> None:
        """Forget what may be forgotten; ask for a checkpoint at half of a bound."""
        while self._stored_bytes > self._limits.history_bytes and self._forget_oldest():
            pass
        if (
            len(self._waiting) * 2 > self._limits.held_frames
            or self.held_bytes * 2 > self._limits.held_bytes
        ):
            self._ask(Reason.SPACE)

    def _overrun(self, entry: Entry) -> None:
        """Stop comparing until the next checkpoint: only frames of the primary are still kept."""
        if not self._is_overrun:
            self._is_overrun = True
            self._ask(Reason.SPACE)
            self._forget_conversations()
            self._multiset.clear()
            for reassembly in self._fragments.values():
                reassembly.clear()
            self._settle([each for each in self._waiting if each.side is Side.SECONDARY])
        if entry.side is Side.SECONDARY:
            self._decisions.append(Drop(entry.frames[0]))
        elif self._has_room(entry):
            self._wait(entry)
        else:
            self._decisions.append(Lose(entry.frames[0]))

    # -- keeping books

    def _wait(self, entry: Entry) -> None:
        self._waiting[entry] = None
        self._waiting_bytes += entry.cost_bytes

    def _forget(self, entry: Entry) -> None:
        """Take an entry out of those that wait, if it is among them."""
        if entry in self._waiting:
            del self._waiting[entry]
            self._waiting_bytes -= entry.cost_bytes

    def _settle(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._forget(entry)
            entry.is_settled = True
            decide = Release if entry.side is Side.PRIMARY else Drop
            self._decisions.extend(map(decide, entry.frames))

    def _empty(self) -> None:
        """Settle all that wait, in the order in which they came, and allow new requests."""
        self._settle(list(self._waiting))
        self._multiset.clear()
        for reassembly in self._fragments.values():
            reassembly.clear()
        self._requested = None
        self._is_overrun = False

    def _forget_conversations(self) -> None:
        self._conversations.clear()
        self._touched.clear()
        self._stored_bytes = 0

    def _ask(self, reason: Reason) -> None:
        """Ask for a checkpoint, unless one is already asked for."""
        if self._requested is None:
            self._requested = reason
            self.requests[reason] += 1
            self._decisions.append(RequestCheckpoint(reason))

    def _decided(self) -> Decisions:
        decisions = tuple(self._decisions)
        self._decisions.clear()
        return decisions
