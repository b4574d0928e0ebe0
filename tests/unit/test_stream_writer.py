"""The builders: layouts byte for byte as the specifications draw them."""

import pytest

from colod.stream import libxc, writer
from colod.stream.libxc import DomainType, PageType, RecordType, decode_page_data
from colod.stream.record import ByteOrder
from tests.unit.stream_samples import PAGE

BIG = ByteOrder.BIG


def test_xl_header_has_magic_flags_and_the_configuration_with_its_nul() -> None:
    assert writer.xl_header(b"{}") == (
        b"Xen saved domain, xl format\n \0 \r"
        b"\4\3\2\1" b"\3\0\0\0" b"\0\0\0\0" b"\7\0\0\0" b"\3\0\0\0" b"{}\0"
    )  # fmt: skip


def test_libxl_header_is_big_endian_in_either_order() -> None:
    assert writer.libxl_header() == b"LibxlFmt\0\0\0\2\0\0\0\0"
    assert writer.libxl_header(order=BIG, legacy=True) == b"LibxlFmt\0\0\0\2\0\0\0\3"


def test_image_header_is_big_endian_in_either_order() -> None:
    assert writer.libxc_image_header() == b"\xff" * 8 + b"XENF\0\0\0\3" + bytes(8)
    big = writer.libxc_image_header(version=2, order=BIG)
    assert big == b"\xff" * 8 + b"XENF\0\0\0\2" + b"\0\1" + bytes(6)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (ByteOrder.LITTLE, b"\2\0\0\0\x0c\0\0\0\4\0\0\0\x11\0\0\0"),
        (ByteOrder.BIG, b"\0\0\0\2\0\x0c\0\0\0\0\0\4\0\0\0\x11"),
    ],
)
def test_domain_header_follows_the_byte_order(order: ByteOrder, expected: bytes) -> None:
    assert writer.libxc_domain_header(DomainType.X86_HVM, (4, 17), order=order) == expected


@pytest.mark.parametrize("size", range(17))
def test_records_are_padded_with_zeroes_to_eight_bytes(size: int) -> None:
    record = writer.libxl_record(3, b"x" * size)
    assert len(record) % 8 == 0
    assert record[:8] == bytes([3, 0, 0, 0, size, 0, 0, 0])
    assert record[8:].rstrip(b"\0") == b"x" * size
    assert len(record) - 8 - size < 8


@pytest.mark.parametrize("order", ByteOrder)
def test_page_data_decodes_to_what_was_built(order: ByteOrder) -> None:
    pfns = [5, writer.typed_pfn(6, PageType.XTAB), writer.typed_pfn(7, PageType.L4TAB_PIN)]
    record = writer.page_data(pfns, [PAGE, bytes(4096)], order=order)
    assert list(decode_page_data(record[8:], order)) == [
        (5, PageType.NOTAB, PAGE),
        (6, PageType.XTAB, None),
        (7, PageType.L4TAB_PIN, bytes(4096)),
    ]


@pytest.mark.parametrize(
    ("pfns", "pages"), [([], []), ([1], []), ([1], [PAGE, PAGE]), ([1], [PAGE[:-1]])]
)
def test_page_data_refuses_pages_that_do_not_match_its_pfns(
    pfns: list[int], pages: list[bytes]
) -> None:
    with pytest.raises(ValueError, match="PFNs need"):
        writer.page_data(pfns, pages)


@pytest.mark.parametrize("body", [b"", b"\2\0\0\0\0\0\0\0", b"\1" + bytes(15) + PAGE[:-1]])
def test_a_page_data_body_of_the_wrong_length_is_not_decoded(body: bytes) -> None:
    with pytest.raises(ValueError, match="PAGE_DATA body"):
        list(decode_page_data(body))


def test_a_reserved_page_type_is_not_decoded() -> None:
    body = b"\1" + bytes(7) + (5 << libxc.PAGE_TYPE_SHIFT).to_bytes(8, "little")
    with pytest.raises(ValueError, match="5 is not a valid PageType"):
        list(decode_page_data(body))


def test_bodies_have_the_fields_of_the_specification() -> None:
    assert writer.pv_info()[8:] == b"\x08\x04" + bytes(6)
    assert writer.pv_vcpu(RecordType.X86_PV_VCPU_BASIC, 3, b"c")[8:17] == b"\3" + bytes(7) + b"c"
    assert writer.pv_p2m_frames(1, 2, [9], order=BIG)[8:] == b"\0\0\0\1\0\0\0\2" + bytes(7) + b"\t"
    assert writer.tsc_info(mode=1, khz=2, elapsed_ns=3, incarnation=4, order=BIG)[8:] == (
        b"\0\0\0\1\0\0\0\2" + bytes(7) + b"\3\0\0\0\4" + bytes(4)
    )
    assert writer.hvm_params({5: 6})[8:] == b"\1" + bytes(7) + b"\5" + bytes(7) + b"\6" + bytes(7)
    assert writer.dirty_pfn_list([1, 2], order=BIG)[8:] == bytes(7) + b"\1" + bytes(7) + b"\2"
    assert writer.emulator_xenstore_data({"a": "b"})[8:] == b"\2" + bytes(7) + b"a\0b\0" + bytes(4)
    assert writer.emulator_context(b"x", index=1)[8:17] == b"\2\0\0\0\1\0\0\0x"
    assert writer.checkpoint_state(2) == b"\5\0\0\0\4\0\0\0\2" + bytes(7)
    assert writer.checkpoint() == b"\x0e" + bytes(7)
    assert writer.checkpoint_end(order=BIG) == b"\0\0\0\4" + bytes(4)
