"""colod.session.deltas and colod.session.unfolding: agreement, stores, and the way back."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from colod.errors import VersionMismatch
from colod.session.deltas import (
    DeltaSpec,
    agreed,
    answer,
    make_decoder,
    make_encoder,
    offer,
    parse_deltas,
)
from colod.session.ending import Ending
from colod.session.unfolding import Unfolding, unfolding
from colod.stream.delta.terms import Terms
from colod.stream.frames import MAX_DATA_BYTES
from tests.unit.session_samples import epochs_of
from tests.unit.stream_samples import Sample

ON = DeltaSpec(codec="zstd-1", store_bytes=1 << 20)
OFF = DeltaSpec()


def terms_of(sender: DeltaSpec, receiver: DeltaSpec) -> Terms | None:
    offered = offer(sender)
    return agreed(offered, answer(receiver, offered))


def test_both_sides_use_the_smaller_store_and_the_offered_codec() -> None:
    terms = terms_of(ON, replace(ON, store_bytes=2 << 20))
    assert terms is not None
    assert (terms.codec, terms.max_pages) == ("zstd-1", 256)
    terms = terms_of(replace(ON, codec="none"), ON)
    assert terms is not None
    assert terms.codec == "none"


@pytest.mark.parametrize(("sender", "receiver"), [(ON, OFF), (OFF, ON), (OFF, OFF)])
def test_without_both_sides_there_are_no_deltas(sender: DeltaSpec, receiver: DeltaSpec) -> None:
    assert terms_of(sender, receiver) is None


def test_an_answer_beyond_the_offer_is_refused() -> None:
    more = offer(replace(ON, store_bytes=2 << 20))
    with pytest.raises(VersionMismatch):
        agreed(offer(ON), more)
    with pytest.raises(VersionMismatch):
        agreed((), more)


@pytest.mark.parametrize(
    "given",
    [
        "zstd-1",
        {"codec": "lzma"},
        {"codec": None},
        {"store_bytes": 1},
        {"store_bytes": "1"},
        {"store_file": 3},
        {"speed": 3},
    ],
)
def test_a_specification_that_cannot_be_used_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_deltas(given)


def test_a_specification_is_read_as_it_was_written() -> None:
    given = {"codec": "none", "store_bytes": 1 << 30, "store_file": "/var/lib/colod/x"}
    assert parse_deltas(given) == DeltaSpec(
        codec="none", store_bytes=1 << 30, store_file="/var/lib/colod/x"
    )


async def unfolded(unfolding: Unfolding, blocks: list[bytes]) -> bytes:
    data = b""
    for block in blocks:
        async for part in unfolding.parts(block):
            assert len(part) <= MAX_DATA_BYTES
            data += part
    return data


@pytest.mark.parametrize("file", ["", "pages"])
async def test_what_comes_back_is_the_stream_bit_for_bit(tmp_path: Path, file: str) -> None:
    spec = replace(ON, store_file=str(tmp_path / file) if file else "")
    terms = terms_of(spec, spec)
    assert terms is not None
    encoder = make_encoder(spec, terms)
    assert not os.listdir(tmp_path), "nobody else sees the store"  # noqa: PTH208
    back = await unfolding(spec, (str(terms),))
    assert back is not None
    sample = Sample().headers().pages(300).state().seal().pages(300).state().seal()
    for epoch in epochs_of(sample):
        blocks = [*encoder.feed(epoch), *encoder.seal()]
        assert await unfolded(back, blocks) == epoch
        back.seal()


async def test_garbage_and_half_blocks_end_replication() -> None:
    terms = terms_of(ON, ON)
    assert terms is not None
    with pytest.raises(Ending) as caught:
        await unfolded(Unfolding(make_decoder(ON, terms)), [b"\xff" * 100])
    assert caught.value.code.startswith("stream.")
    encoder, back = make_encoder(ON, terms), Unfolding(make_decoder(ON, terms))
    [block] = [*encoder.feed(Sample().headers().pages(3).data), *encoder.flush()]
    assert await unfolded(back, [block[:-1]]) == b""
    with pytest.raises(Ending):
        back.seal()


async def test_a_store_that_has_no_place_fails_and_says_so(tmp_path: Path) -> None:
    terms = terms_of(ON, ON)
    (tmp_path / "taken").touch()
    spec = replace(ON, store_file=str(tmp_path / "taken"))
    with pytest.raises(Ending) as caught:
        await unfolding(spec, (str(terms),))
    assert caught.value.code == "session.memory"
