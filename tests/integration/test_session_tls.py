"""Two real sessions over TLS: what replaced, foreign and missing certificates do to a guest."""

from pathlib import Path

import pytest

from colod.model import HostName
from colod.rpc import pki
from tests.integration.session_pair import Pair, State
from tests.integration.simxen_hosts import until

HOSTS = (HostName("alpha"), HostName("beta"))
TLS = {"kind": "tls", "options": {"listen": "127.0.0.1"}}


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    return make_pki(tmp_path / "pki")


def make_pki(directory: Path) -> Path:
    pki.create_authority(directory)
    for host in HOSTS:
        pki.issue_certificate(directory, host)
    return directory


def test_a_guest_is_carried_while_its_certificates_are_replaced_and_lost(
    tmp_path: Path, certificates: Path
) -> None:
    pair = Pair(tmp_path, transport=TLS, pki=certificates)
    try:
        pair.start_sender()
        acked = pair.sending.wait_acked(3).progress.acked_epoch
        for host in HOSTS:
            pki.issue_certificate(certificates, host, force=True)
        acked = pair.sending.wait_acked(acked + 3).progress.acked_epoch
        for path in certificates.iterdir():
            path.unlink()
        status = pair.sending.wait_acked(acked + 3)
        assert status.state == State.SESSION_STATE_REPLICATING
    finally:
        pair.end()
        print(pair.logs())


def test_a_sender_of_another_authority_is_refused_and_its_guest_runs_on(
    tmp_path: Path, certificates: Path
) -> None:
    foreign = make_pki(tmp_path / "foreign")
    (foreign / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    pair = Pair(tmp_path, transport=TLS, pki=certificates)
    try:
        pair.changes["pki"] = foreign
        pair.start_sender()
        status = pair.sending.wait_state(State.SESSION_STATE_FAILED)
        assert status.error_code == "peer.refused"
        until(lambda: "it refused this side: unknown ca" in pair.logs(), "the sender says why")
        log = pair.receive_dir / "log"
        until(lambda: "certificate is not believed" in log.read_text(), "the receiver says why")
        assert not pair.receiving.newest().peer_connected
        assert pair.secondary.guest("g1--incoming") is None
        until(pair.primary.runs, "the guest runs")
    finally:
        pair.end()
        print(pair.logs())
