"""The fencers `none` and `manual`."""

from __future__ import annotations

import pytest

from colod import plugins
from colod.errors import ConfigError, FenceError
from colod.fencing.base import Fenced, Unconfirmed
from colod.fencing.manual import Confirmation, ManualFencer
from colod.fencing.none import NoFencer
from colod.model import HostName

A = HostName("alpha")
B = HostName("beta")


async def test_no_fencing_never_claims_that_a_host_is_fenced() -> None:
    fencer = NoFencer.from_config({}, host=A)
    assert isinstance(await fencer.fence(B), Unconfirmed)
    await fencer.close()


async def test_manual_fencing_stays_unconfirmed_until_an_operator_says_so() -> None:
    fencer = ManualFencer.from_config({}, host=A)
    assert isinstance(await fencer.fence(B), Unconfirmed)
    assert isinstance(await fencer.fence(B), Unconfirmed)
    fencer.confirm(Confirmation(B, "power cord in my hand", "jo"))
    verdict = await fencer.fence(B)
    assert verdict == Fenced("confirmed by jo: power cord in my hand")
    await fencer.close()


async def test_a_confirmation_counts_for_one_fence_and_one_host() -> None:
    fencer = ManualFencer(A)
    fencer.confirm(Confirmation(B, "off", "jo"))
    assert isinstance(await fencer.fence(HostName("gamma")), Unconfirmed)
    assert isinstance(await fencer.fence(B), Fenced)
    assert isinstance(await fencer.fence(B), Unconfirmed)


@pytest.mark.parametrize(
    "confirmation",
    [Confirmation(A, "off", "jo"), Confirmation(B, " ", "jo"), Confirmation(B, "off", "")],
)
async def test_a_confirmation_of_this_host_or_without_reason_or_name_is_refused(
    confirmation: Confirmation,
) -> None:
    fencer = ManualFencer(A)
    with pytest.raises(FenceError):
        fencer.confirm(confirmation)
    assert isinstance(await fencer.fence(B), Unconfirmed)


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
