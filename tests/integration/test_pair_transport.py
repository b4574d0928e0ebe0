"""A pair whose sessions reach each other by TLS: a host dies, certificates are replaced."""

from __future__ import annotations

from colod.model import HostName
from colod.rpc.pki import issue_certificate
from tests.integration.pair_trial import MakeTrial
from tests.pair import NAMES, until


def test_a_pair_over_tls_takes_over_and_pairs_again_with_new_certificates(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(transport="tls", suspect_s=3.0, silence_s=2.0, resync="automatic")
    trial.replicate()
    for name in NAMES:
        issue_certificate(trial.pair.root / "pki", HostName(name), force=True)
    trial.until_epochs_go_on()
    counter = trial.pair.ask_guest(limit_s=30)["counter"]
    target = trial.acked() + 5
    until(lambda: trial.acked() >= target, "that state is acknowledged")
    trial.alpha.die()
    trial.until_state(trial.beta, "ALONE")
    assert trial.pair.ask_guest(limit_s=30)["counter"] > counter
    trial.alpha.start_daemon()
    trial.until_replicating()
    trial.until_epochs_go_on(trial.beta)
    assert [trial.status(host).owner for host in trial.pair.hosts] == ["beta", "beta"]
