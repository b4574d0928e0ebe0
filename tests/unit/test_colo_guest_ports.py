"""The ports of a guest follow from its name, and are nobody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colod.errors import NetworkError
from colod.output.colo.guest_ports import (
    BLOCK_PORTS,
    BLOCKS,
    FIRST_PORT,
    LAST_PORT,
    choose_ports,
    numbers,
)

ALL = frozenset(range(FIRST_PORT, LAST_PORT + 1))


@given(st.text(min_size=1, max_size=40), st.sets(st.sampled_from(sorted(ALL)), max_size=60))
def test_they_are_in_the_range_all_different_and_none_is_taken(name: str, taken: set[int]) -> None:
    ports = numbers(choose_ports(name, taken))
    assert len(set(ports)) == 6
    assert set(ports) <= ALL - taken
    assert ports == numbers(choose_ports(name, taken)), "the same again"


def test_both_hosts_choose_alike_whatever_else_they_have() -> None:
    assert choose_ports("web", {22, 7411, 8002}) == choose_ports("web", {111})
    assert choose_ports("web", ()).mirror == 21648


def test_one_taken_port_moves_all_of_them() -> None:
    first = choose_ports("web", ())
    second = choose_ports("web", {first.notify})
    assert second.mirror == first.mirror + BLOCK_PORTS
    assert not set(numbers(first)) & set(numbers(second))


def test_after_the_last_block_comes_the_first() -> None:
    free = range(FIRST_PORT, FIRST_PORT + 6)
    assert numbers(choose_ports("web", ALL - set(free))) == tuple(free)


def test_as_many_guests_as_there_are_blocks_have_ports_and_no_more() -> None:
    taken: set[int] = set()
    for number in range(BLOCKS):
        taken |= set(numbers(choose_ports(f"g{number}", taken)))
    assert len(taken) == 6 * BLOCKS
    with pytest.raises(NetworkError, match="no 6 ports in a row are free in 21000 to 22023"):
        choose_ports("late", taken)
