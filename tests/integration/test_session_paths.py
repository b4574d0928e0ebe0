"""Real sessions whose link breaks: it goes on over whatever path there is, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.session_pair import Pair, State, Status
from tests.integration.simxen_hosts import until
from tests.integration.tcp_cable import Cable

SILENCE_S = 20.0
RESUME_BYTES = 4 << 20
TWO_PATHS = {
    "kind": "tcp",
    "options": {"listen": "127.0.0.1"},
    "backup": {"listen": "127.0.0.2"},
}


def _has_mended(times: int, link: Any) -> bool:
    return int(link.resumed) >= times


class Cabled:
    """A pair of sessions with a cable on each path."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.cables: list[Cable] = []
        given: dict[str, Any] = {"resume_bytes": RESUME_BYTES, "silence_s": SILENCE_S}
        self.pair = Pair(directory, **given | changes)
        self.pair.start_sender(addresses=self._cable)
        self.pair.sending.wait_acked(3)

    def _cable(self, target: str) -> str:
        self.cables.append(Cable(target))
        return self.cables[-1].address

    def until_link(self, fits: Callable[[Any], bool], what: str) -> Status:
        """Wait until both sides say so of their link."""
        self.pair.receiving.wait(lambda status: fits(status.link), f"receiver: {what}")
        return self.pair.sending.wait(lambda status: fits(status.link), f"sender: {what}")

    def go_on(self) -> None:
        """Check that epochs go on, on the copy that there was."""
        before = self.pair.sending.newest()
        after = self.pair.sending.wait_acked(before.progress.acked_epoch + 5)
        assert after.state == State.SESSION_STATE_REPLICATING
        there = self.pair.receiving.newest()
        assert there.state == State.SESSION_STATE_REPLICATING
        assert there.second_pause
        assert after.pid == before.pid

    def hand_over(self) -> None:
        """Check that xl takes the copy over: it had whole epochs only, each once."""
        self.pair.receiving.hand_over()
        self.pair.receiving.wait(lambda status: status.handed_over, "xl lets the copy go")
        until(lambda: self.pair.secondary.guest("g1") is not None, "the copy has its name")

    def close(self) -> None:
        """End everything."""
        self.pair.end()
        for cable in self.cables:
            cable.close()
        print(self.pair.logs())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Cabled]]:
    made: list[Cabled] = []

    def make_one(**changes: Any) -> Cabled:
        made.append(Cabled(tmp_path, **changes))
        return made[-1]

    yield make_one
    for each in made:
        each.close()


@pytest.mark.parametrize("codec", ["off", "zstd-1"])
def test_a_link_that_is_reset_again_and_again_goes_on_and_the_copy_is_sound(
    make: Callable[..., Cabled], codec: str
) -> None:
    cabled = make(deltas={"codec": codec})
    for count in range(1, 6):
        cabled.cables[0].cut()
        status = cabled.until_link(partial(_has_mended, count), "mended")
        assert status.link.may_resume
        assert status.link.path == "primary"
        cabled.go_on()
    assert cabled.cables[0].made >= 6
    cabled.hand_over()


def test_a_path_that_is_gone_is_replaced_by_the_other_one_and_back(
    make: Callable[..., Cabled],
) -> None:
    cabled = make(transport=TWO_PATHS)
    first, second = cabled.cables
    assert cabled.pair.sending.newest().link.path == "primary"
    first.pull()
    cabled.until_link(lambda link: link.path == "backup", "over the backup")
    cabled.go_on()
    first.put_back()
    cabled.until_link(lambda link: link.path == "primary", "over the first path again")
    cabled.go_on()
    second.pull()
    cabled.go_on()
    cabled.hand_over()


def test_a_path_that_falls_silent_is_replaced_before_the_peer_counts_as_lost(
    make: Callable[..., Cabled],
) -> None:
    cabled = make(transport=TWO_PATHS, silence_s=8.0)
    cabled.cables[0].stall()
    status = cabled.until_link(lambda link: link.path == "backup", "over the backup")
    assert "nothing heard for 4 s" in status.link.broken_by
    cabled.go_on()


def test_both_paths_gone_is_the_loss_of_the_peer_and_the_copy_is_whole(
    make: Callable[..., Cabled],
) -> None:
    cabled = make(transport=TWO_PATHS, silence_s=3.0)
    for cable in cabled.cables:
        cable.pull()
    for side in (cabled.pair.sending, cabled.pair.receiving):
        lost = side.wait_state(State.SESSION_STATE_PEER_LOST)
        assert lost.error_code == "peer.unreachable"
        assert "no other connection to 127.0.0.1" in lost.error
    for cable in cabled.cables:
        cable.put_back()
    cabled.hand_over()


def test_a_session_that_does_not_mend_loses_its_peer_at_the_first_break(
    make: Callable[..., Cabled],
) -> None:
    cabled = make(resume_bytes=0)
    assert not cabled.pair.sending.newest().link.may_resume
    cabled.cables[0].cut()
    for side in (cabled.pair.sending, cabled.pair.receiving):
        assert side.wait_state(State.SESSION_STATE_PEER_LOST).error_code == "peer.unreachable"


def test_a_release_while_there_is_no_link_is_obeyed(make: Callable[..., Cabled]) -> None:
    cabled = make()
    cabled.cables[0].pull()
    cabled.pair.sending.wait(lambda status: status.link.HasField("broken_s"), "it is broken")
    cabled.pair.sending.release()
    until(lambda: cabled.pair.remus.poll() is not None, "xl resumes the guest")
    until(cabled.pair.primary.runs, "the guest runs on")


def test_a_session_tells_how_its_packets_are_marked_and_who_keeps_its_rate(
    make: Callable[..., Cabled],
) -> None:
    options = {"listen": "127.0.0.1", "dscp": "af21"}
    cabled = make(transport={"kind": "tcp", "options": options}, rate_bytes_per_s=50_000_000)
    ours, theirs = cabled.pair.sending.newest().link, cabled.pair.receiving.newest().link
    assert (ours.dscp, ours.rate_bytes_per_s, ours.rate_by) == (18, 50_000_000, "kernel")
    assert (theirs.dscp, theirs.rate_bytes_per_s) == (18, 0)
    cabled.cables[0].cut()
    mended = cabled.until_link(partial(_has_mended, 1), "mended").link
    assert (mended.dscp, mended.rate_by) == (18, "kernel")
