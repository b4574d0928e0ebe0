"""Two real sessions over a real ssh and sshd: a guest is carried, and a dead ssh is no end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.session_pair import Pair, State
from tests.integration.simxen_hosts import until
from tests.ssh_server import HOST, LIMITED, SSHD, SshServer

pytestmark = pytest.mark.skipif(not SSHD.exists(), reason="no sshd (Debian: openssh-server)")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    with SshServer(folder).running() as running:
        yield running


def over(server: SshServer) -> dict[str, object]:
    return {"kind": "ssh", "options": {"host": HOST, "config": str(server.config)}}


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def test_a_guest_is_carried_by_ssh_and_the_death_of_ssh_is_a_lost_peer(
    tmp_path: Path, server: SshServer
) -> None:
    pair = Pair(tmp_path, transport=over(server))
    try:
        pair.start_sender()
        status = pair.sending.wait_acked(3)
        assert status.state == State.SESSION_STATE_REPLICATING
        (ssh,) = children(status.pid)
        os.kill(ssh, signal.SIGKILL)
        for daemon in (pair.sending, pair.receiving):
            lost = daemon.wait_state(State.SESSION_STATE_PEER_LOST)
            assert lost.error_code == "peer.unreachable"
        copy = pair.secondary.guest("g1--incoming")
        assert copy is not None
        assert not copy["running"]
    finally:
        pair.end()
        print(pair.logs())


def test_a_key_that_may_forward_nothing_leaves_the_guest_running_and_says_what_to_do(
    tmp_path: Path, server: SshServer
) -> None:
    server.authorize("restrict")
    assert "port-forwarding" in LIMITED
    pair = Pair(tmp_path, transport=over(server))
    try:
        pair.start_sender()
        status = pair.sending.wait_state(State.SESSION_STATE_FAILED)
        assert status.error_code == "peer.refused"
        until(lambda: "AllowTcpForwarding" in pair.logs(), "the sender says what to do")
        until(pair.primary.runs, "the guest runs")
    finally:
        pair.end()
        print(pair.logs())
