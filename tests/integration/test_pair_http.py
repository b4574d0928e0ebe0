"""What the daemons of a pair answer over HTTP: who runs the guest, and how old its replica is."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from functools import partial
from typing import Any

from colod.observe.checks import FRESH_S
from tests.integration.pair_trial import MakeTrial
from tests.pair import SimulatedHost, until

VOLATILE = {"lag", "gate", "progress", "decided_age_s", "witness", "signals", "standstill_s"}
"""What differs from one look at a protection to the next."""


def ask(host: SimulatedHost, target: str) -> tuple[int, Any]:
    """Return the status and the object that a host answers."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{host.http_port}{target}", timeout=20
        ) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def status_of(host: SimulatedHost, target: str) -> int:
    return ask(host, target)[0]


def until_it_says(expected: int, host: SimulatedHost, target: str) -> None:
    until(lambda: status_of(host, target) == expected, f"{host.name}{target} is {expected}")


def test_each_host_says_what_it_is_for_the_guest(make_trial: MakeTrial) -> None:
    trial = make_trial(hold="automatic", suspect_s=8.0, silence_s=6.0)
    assert status_of(trial.alpha, "/protected") == 503
    trial.replicate()
    for host in trial.pair.hosts:
        trial.until_state(host, "PROTECTED")
    alpha, beta = trial.alpha, trial.beta
    for host in (alpha, beta):
        for target in ("/readyz", "/health", "/protected", "/protected?guest=g1"):
            until_it_says(200, host, target)
        assert status_of(host, "/primary?guest=g2") == 404
    assert status_of(alpha, "/primary?guest=g1") == 200
    assert status_of(beta, "/primary?guest=g1") == 503
    assert status_of(beta, "/secondary?guest=g1&lag=60") == 200
    assert status_of(alpha, "/secondary?guest=g1&lag=60") == 503
    code, said = ask(beta, "/secondary?guest=g1&lag=0")
    assert code == 503
    assert "want at most 0 s" in said["why"]
    assert said["guests"][0]["lag_s"] > 0
    assert said["simulated"] is True
    assert "alpha: simulated Xen" in alpha.ctl("top", "--count", "1")


def test_status_and_history_are_those_of_colodctl(make_trial: MakeTrial) -> None:
    trial = make_trial(hold="automatic", suspect_s=8.0, silence_s=6.0)
    trial.replicate()
    for host in trial.pair.hosts:
        trial.until_state(host, "PROTECTED")
        # Each is asked at a moment of its own, and the state may change in between.
        until(partial(are_alike, host), f"/status and colodctl status agree on {host.name}")
        until(partial(tell_one_history, host), f"so do their histories on {host.name}")


def are_alike(host: SimulatedHost) -> bool:
    """Whether both documents say the same, but for what never stands still."""
    documents = [ask(host, "/status")[1], json.loads(host.ctl("status", "--json"))]
    for document in documents:
        (only,) = document["protections"]
        assert only.keys() >= VOLATILE
        document["protections"] = {k: v for k, v in only.items() if k not in VOLATILE}
    return bool(documents[0] == documents[1])


def tell_one_history(host: SimulatedHost) -> bool:
    """Whether both tell the same changes of state."""
    printed = json.loads(host.ctl("history", "g1", "--json"))
    return bool(ask(host, "/history?guest=g1")[1] == printed)


def test_a_replica_whose_primary_is_lost_grows_older_until_it_is_the_guest(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(suspect_s=3.0, silence_s=2.0, extra='takeover = "manual"\n')
    trial.replicate()
    trial.alpha.die()
    trial.until_state(trial.beta, "MANUAL_HOLD")
    until_it_says(200, trial.beta, "/secondary?guest=g1")
    until_it_says(503, trial.beta, "/secondary?guest=g1&lag=2")
    assert status_of(trial.beta, "/health") == status_of(trial.beta, "/primary?guest=g1") == 503
    with trial.witness_away():  # alpha may have gone on alone, for all that beta knows
        until_it_says(503, trial.beta, "/secondary?guest=g1")
    trial.beta.ctl("failover", "g1", "--yes")
    until_it_says(200, trial.beta, "/primary?guest=g1")
    assert status_of(trial.beta, "/secondary?guest=g1") == 503


def test_nothing_holds_once_xl_hangs(make_trial: MakeTrial) -> None:
    trial = make_trial(hold="automatic", suspect_s=8.0, silence_s=6.0)
    trial.replicate()
    trial.until_state(trial.alpha, "PROTECTED")
    targets = ("/readyz", "/health", "/protected", "/primary?guest=g1")
    for target in targets:
        until_it_says(200, trial.alpha, target)
    trial.alpha.xl("sim", "hang", "list")
    until_it_says(503, trial.alpha, "/readyz")
    for target in targets:
        code, said = ask(trial.alpha, target)
        assert code == 503
        assert f"want at most {FRESH_S:g} s" in said["why"]
    assert status_of(trial.alpha, "/status") == 200
    until_it_says(200, trial.alpha, "/readyz")  # xl was given up, and asked anew
