"""What a reload of the configuration changes, and what it leaves to a restart."""

from __future__ import annotations

from typing import Any

from colod.config import Config
from colod.daemon.limits import Limits
from colod.daemon.reload import CHANGEABLE, differences, merged, needs_restart


def config(**tables: dict[str, Any]) -> Config:
    base: dict[str, dict[str, Any]] = {
        "host": {"name": "alpha"},
        "peer": {"name": "beta", "address": "127.0.0.1:7411"},
        "witness": {"kind": "file", "directory": "/var/lib/x"},
    }
    for name, table in tables.items():
        base[name] = base.get(name, {}) | table
    return Config.model_validate(base)


def test_nothing_differs_between_equal_configurations() -> None:
    assert not differences(config(), config())


def test_differences_are_named_by_their_paths() -> None:
    fresh = config(
        log={"level": "debug"},
        witness={"directory": "/elsewhere"},
        detection={"suspect_after_s": 9.0},
    )
    assert set(differences(config(), fresh)) == {
        "log.level",
        "witness.options.directory",
        "detection.suspect_after_s",
    }


def test_only_tables_that_are_used_anew_each_time_may_change() -> None:
    paths = ["log.level", "policy.resync", "detection.suspect_after_s", "peer.address"]
    assert needs_restart(paths) == ["peer.address"]


def test_a_merged_configuration_has_the_rest_of_the_old_one() -> None:
    old = config()
    fresh = config(log={"level": "debug"}, peer={"address": "127.0.0.1:1"})
    both = merged(old, fresh)
    assert both.log.level == "debug"
    assert both.peer.address == old.peer.address
    assert not needs_restart(differences(old, both))
    assert {path.partition(".")[0] for path in differences(old, both)} <= CHANGEABLE


def test_limits_change_for_everyone_who_holds_them() -> None:
    limits = Limits.of(config())
    held = limits
    limits.become(Limits.of(config(policy={"resync": "manual"})))
    assert not held.resync_automatic
