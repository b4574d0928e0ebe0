"""Copies that lost their guest, kept and discarded by operators, on real daemons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import SimulatedHost, until

LIMITS = {"suspect_s": 8.0, "silence_s": 6.0}
ASIDE = "g1--quarantine-3"

pytestmark = pytest.mark.timeout(600)


def copies(host: SimulatedHost) -> list[dict[str, Any]]:
    """Return what a host says of the copies that it keeps."""
    found: list[dict[str, Any]] = json.loads(host.ctl("quarantine", "list", "--json"))["copies"]
    return found


def lose_the_guest(trial: Trial) -> None:
    """Have beta take the guest over from alpha, whose copy is left paused; alpha is back then."""
    xl = trial.xl(trial.alpha)
    trial.alpha.xl("pause", "g1")
    trial.kill_daemon(trial.alpha)
    for pid in [*trial.alpha.session_pids(), xl]:
        trial.kill(pid)
    trial.until_state(trial.beta, "ALONE")
    trial.alpha.start_daemon()


def refuse_a_stranger(trial: Trial) -> None:
    """Make a domain on alpha that has such a name, and see that it is not taken for a copy."""
    name, config = "g1--quarantine-2", trial.pair.root / "stranger.cfg"
    config.write_text(f'name="{name}"\nmemory=64\nsim_memory_pages=16\n')
    trial.alpha.xl("create", "-p", str(config))
    (copy,) = copies(trial.alpha)
    assert (copy["kind"], copy["generation"]) == ("stranger", None)
    refused = trial.alpha.try_ctl("quarantine", "discard", name, "--yes")
    assert refused.returncode == 4
    assert "xl destroy" in refused.stderr
    trial.alpha.xl("destroy", name)


def test_a_copy_that_was_put_aside_goes_only_while_the_owner_has_the_guest(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(**LIMITS, extra='quarantine = "keep"\n')
    trial.replicate()
    refuse_a_stranger(trial)
    lose_the_guest(trial)
    until(lambda: trial.seen(trial.alpha, ASIDE), "the copy is put aside")
    trial.until_state(trial.alpha, "STOPPED")
    (copy,) = copies(trial.alpha)
    assert (copy["domain"], copy["kind"], copy["generation"]) == (ASIDE, "aside", 3)
    assert "beta owns the guest" in copy["why"]
    assert copy["memory_bytes"] > 0
    assert copy["since_unix_s"] is not None
    assert copies(trial.beta) == []
    discard = ("quarantine", "discard", ASIDE)

    # An order outlasts the daemon, and only a reason overrides it.
    trial.alpha.ctl("quarantine", "keep", ASIDE, "--reason", "evidence")
    trial.kill_daemon(trial.alpha)
    trial.alpha.start_daemon()
    trial.until_state(trial.alpha, "STOPPED")
    refused = trial.alpha.try_ctl(*discard, "--yes")
    assert refused.returncode == 4
    assert "evidence" in refused.stderr
    assert copies(trial.alpha)[0]["keep"]["reason"] == "evidence"

    # It may be the last copy: the owner does not answer, or the witness does not.
    trial.kill_daemon(trial.beta)
    refused = trial.alpha.try_ctl(*discard, "--yes", "--force-reason", "no room")
    assert refused.returncode == 4
    assert "this may be the last copy" in refused.stderr
    trial.beta.start_daemon()
    trial.until_state(trial.beta, "ALONE")
    with trial.witness_away():
        refused = trial.alpha.try_ctl(*discard, "--yes", "--force-reason", "no room")
        assert refused.returncode == 4
        assert "the witness does not answer" in refused.stderr
    assert trial.seen(trial.alpha, ASIDE) is not None

    # Such a copy takes memory and nothing else: the host is the guest's secondary again.
    trial.beta.ctl("resume", "g1", "--no-wait")
    trial.until_replicating()
    foretold = json.loads(
        trial.alpha.ctl(*discard, "--dry-run", "--force-reason", "no room", "--json")
    )
    assert len(foretold["plan"]) == 2
    assert trial.seen(trial.alpha, ASIDE) is not None
    trial.alpha.ctl(*discard, "--yes", "--force-reason", "no room")
    assert trial.seen(trial.alpha, ASIDE) is None
    assert copies(trial.alpha) == []
    assert trial.alpha.try_ctl(*discard, "--yes").returncode == 6
    trial.until_epochs_go_on(trial.beta)


def test_an_order_keeps_a_copy_that_the_policy_would_have_discarded(make_trial: MakeTrial) -> None:
    trial = make_trial(**LIMITS)
    trial.replicate()
    trial.alpha.ctl("quarantine", "keep", "g1", "--reason", "to be looked at")
    assert trial.beta.try_ctl("quarantine", "keep", "g1", "--reason", "x").returncode == 6
    assert copies(trial.alpha) == []
    lose_the_guest(trial)
    until(lambda: trial.seen(trial.alpha, ASIDE), "the copy is put aside")
    trial.until_state(trial.alpha, "STOPPED")
    (copy,) = copies(trial.alpha)
    assert copy["keep"]["reason"] == "to be looked at"
    assert trial.alpha.try_ctl("quarantine", "discard", ASIDE, "--yes").returncode == 4
    trial.alpha.ctl("quarantine", "keep", ASIDE, "--withdraw")
    trial.alpha.ctl("quarantine", "discard", ASIDE, "--yes")
    assert trial.seen(trial.alpha, ASIDE) is None
