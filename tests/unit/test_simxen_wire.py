"""colod.simxen.colo: the guest's TCP, and the rewriter before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.output.compare.packet import parse_ethernet, parse_ip
from colod.output.compare.segment import parse_segment
from colod.simxen.colo import segments
from colod.simxen.colo.framing import Unwrapper, wrap
from colod.simxen.colo.kernel import RETRANSMIT_S, Kernel
from colod.simxen.colo.rewriter import Rewriter
from colod.simxen.colo.segments import ACK, FIN, MODULUS, PSH, RST, SYN, Segment
from colod.simxen.guest import Machine

MAC = bytes.fromhex("00163e000001")
CLIENT = bytes((10, 0, 1, 1, 0x4E, 0x20))
ISN = 1000


def _machine(path: Path, name: str = "machine") -> Machine:
    (path / name).mkdir()
    Machine.create(path / name, 64)
    return Machine(path / name)


def _kernel(path: Path, name: str = "machine") -> Kernel:
    return Kernel(_machine(path, name), lambda line: f"<{line}>\n".encode())


def say(kernel: Kernel, flags: int, seq: int, ack: int = 0, payload: bytes = b"") -> list[Segment]:
    """Send a segment of the client; return what the guest says to it."""
    return kernel.take(segments.encode(Segment(CLIENT, False, seq, ack, flags, payload), MAC))


def connect(kernel: Kernel) -> int:
    """Shake hands; return the guest's next sequence number."""
    (answer,) = say(kernel, SYN, ISN)
    assert (answer.flags, answer.ack) == (SYN | ACK, ISN + 1)
    assert say(kernel, ACK, ISN + 1, answer.seq + 1) == []
    return (answer.seq + 1) % MODULUS


@pytest.mark.parametrize("payload", [b"", b"get\n", b"odd", bytes(1400)])
def test_a_comparator_reads_in_a_frame_what_was_written(payload: bytes) -> None:
    segment = Segment(CLIENT, True, 7, 2**32 - 1, ACK | PSH, payload)
    frame = segments.encode(segment, MAC)
    assert segments.decode(frame) == segment
    ethernet = parse_ethernet(frame)
    assert ethernet is not None
    packet = parse_ip(frame, ethernet)
    assert packet is not None
    parsed = parse_segment(packet.body)
    assert parsed is not None
    assert (parsed.seq, parsed.ack, parsed.payload) == (7, 2**32 - 1, payload)


def test_requests_are_answered_in_their_order_whatever_segments_they_come_in(
    tmp_path: Path,
) -> None:
    kernel = _kernel(tmp_path)
    begin = connect(kernel)
    (half,) = say(kernel, ACK, ISN + 1, begin, b"a\nb")
    assert (half.payload, half.seq, half.ack) == (b"<a>\n", begin, ISN + 4)
    (rest,) = say(kernel, ACK, ISN + 4, begin, b"\n")
    assert (rest.payload, rest.seq) == (b"<b>\n", begin + 4)


def test_what_came_before_is_acknowledged_and_not_done_again(tmp_path: Path) -> None:
    kernel = _kernel(tmp_path)
    begin = connect(kernel)
    say(kernel, ACK, ISN + 1, begin, b"a\n")
    (again,) = say(kernel, ACK, ISN + 1, begin, b"a\n")
    assert (again.payload, again.ack) == (b"", ISN + 3)


def test_what_is_not_acknowledged_is_sent_again_by_whoever_has_the_memory(tmp_path: Path) -> None:
    machine = _machine(tmp_path)
    kernel = Kernel(machine, lambda line: f"<{line}>\n".encode())
    begin = connect(kernel)
    (first,) = say(kernel, ACK, ISN + 1, begin, b"a\n")
    survivor = Kernel(machine, lambda _: b"")
    survivor.load()
    assert [each.payload for each in survivor.due(RETRANSMIT_S)] == [first.payload]
    say(survivor, ACK, ISN + 3, begin + 4)
    assert survivor.due(10 * RETRANSMIT_S) == []


def test_a_connection_ends_at_both_ends(tmp_path: Path) -> None:
    kernel = _kernel(tmp_path)
    begin = connect(kernel)
    (fin,) = say(kernel, ACK | FIN, ISN + 1, begin)
    assert (fin.flags & FIN, fin.ack) == (FIN, ISN + 2)
    say(kernel, ACK, ISN + 2, begin + 1)
    (reset,) = say(kernel, ACK, ISN + 2, begin + 1)
    assert reset.flags & RST


def test_two_copies_differ_by_their_first_number_and_the_rewriter_makes_up_for_it(
    tmp_path: Path,
) -> None:
    ours, theirs = _kernel(tmp_path, "ours"), _kernel(tmp_path, "theirs")
    rewriter = Rewriter()
    rewriter.begin()

    def to_copy(frame: bytes) -> list[Segment | None]:
        said = theirs.take(rewriter.inbound(frame, MAC))
        out = (rewriter.outbound(segments.encode(each, MAC), MAC) for each in said)
        return [segments.decode(each) for each in out]

    def both(flags: int, seq: int, ack: int, payload: bytes = b"") -> tuple[Segment, Segment]:
        frame = segments.encode(Segment(CLIENT, False, seq, ack, flags, payload), MAC)
        (one,), (other,) = ours.take(frame), to_copy(frame)
        assert other is not None
        return one, other

    one, other = both(SYN, ISN, 0)
    assert one.seq != other.seq, "each has drawn its own"
    ours.take(segments.encode(Segment(CLIENT, False, ISN + 1, one.seq + 1, ACK), MAC))
    to_copy(segments.encode(Segment(CLIENT, False, ISN + 1, one.seq + 1, ACK), MAC))
    one, other = both(ACK, ISN + 1, one.seq + 1, b"a\n")
    assert one == other
    assert len(rewriter) == 1
    rewriter.failed_over()
    one, other = both(ACK, ISN + 3, one.seq + 4, b"b\n")
    assert one == other, "the survivor's connections go on"
    rewriter.checkpointed()
    assert len(rewriter) == 0


def test_frames_come_out_of_a_socket_whole() -> None:
    frames, unwrapper = [b"one", b"three"], Unwrapper()
    octets = b"".join(map(wrap, frames))
    assert [each for octet in octets for each in unwrapper.feed(bytes((octet,)))] == frames
    with pytest.raises(ValueError, match="frame of"):
        unwrapper.feed(bytes(4))
