"""The emulated plug counts as sch_plug does, its traps included."""

from hypothesis import given
from hypothesis import strategies as st

from colod.simxen.plug import Plug


def sent(plug: Plug[str]) -> list[str]:
    """Take out all that may leave."""
    found = []
    while (packet := plug.dequeue()) is not None:
        found.append(packet)
    return found


def fill(plug: Plug[str], *packets: str) -> None:
    for packet in packets:
        assert plug.enqueue(packet, 100)


def test_a_fresh_plug_is_closed() -> None:
    plug: Plug[str] = Plug()
    fill(plug, "a")
    assert sent(plug) == []


def test_release_one_lets_the_last_ended_epoch_leave_and_nothing_more() -> None:
    plug: Plug[str] = Plug()
    fill(plug, "a", "b")
    plug.buffer()
    fill(plug, "c")
    plug.release_one()
    assert sent(plug) == ["a", "b"]
    assert sent(plug) == []


def test_release_without_a_barrier_releases_nothing() -> None:
    plug: Plug[str] = Plug()
    fill(plug, "a")
    plug.release_one()
    assert sent(plug) == []


def test_two_barriers_before_a_release_leak_the_later_epoch() -> None:
    plug: Plug[str] = Plug()
    fill(plug, "n1", "n2")
    plug.buffer()
    fill(plug, "m1")
    plug.buffer()
    plug.release_one()
    # One packet is released, for the later epoch's count, and it is the earlier epoch's first.
    assert sent(plug) == ["n1"]
    fill(plug, "o1", "o2", "o3")
    plug.buffer()
    plug.release_one()
    assert sent(plug) == ["n2", "m1", "o1"]


def test_packets_queued_while_indefinite_shift_every_later_release() -> None:
    plug: Plug[str] = Plug()
    fill(plug, "a")
    plug.release_indefinite()
    fill(plug, "b")
    plug.buffer()
    fill(plug, "c")
    plug.buffer()
    plug.release_one()
    assert sent(plug) == ["a"], "the count of c's epoch released what was queued uncounted"


def test_release_indefinite_lets_everything_through_until_the_next_barrier() -> None:
    plug: Plug[str] = Plug()
    fill(plug, "a")
    plug.release_indefinite()
    assert sent(plug) == ["a"]
    fill(plug, "b")
    assert sent(plug) == ["b"]
    plug.buffer()
    fill(plug, "c")
    assert sent(plug) == []


def test_what_does_not_fit_is_dropped_and_not_counted() -> None:
    plug: Plug[str] = Plug(limit_bytes=150)
    assert plug.enqueue("a", 100)
    assert not plug.enqueue("b", 100)
    plug.buffer()
    plug.release_one()
    assert sent(plug) == ["a"]
    plug.limit(400)
    assert plug.enqueue("c", 100)
    assert plug.summary()["dropped_packets"] == 1


@given(st.lists(st.sampled_from(["packet", "epoch"]), max_size=60))
def test_one_barrier_and_one_release_at_a_time_never_let_an_open_epoch_out(
    steps: list[str],
) -> None:
    plug: Plug[str] = Plug()
    epoch = 0
    for step in steps:
        if step == "packet":
            fill(plug, str(epoch))
        else:
            plug.buffer()
            epoch += 1
            plug.release_one()
            assert all(int(packet) < epoch for packet in sent(plug))
            assert plug.summary()["queued_packets"] == 0
