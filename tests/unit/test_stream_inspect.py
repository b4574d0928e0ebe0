"""The summary of a stream."""

import json

import pytest

from colod.errors import StreamError
from colod.stream import writer
from colod.stream.events import Event
from colod.stream.inspect import MAX_KINDS, Ending, StreamSummary, read_identity
from colod.stream.libxc import DomainType
from colod.stream.parser import StreamParser
from colod.stream.record import ByteOrder
from tests.unit.stream_samples import Sample, remus_stream, save_image


def summarise(data: bytes) -> StreamSummary:
    """Parse and sum up."""
    parser, summary, error = StreamParser(), StreamSummary(), None
    events: tuple[Event, ...] = ()
    try:
        events = parser.feed(data)
        parser.finish()
    except StreamError as caught:
        error = caught
    for event in events:
        summary.add(event)
    summary.end(len(data), error)
    return summary


def test_a_save_image_is_complete_and_one_epoch_that_is_not_sealed() -> None:
    sample = save_image(ByteOrder.BIG, 2)
    summary = summarise(sample.data)
    assert summary.ending is Ending.COMPLETE
    assert summary.truncated_at is None
    assert (summary.name, summary.guest_type, summary.xen_version) == ("g1", "pv", (4, 17))
    assert (summary.libxl_version, summary.libxc_version) == (2, 2)
    assert summary.byte_order is ByteOrder.BIG
    assert summary.whole_epochs == 0
    (epoch,) = summary.epochs
    assert (epoch.offset, epoch.bytes, epoch.is_sealed) == (0, sample.size, False)
    assert (epoch.pages, epoch.pfns, epoch.records) == (2, 3, len(sample.records))


def test_epochs_are_summed_up_one_by_one() -> None:
    sample = remus_stream(3)
    summary = summarise(sample.data)
    edges = [0, *sample.seals]
    assert [epoch.offset for epoch in summary.epochs] == edges[:-1]
    assert [epoch.bytes for epoch in summary.epochs] == [edges[n + 1] - edges[n] for n in range(3)]
    assert all(epoch.is_sealed and epoch.pages == 1 for epoch in summary.epochs)
    assert sum(epoch.records for epoch in summary.epochs) == len(sample.records)
    assert sum(summary.records.values()) == len(sample.records)
    assert summary.records["libxc.CHECKPOINT"] == summary.records["libxl.CHECKPOINT_END"] == 3


def test_a_cut_stream_is_truncated_where_its_incomplete_record_begins() -> None:
    sample = remus_stream(1).pages()
    summary = summarise(sample.data[:-1])
    assert summary.ending is Ending.TRUNCATED
    assert summary.truncated_at == sample.records[-1].offset
    last = summary.epochs[-1]
    assert (last.epoch, last.records, last.is_sealed) == (2, 0, False)
    assert last.bytes == sample.size - 1 - sample.seals[0]


def test_garbage_is_invalid_and_not_truncated() -> None:
    sample = remus_stream(1)
    summary = summarise(sample.data + writer.libxc_record(0x55))
    assert summary.ending is Ending.INVALID
    assert summary.truncated_at is None
    assert summary.whole_epochs == 1
    assert summary.to_json()["error"] == {
        "code": "stream.unknown_record",
        "message": f"libxc record 0x00000055 is mandatory and not known (at byte {sample.size})",
        "offset": sample.size,
    }


def test_an_empty_stream_has_no_epoch() -> None:
    summary = summarise(b"")
    assert (summary.ending, summary.truncated_at, summary.epochs) == (Ending.TRUNCATED, 0, [])


def test_the_configuration_tells_pvh_from_hvm_and_the_header_stands_in_for_it() -> None:
    pvh = b'{"c_info": {"type": "pvh", "name": "p"}}'
    for config, expected in ((pvh, "pvh"), (b"", "hvm"), (b"name = 'old style'", "hvm")):
        sample = Sample(domain=DomainType.X86_HVM, config=config).headers()
        assert summarise(sample.data).guest_type == expected


@pytest.mark.parametrize(
    "config",
    [b"", b"\xff\xfe", b"[]", b"1", b'{"c_info": []}', b'{"c_info": {"name": 7}}', b"[" * 200_000],
)
def test_a_strange_configuration_has_no_identity(config: bytes) -> None:
    assert read_identity(config) == (None, None)


def test_a_stream_that_invents_types_does_not_grow_the_summary() -> None:
    sample = Sample().headers()
    for kind in range(MAX_KINDS + 50):
        sample.pages().libxc(writer.libxc_record(0x8000_0000 + kind))
    records = summarise(sample.data).records
    assert len(records) == MAX_KINDS + 1
    assert sum(records.values()) == len(sample.records)


def test_json_holds_plain_values_with_the_promised_keys() -> None:
    converted = json.loads(json.dumps(summarise(remus_stream(1).data).to_json()))
    assert list(converted) == [
        "name", "type", "xen_version", "libxl_version", "libxc_version", "byte_order",
        "converted_from_legacy", "bytes", "ending", "truncated_at", "error", "whole_epochs",
        "records", "epochs",
    ]  # fmt: skip
    assert list(converted["epochs"][0]) == [
        "epoch", "offset", "bytes", "pages", "pfns", "records", "sealed",
    ]  # fmt: skip
