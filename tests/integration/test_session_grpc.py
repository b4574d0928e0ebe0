"""Two real sessions over gRPC: certificates are replaced and lost, a foreign host is refused."""

import signal
from pathlib import Path

import pytest

from colod.model import HostName
from colod.rpc import pki
from tests.integration.session_pair import Pair, State
from tests.integration.simxen_hosts import until

HOSTS = (HostName("alpha"), HostName("beta"))
GRPC = {"kind": "grpc", "options": {"listen": "127.0.0.1"}}


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    return make_pki(tmp_path / "pki", *HOSTS)


def make_pki(directory: Path, *hosts: HostName) -> Path:
    pki.create_authority(directory)
    for host in hosts:
        pki.issue_certificate(directory, host)
    return directory


def test_a_guest_is_carried_by_grpc_and_a_killed_receiver_is_a_lost_peer(
    tmp_path: Path, certificates: Path
) -> None:
    pair = Pair(tmp_path, transport=GRPC, pki=certificates)
    try:
        pair.start_sender()
        acked = pair.sending.wait_acked(3).progress.acked_epoch
        for path in certificates.iterdir():
            path.unlink()
        status = pair.sending.wait_acked(acked + 3)
        assert status.state == State.SESSION_STATE_REPLICATING
        pair.receiver.send_signal(signal.SIGKILL)
        lost = pair.sending.wait_state(State.SESSION_STATE_PEER_LOST)
        assert lost.error_code == "peer.unreachable"
        assert lost.toolstack_pid, "the sender keeps xl, and with it the guest, as they are"
    finally:
        pair.end()
        print(pair.logs())


def test_a_released_sender_tells_its_peer_over_grpc(tmp_path: Path, certificates: Path) -> None:
    pair = Pair(tmp_path, transport=GRPC, pki=certificates)
    try:
        pair.start_sender()
        pair.receiving.wait_acked(3)
        pair.sending.release()
        there = pair.receiving.wait_state(State.SESSION_STATE_PEER_LOST)
        assert there.error_code == "peer.released"
        until(pair.primary.runs, "the guest runs on")
    finally:
        pair.end()
        print(pair.logs())


def test_a_sender_with_another_hosts_name_is_refused_and_its_guest_runs_on(
    tmp_path: Path, certificates: Path
) -> None:
    foreign = make_pki(tmp_path / "foreign", HostName("gamma"))
    for ending in ("pem", "key"):
        (foreign / f"alpha.{ending}").write_bytes((foreign / f"gamma.{ending}").read_bytes())
        (foreign / f"alpha.{ending}").chmod(0o600)
    both = (certificates / "ca.pem").read_bytes() + (foreign / "ca.pem").read_bytes()
    for directory in (certificates, foreign):
        (directory / "ca.pem").write_bytes(both)
    pair = Pair(tmp_path, transport=GRPC, pki=certificates)
    try:
        pair.changes["pki"] = foreign
        pair.start_sender()
        status = pair.sending.wait_state(State.SESSION_STATE_FAILED)
        assert status.error_code == "peer.refused"
        until(lambda: "gamma, not the configured peer alpha" in pair.logs(), "both say why")
        assert not pair.receiving.newest().peer_connected
        until(pair.primary.runs, "the guest runs")
    finally:
        pair.end()
        print(pair.logs())
