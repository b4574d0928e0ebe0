"""What one copy of a guest has said in one direction of one TCP connection."""

from __future__ import annotations

from dataclasses import dataclass, fields

from colod.output.compare.segment import ACK, Segment, Terms


@dataclass(slots=True)
class Half:
    """What one copy has said. Positions are unwrapped, in the primary's sequence space.

    Attributes:
        isn: The sequence number of its SYN, not shifted.
        terms: Of its newest SYN.
        is_begun: Whether it sent anything but SYNs.
        end: Behind the last byte of the stream.
        fin: Where FIN stands.
        resets: What identifies each RST.
        ack: The highest acknowledgement.
        edges: The right edge of the window for each of the flow's window shifts.
    """

    isn: int | None = None
    terms: Terms | None = None
    is_begun: bool = False
    end: int | None = None
    fin: int | None = None
    resets: frozenset[tuple[int, int]] = frozenset()
    ack: int | None = None
    edges: list[int] | None = None

    def copy_from(self, other: Half) -> None:
        """Become equal to the other half."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def note_end(self, end: int, *, is_fin: bool) -> None:
        """Take note of bytes up to `end`, and of a FIN there."""
        if self.end is None or end > self.end:
            self.end = end
        if is_fin:
            self.fin = end

    def note_ack(self, ack: int, edges: list[int], *, is_each_possible: bool) -> None:
        """Take note of an acknowledgement and of the window's right edges.

        Args:
            ack: The acknowledgement.
            edges: For each of the flow's window shifts.
            is_each_possible: Whether these shifts are all that there can be. If they are only the
                ends of a range, the edges have to be of one segment: a window that is below the
                greatest of several at both ends may still be above all of them in between.
        """
        if self.ack is None or self.edges is None:
            self.edges = edges
        elif is_each_possible:
            self.edges = list(map(max, self.edges, edges))
        elif ack >= self.ack:
            self.edges = edges
        self.ack = ack if self.ack is None else max(self.ack, ack)


def ends_differ(ours: Half, theirs: Half) -> bool:
    """Whether one of the two sent bytes beyond a FIN, or the FINs stand apart."""
    fins = {half.fin for half in (ours, theirs) if half.fin is not None}
    if not fins:
        return False
    ends = [half.end for half in (ours, theirs) if half.end is not None]
    return len(fins) > 1 or any(end > fin for end in ends for fin in fins)


def resets_differ(ours: Half, theirs: Half) -> bool:
    """Whether each of the two reset what the other one did not."""
    return bool(ours.resets - theirs.resets) and bool(theirs.resets - ours.resets)


def terms_differ(ours: Half, theirs: Half) -> bool:
    """Whether both sent a SYN, and not on the same terms."""
    return None not in (ours.terms, theirs.terms) and ours.terms != theirs.terms


def reset_identity(segment: Segment) -> tuple[int, int]:
    """Return what makes two RSTs equal.

    Sequence number 0 with ACK refuses a SYN, and only its acknowledgement says which one; of any
    other the acknowledgement is a matter of timing. Spec: RFC 9293 section 3.5.2.
    """
    is_refusal = segment.seq == 0 and segment.flags & ACK
    return (segment.seq, segment.ack if is_refusal else 0)
