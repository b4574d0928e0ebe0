"""What we write and how we read it, judged by Xen's own `verify-stream-v2`.

Runs when COLOD_VERIFY_STREAM names the script inside an unpacked xen-utils package:

    apt-get download xen-utils-4.17 && dpkg -x xen-utils-4.17_*.deb xen
    COLOD_VERIFY_STREAM=$PWD/xen/usr/lib/xen-4.17/bin/verify-stream-v2 pytest tests/unit/...
"""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from colod.stream import writer
from colod.stream.events import Event, Layer, RecordSeen
from colod.stream.grammar import record_name
from colod.stream.libxc import DomainType, RecordType
from colod.stream.parser import StreamParser
from tests.unit.stream_samples import Sample, parse, save_image

SCRIPT = os.environ.get("COLOD_VERIFY_STREAM", "")
CAPTURE = Path(__file__).parents[2].parent / "shared/data/remus-pv-xen4.17.stream.zst"

pytestmark = pytest.mark.skipif(not SCRIPT, reason="COLOD_VERIFY_STREAM names no verify-stream-v2")

_RECORD = re.compile(r"(Libxl|Libxc) Record: (.*), length (\d+)")
_SQUASHED = re.compile(r"Squashed (\d+) Page Data records together")


def verify(image: Path) -> subprocess.CompletedProcess[str]:
    """Run Xen's judge on a file that begins with xl's header."""
    library = Path(SCRIPT).parents[1] / "lib/python"
    return subprocess.run(
        [sys.executable, SCRIPT, "-v", "-f", "xl", "-i", str(image)],
        env={"PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def judged(output: str) -> list[tuple[str, str, str]]:
    """Return (layer, type, length) of each record that the judge saw.

    It counts neighbouring PAGE_DATA records together; the last field is their number.
    """
    found = []
    for line in output.splitlines():
        if match := _RECORD.fullmatch(line):
            layer, name, length = match.groups()
            found.append((layer.lower(), name.replace(" ", "_").upper(), length))
        elif match := _SQUASHED.fullmatch(line):
            found.append(("libxc", "PAGE_DATA", match[1]))
    return found


def ours(events: list[Event]) -> list[tuple[str, str, str]]:
    """Return the same of what the parser saw."""
    records = [event for event in events if isinstance(event, RecordSeen)]
    found = []
    for (layer, kind), group in groupby(records, lambda record: (record.layer, record.type)):
        name = record_name(layer, kind).replace("X86_TSC", "TSC")
        members = list(group)
        if (layer, kind) == (Layer.LIBXC, RecordType.PAGE_DATA):
            found.append((layer.value, name, str(len(members))))
        else:
            found += [(layer.value, name, str(record.length)) for record in members]
    return found


def agree(image: Path) -> None:
    """Check that the judge accepts an image and saw the records that we saw."""
    result = verify(image)
    assert (result.returncode, result.stderr) == (0, "")
    parser = StreamParser()
    events = parse(parser, image.read_bytes())
    parser.finish()
    assert judged(result.stdout) == ours(events)
    assert len(ours(events)) > 5


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("domain", DomainType)
def test_the_judge_sees_the_records_that_we_wrote_and_see(
    tmp_path: Path, version: int, domain: DomainType
) -> None:
    image = tmp_path / "image"
    image.write_bytes(save_image(version=version, domain=domain).data)
    agree(image)


def test_the_judge_sees_every_record_of_an_image_with_all_kinds(tmp_path: Path) -> None:
    sample = Sample().headers().pages(3).pages(1)
    sample.libxc(writer.libxc_record(RecordType.VERIFY)).pages(2).state()
    for kind in (RecordType.X86_PV_VCPU_XSAVE, RecordType.X86_PV_VCPU_MSRS):
        sample.libxc(writer.pv_vcpu(kind, 0, b"c" * 33))
    sample.libxc(writer.libxc_record(RecordType.END))
    sample.libxl(writer.emulator_xenstore_data({}), writer.emulator_context(b"qemu's state"))
    sample.libxl(writer.libxl_record(0))
    image = tmp_path / "image"
    image.write_bytes(sample.data)
    agree(image)


def test_the_judge_refuses_what_we_refuse(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(save_image().data.replace(b"XENF", b"XENG"))
    assert verify(image).returncode == 1


def _first_copy(unpacked: io.BufferedIOBase) -> Iterator[bytes]:
    """Yield the capture up to its first CHECKPOINT record."""
    parser = StreamParser()
    while chunk := unpacked.read(1 << 20):
        begins = parser.offset
        for event in parser.feed(chunk):
            if isinstance(event, RecordSeen) and event.type == RecordType.CHECKPOINT:
                yield chunk[: event.offset - begins]
                return
        yield chunk


@pytest.mark.skipif(not CAPTURE.exists(), reason=f"no capture at {CAPTURE}")
def test_the_first_copy_of_the_capture_ended_by_us_is_a_complete_image(tmp_path: Path) -> None:
    import zstandard

    image = tmp_path / "image"
    with CAPTURE.open("rb") as packed, image.open("wb") as out:
        unpacked = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(packed))
        out.writelines(_first_copy(unpacked))
        out.write(writer.libxc_record(RecordType.END) + writer.libxl_record(0))
    agree(image)
