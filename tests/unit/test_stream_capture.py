"""The parser on a capture from real Xen 4.17: a PV guest, 62 checkpoints, then the host died."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod.cli.stream import summarise
from colod.stream.inspect import Ending, StreamSummary

CAPTURE = Path(__file__).parents[2].parent / "shared/data/remus-pv-xen4.17.stream.zst"

pytestmark = pytest.mark.skipif(not CAPTURE.exists(), reason=f"no capture at {CAPTURE}")


def chunks(size: int) -> Iterator[memoryview]:
    """Unpack the capture in chunks of one size."""
    import zstandard

    with CAPTURE.open("rb") as packed:
        unpacked = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(packed))
        while chunk := unpacked.read(size):
            yield memoryview(chunk)


@pytest.fixture(scope="module")
def summary() -> StreamSummary:
    """Sum up the capture once."""
    return summarise(chunks(1 << 20), lambda _: None)


def test_it_has_62_whole_epochs_of_a_pv_guest_on_xen_4_17(summary: StreamSummary) -> None:
    assert summary.bytes == 209_448_499
    assert (summary.name, summary.guest_type, summary.xen_version) == ("g1", "pv", (4, 17))
    assert (summary.libxl_version, summary.libxc_version) == (2, 3)
    assert summary.whole_epochs == 62


def test_it_is_truncated_in_the_first_record_of_epoch_63(summary: StreamSummary) -> None:
    assert summary.ending is Ending.TRUNCATED
    assert summary.truncated_at == 209_317_427
    assert summary.epochs[-1].offset == 209_317_427


def test_every_checkpoint_has_the_records_that_libxc_writes(summary: StreamSummary) -> None:
    once_per_checkpoint = ("CHECKPOINT", "SHARED_INFO", "X86_TSC_INFO", "X86_PV_VCPU_BASIC")
    assert {summary.records[f"libxc.{name}"] for name in once_per_checkpoint} == {62}
    assert summary.records["libxl.CHECKPOINT_END"] == 62
    assert summary.records["libxl.LIBXC_CONTEXT"] == 1


def test_another_split_gives_the_same_summary(summary: StreamSummary) -> None:
    other = summarise(chunks(77_777), lambda _: None)
    assert other.to_json() == summary.to_json()
