"""Our reading of a real `xl save` image, record for record, beside that of Xen's own judge."""

from __future__ import annotations

from itertools import groupby

import pytest

from tests.unit.test_stream_verify import judged
from tests.xen.guest import NAME
from tests.xen.lab import Lab

pytestmark = pytest.mark.lab

IMAGE = "/root/guest.img"
JUDGE = "PYTHONPATH=/usr/lib/xen-4.17/lib/python python3 /usr/lib/xen-4.17/bin/verify-stream-v2"


def inspected(output: str) -> list[tuple[str, str, str]]:
    """Return (layer, type, length) of each record; PAGE_DATA in a row as their number."""
    rows = [line.split() for line in output.splitlines()]
    records = [row for row in rows if len(row) == 4 and row[0].isdigit() and row[1][:3] == "lib"]
    found = []
    for (layer, kind), group in groupby(records, lambda row: (row[1], row[2])):
        members = list(group)
        name = kind.replace("X86_TSC", "TSC")
        if kind == "PAGE_DATA":
            found.append((layer, name, str(len(members))))
        else:
            found += [(layer, name, row[3]) for row in members]
    return found


def test_a_real_save_image_is_read_as_xens_own_judge_reads_it(pair: Lab) -> None:
    pair.alpha.run(f"xl save {NAME} {IMAGE}", timeout_s=180)
    judge = pair.alpha.run(f"{JUDGE} -v -f xl -i {IMAGE}", timeout_s=300)
    ours = pair.alpha.run(f"colodctl stream inspect --records {IMAGE}", timeout_s=300)
    assert inspected(ours.stdout) == judged(judge.stdout)
    assert len(judged(judge.stdout)) > 10
    assert "ended     complete" in ours.stdout
    assert "type      PV" in ours.stdout
