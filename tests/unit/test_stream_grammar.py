"""Which records may come where."""

import pytest

from colod.errors import RecordTooLong, StreamError, UnknownMandatoryRecord
from colod.stream import grammar
from colod.stream.events import Layer
from colod.stream.libxc import HVM_RECORDS, PV_RECORDS, DomainType, RecordType
from colod.stream.record import is_optional, padded_length

PV, HVM = DomainType.X86_PV, DomainType.X86_HVM


def check(layer: Layer, kind: int, length: int, allowed: frozenset[int]) -> None:
    """Check a header at offset 77 with a limit of 100 bytes."""
    grammar.check_header(layer, kind, length, allowed, limit=100, offset=77)


def test_a_pv_image_has_no_hvm_records_and_the_other_way_round() -> None:
    assert not grammar.image_records(PV, 3) & HVM_RECORDS
    assert not grammar.image_records(HVM, 3) & PV_RECORDS


def test_version_two_has_no_static_part_and_no_policies() -> None:
    assert not grammar.static_records(PV, 2)
    assert RecordType.X86_CPUID_POLICY not in grammar.image_records(HVM, 2)
    assert RecordType.X86_CPUID_POLICY in grammar.image_records(HVM, 3)


def test_pv_info_is_static_data_of_pv_only() -> None:
    assert RecordType.X86_PV_INFO in grammar.static_records(PV, 3)
    assert RecordType.X86_PV_INFO not in grammar.static_records(HVM, 3)


@pytest.mark.parametrize("domain", DomainType)
def test_every_known_libxc_type_has_a_place_in_one_direction(domain: DomainType) -> None:
    forward = grammar.static_records(domain, 3) | grammar.image_records(domain, 3)
    foreign = PV_RECORDS if domain is HVM else HVM_RECORDS
    assert forward | grammar.LIBXC_BACK | foreign == set(RecordType)


def test_what_cannot_be_skipped_is_refused() -> None:
    with pytest.raises(UnknownMandatoryRecord) as caught:
        check(Layer.LIBXL, 6, 0, grammar.LIBXL_TOP)
    assert caught.value.offset == 77
    with pytest.raises(StreamError, match="LIBXC_CONTEXT may not come here"):
        check(Layer.LIBXL, 1, 0, grammar.LIBXL_CHECKPOINT)


def test_optional_records_may_come_anywhere_within_the_limit() -> None:
    check(Layer.LIBXL, 0x8000_0000, 100, frozenset())
    with pytest.raises(RecordTooLong):
        check(Layer.LIBXL, 0x8000_0000, 101, frozenset())


def test_signals_have_no_body() -> None:
    with pytest.raises(StreamError, match="none is due"):
        check(Layer.LIBXL, 4, 8, grammar.LIBXL_CHECKPOINT)


def test_names_are_those_of_the_specification() -> None:
    assert grammar.record_name(Layer.LIBXC, 0xF) == "CHECKPOINT_DIRTY_PFN_LIST"
    assert grammar.record_name(Layer.LIBXL, 0x8000_0001) == "0x80000001"


@pytest.mark.parametrize(("body", "padded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_bodies_take_multiples_of_eight_bytes(body: int, padded: int) -> None:
    assert padded_length(body) == padded


def test_bit_31_makes_a_record_optional() -> None:
    assert is_optional(0x8000_0000)
    assert not is_optional(0x7FFF_FFFF)
