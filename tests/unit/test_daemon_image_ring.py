"""Images by schedule: nothing goes before its successor is whole, and nothing of an operator's."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.daemon.image_ring import ImageRing
from colod.errors import PreflightRefused

MIB = 1 << 20
AT = 1_700_000_000


def ring_of(root: Path, *, most: int = 3, most_mib: int = 100) -> ImageRing:
    """Return the ring in a directory of checkpoints."""
    return ImageRing(root, most=most, most_bytes=most_mib * MIB)


def write(ring: ImageRing, guest: str, at: int, mib: int = 10) -> Path:
    """Write an image as a session does."""
    path = ring.begin(guest, at)
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


def test_the_newest_few_of_each_guest_are_kept(tmp_path: Path) -> None:
    ring = ring_of(tmp_path)
    paths = [write(ring, "web", AT + 60 * each) for each in range(5)]
    other = write(ring, "web-2", AT)
    assert ring.prune("web", paths[-1], 10 * MIB) == paths[:2]
    assert [each.path for each in ring.images("web")] == paths[2:]
    assert [each.path for each in ring.images("web-2")] == [other]
    assert ring.images("web")[-1].unix_s == AT + 240
    assert ring.used_bytes == 40 * MIB


def test_fewer_are_kept_where_the_next_one_would_not_fit(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, most=9, most_mib=35)
    paths = [write(ring, "web", AT + 60 * each) for each in range(3)]
    ring.check_room(5 * MIB)
    with pytest.raises(PreflightRefused, match="scheduled_mib"):
        ring.check_room(6 * MIB)
    assert ring.images("web")[0].path == paths[0]
    assert ring.prune("web", paths[-1], 10 * MIB) == paths[:1]
    ring.check_room(10 * MIB)


def test_the_last_image_of_a_guest_stays_whatever_is_bounded(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, most=1, most_mib=1)
    path = write(ring, "web", AT)
    assert ring.prune("web", path, 10 * MIB) == []
    assert [each.path for each in ring.images()] == [path]


def test_images_of_a_clock_that_was_ahead_go_first_and_the_one_just_written_stays(
    tmp_path: Path,
) -> None:
    ring = ring_of(tmp_path)
    before = write(ring, "web", AT)
    ahead = [write(ring, "web", AT + 86400 * each) for each in (365, 366)]
    written = write(ring, "web", AT + 60)
    assert ring.prune("web", written, MIB) == ahead[:1]
    assert {each.path for each in ring.images()} == {before, ahead[1], written}
    later = write(ring, "web", AT + 120)
    assert ring.prune("web", later, MIB) == ahead[1:]
    assert [each.path for each in ring.images()] == [before, written, later]


def test_the_image_just_written_stays_where_only_one_may(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, most=1, most_mib=1)
    ahead = write(ring, "web", AT + 86400)
    written = write(ring, "web", AT)
    assert ring.prune("web", written, MIB) == [ahead]
    assert [each.path for each in ring.images()] == [written]


def test_what_is_no_image_of_the_schedule_is_never_touched(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, most=1)
    (tmp_path / "web-20231114T221320Z.xlsave").write_bytes(b"by an operator")
    paths = [write(ring, "web", AT + 60 * each) for each in range(3)]
    names = (
        "web.xlsave",
        "notes",
        "web-20231114T221320Z.xlsave.bak",
        "web-99999999T999999Z.xlsave",
    )
    for name in names:
        (ring.directory / name).write_bytes(b"x")
    (ring.directory / "web-20230101T000000Z.xlsave").symlink_to(tmp_path)
    ring.prune("web", paths[-1], MIB)
    assert (tmp_path / "web-20231114T221320Z.xlsave").exists()
    assert all((ring.directory / name).exists() for name in names)
    assert (ring.directory / "web-20230101T000000Z.xlsave").is_symlink()
    assert len(ring.images()) == 1


def test_what_a_dead_session_left_of_an_image_goes_with_the_next(tmp_path: Path) -> None:
    ring = ring_of(tmp_path)
    left = ring.begin("web", AT)
    part = left.with_name(f"{left.name}.part")
    other = ring.directory / "db-20231114T221320Z.xlsave.part"
    for path in (part, other):
        path.write_bytes(b"x")
    assert ring.images() == []
    assert ring.begin("web", AT + 60).name == "web-20231114T221420Z.xlsave"
    assert not part.exists()
    assert other.exists()


def test_without_a_directory_there_is_nothing(tmp_path: Path) -> None:
    assert ring_of(tmp_path / "none").images() == []
