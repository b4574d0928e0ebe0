"""Agreement on deltas."""

import subprocess
import sys

import pytest

from colod.stream.delta.codec import CODECS
from colod.stream.delta.store import BATCH_PAGES
from colod.stream.delta.terms import (
    CODEC_NAMES,
    MIN_PAGES,
    NONE,
    ZSTD_1,
    Terms,
    choose,
    is_within,
)

OWN = Terms(max_pages=1000, pfn_limit=5000)


def test_terms_survive_being_a_capability() -> None:
    assert str(OWN) == "delta-1:zstd-1:1000:5000"
    assert Terms.parse(str(OWN)) == OWN


@pytest.mark.parametrize(
    "capability",
    [
        "",
        "flow",
        "delta-2:zstd-1:1000:5000",
        "delta-1:zstd-1:1000",
        "delta-1:zstd-1:1000:5000:1",
        "delta-1:lz4:1000:5000",
        "delta-1:zstd-1:239:5000",
        "delta-1:zstd-1:1000:0",
        "delta-1:zstd-1:-5:5000",
        "delta-1:zstd-1:1e3:5000",
        "delta-1:zstd-1:²:5000",
        "delta-1:zstd-1:1000:" + "9" * 5000,
    ],
)
def test_what_cannot_be_met_is_not_offered(capability: str) -> None:
    assert Terms.parse(capability) is None
    assert choose([capability], OWN) is None


def test_the_smaller_bounds_of_both_are_chosen() -> None:
    offered = Terms(max_pages=4000, pfn_limit=300)
    assert choose(["flow", str(offered)], OWN) == Terms(max_pages=1000, pfn_limit=300)


def test_the_first_codec_that_both_have_is_chosen() -> None:
    plain = Terms(codec=NONE, max_pages=1000, pfn_limit=5000)
    assert choose([str(OWN), str(plain)], OWN) == OWN
    assert choose([str(OWN), str(plain)], plain) == plain
    assert choose([str(plain)], OWN) == plain
    assert choose([str(OWN)], plain) is None


def test_a_sender_sees_whether_the_choice_is_within_its_offer() -> None:
    assert is_within(Terms(codec=NONE, max_pages=240, pfn_limit=1), OWN)
    assert not is_within(Terms(max_pages=1001, pfn_limit=5000), OWN)
    assert not is_within(Terms(max_pages=1000, pfn_limit=5001), OWN)
    assert not is_within(OWN, Terms(codec=NONE, max_pages=1000, pfn_limit=5000))


def test_terms_name_what_the_codecs_and_the_store_have() -> None:
    assert set(CODECS) == set(CODEC_NAMES) == {ZSTD_1, NONE}
    assert MIN_PAGES == BATCH_PAGES


def test_terms_do_not_bring_numpy_into_a_session_that_may_not_need_it() -> None:
    code = "import sys, colod.stream.delta.terms; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
