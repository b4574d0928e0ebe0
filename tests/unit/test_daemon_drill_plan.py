"""A drill writes to no disk but those that root put aside for drills."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.daemon.drill_plan import _targets
from colod.v1 import admin_pb2


def asked(target: str) -> admin_pb2.DrillRequest:
    return admin_pb2.DrillRequest(disks=[admin_pb2.DiskOverride(vdev="xvda", target=target)])


def test_a_copy_and_a_link_to_one_are_taken_for_what_they_are(tmp_path: Path) -> None:
    disks, volume = tmp_path / "disks", tmp_path / "volume"
    disks.mkdir()
    volume.touch()
    (disks / "copy").touch()
    (disks / "link").symlink_to(volume)
    assert _targets(asked(f"{disks}/copy"), disks) == ({"xvda": f"{disks}/copy"}, [])
    assert _targets(asked(f"{disks}/link"), disks) == ({"xvda": str(volume)}, [])


@pytest.mark.parametrize(
    "target",
    ["/dev/sda", "/etc/shadow", "copy", "{disks}/../volume", "{disks}/..", "{disks}/missing", ""],
)
def test_anything_else_of_this_host_is_refused(tmp_path: Path, target: str) -> None:
    disks = tmp_path / "disks"
    disks.mkdir()
    (tmp_path / "volume").touch()
    targets, (reason,) = _targets(asked(target.format(disks=disks)), disks)
    assert not targets
    assert "where root puts the copies" in reason
