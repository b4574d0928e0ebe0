"""Images of a replica that is followed meanwhile, written by real sessions on the simulated Xen."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colod.stream.image.pages import PAGE_BYTES
from colod.v1 import session_pb2
from tests.integration.session_pair import Pair, State
from tests.integration.simxen_hosts import SimHost, until

NUMBERS = iter(range(1, 100))


def start(base: Path, **image: Any) -> Pair:
    """Start a pair whose receiver keeps an image."""
    kept = base / "kept"
    kept.mkdir()
    pair = Pair(base, image={"directory": str(kept), **image}, deltas={"codec": "none"})
    pair.start_sender()
    return pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Give a pair that replicates."""
    found = start(tmp_path)
    try:
        found.receiving.wait(lambda status: status.image.epoch >= 3, "an image is kept")
        yield found
    finally:
        found.end()


def ask(pair: Pair, path: Path, **more: str) -> str:
    """Ask for an image; return why not, or nothing."""
    order = session_pb2.SessionCommand.ExportImage(id=str(next(NUMBERS)), path=str(path), **more)
    return pair.receiving.command(export_image=order).command_error


def written(pair: Pair) -> session_pb2.ImageExport:
    """Wait until the image is written."""
    status = pair.receiving.wait(
        lambda status: status.image.export.is_done or status.image.export.error, "it is written"
    )
    assert not status.image.export.error
    return status.image.export


def test_an_image_of_a_replica_restores_to_a_guest_of_one_moment(
    pair: Pair, tmp_path: Path
) -> None:
    before = pair.receiving.newest()
    assert before.image.is_kept
    path = tmp_path / "image"
    assert ask(pair, path) == ""
    export = written(pair)
    assert export.epoch >= before.image.epoch
    assert export.epoch_age_s >= 0
    assert export.written_bytes == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    third = SimHost(tmp_path / "third")
    try:
        third.xl("restore", "-p", "-e", str(path))
        third.xl("unpause", "g1")
        assert third.runs()
        copy, origin = third.observe(), pair.primary.observe()
        assert copy is not None
        assert origin is not None
        assert copy["intact"]
        assert copy["boot_id"] == origin["boot_id"]
    finally:
        third.xl("sim", "kill-host", check=False)
    pair.receiving.wait_acked(export.epoch + 3)
    assert list((tmp_path / "kept").iterdir()) == []


def test_an_image_may_have_another_configuration(pair: Pair, tmp_path: Path) -> None:
    config = json.loads((pair.receive_dir / "config.json").read_text())
    assert config["c_info"]["name"] == "g1"
    config["c_info"]["name"] = "g1--drill"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(config))
    assert ask(pair, tmp_path / "image", config_path=str(other)) == ""
    written(pair)
    pair.secondary.xl("restore", "-p", "-e", str(tmp_path / "image"))
    assert {"g1--drill", "g1--incoming"} <= set(pair.secondary.guests())


def test_the_replica_takes_over_although_an_image_was_kept(pair: Pair, tmp_path: Path) -> None:
    pair.remus.kill()
    pair.receiving.wait(lambda status: status.state == State.SESSION_STATE_PEER_LOST, "it is lost")
    pair.receiving.hand_over()
    status = pair.receiving.wait(lambda status: status.handed_over, "it is handed over")
    until(lambda: pair.secondary.guest("g1"), "the copy has its name")
    assert not status.image.is_kept
    assert "promoted" in ask(pair, tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_an_image_that_cannot_be_written_says_why_and_replication_goes_on(
    pair: Pair, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    assert "absolute" in ask(pair, Path("image"))
    for path, why in ((taken, "not there yet"), (tmp_path / "nowhere" / "image", "No such file")):
        assert ask(pair, path) == ""
        status = pair.receiving.wait(lambda status: status.image.export.error, "it failed")
        assert why in status.image.export.error
    pair.receiving.wait_acked(status.progress.acked_epoch + 3)


def test_a_store_that_is_too_small_is_given_up_and_names_the_setting(tmp_path: Path) -> None:
    pair = start(tmp_path, max_bytes=1 << 20)
    try:
        pair.receiving.wait(lambda status: status.image.is_kept, "128 pages fit")
    finally:
        pair.end()
    bigger = tmp_path / "bigger"
    bigger.mkdir()
    kept = bigger / "kept"
    kept.mkdir()
    pair = Pair(bigger, image={"directory": str(kept), "max_bytes": 1 << 20})
    pair.primary.xl("destroy", "g1")
    pair.primary.create(0, sim_memory_pages=(2 << 20) // PAGE_BYTES)
    pair.start_sender()
    try:
        image = pair.receiving.wait(lambda status: status.image.trouble, "it is given up").image
        assert not image.is_kept
        assert "checkpoints.store_mib" in image.trouble
        assert "any more" in ask(pair, tmp_path / "image")
    finally:
        pair.end()


def test_without_a_directory_nothing_is_kept(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.start_sender()
    try:
        assert not pair.receiving.wait_acked(2).HasField("image")
        assert "checkpoints.keep" in ask(pair, tmp_path / "image")
    finally:
        pair.end()
