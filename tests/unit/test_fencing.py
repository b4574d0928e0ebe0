"""The fencers `none` and `manual`."""

from __future__ import annotations

import pytest

from colod import plugins
from colod.errors import ConfigError
from colod.fencing.base import Unconfirmed
from colod.fencing.manual import ManualFencer
from colod.fencing.none import NoFencer
from colod.model import HostName

A = HostName("alpha")
B = HostName("beta")


async def test_no_fencing_never_claims_that_a_host_is_fenced() -> None:
    fencer = NoFencer.from_config({}, host=A)
    assert isinstance(await fencer.fence(B), Unconfirmed)
    await fencer.close()


async def test_manual_fencing_proves_nothing_by_itself() -> None:
    fencer = ManualFencer.from_config({}, host=A)
    assert isinstance(await fencer.fence(B), Unconfirmed)
    assert isinstance(await fencer.fence(B), Unconfirmed)
    await fencer.close()


@pytest.mark.parametrize("kind", [NoFencer, ManualFencer])
def test_an_unknown_option_is_refused(kind: type[NoFencer | ManualFencer]) -> None:
    with pytest.raises(ConfigError, match=r"fencing\.agent"):
        kind.from_config({"agent": "fence_ipmilan"}, host=A)


def test_kinds_are_found_by_their_entry_points() -> None:
    assert plugins.load("colod.fencers", "manual") is ManualFencer
    assert set(plugins.kinds("colod.witnesses")) >= {"etcd", "file", "manual"}


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no kind 'zookeeper'; known are etcd, file, manual"):
        plugins.load("colod.witnesses", "zookeeper")
