"""`colodctl checkpoint` against a daemon's double over the real socket."""

from __future__ import annotations

from colod import errors
from colod.v1 import admin_pb2
from tests.integration.admin_double import FakeDaemon
from tests.integration.test_cli_daemon import Run, colodctl, daemon

__all__ = ["colodctl", "daemon"]

KEPT = admin_pb2.KeptImage(
    guest="web", is_kept=True, epoch=41, epoch_age_s=0.2, image_bytes=512 << 20
)
LOST = admin_pb2.KeptImage(
    guest="db", trouble="the disk is full", advice="pair anew", epoch_age_s=-1
)


def test_a_list_says_what_can_be_written_and_what_was(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.checkpoints = admin_pb2.CheckpointsReply(
        directory="/var/lib/colod/checkpoints",
        kept=[KEPT, LOST],
        exported=[admin_pb2.ExportedImage(name="web-1.xlsave", size_bytes=1 << 30, unix_s=1e9)],
    )
    ran = colodctl("checkpoint", "list")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "web: epoch 41, 200 ms old, 512.0 MiB",
        "db: the disk is full",
        "hint: pair anew",
        "",
        "/var/lib/colod/checkpoints",
        "IMAGE         SIZE     WRITTEN",
        "web-1.xlsave  1.0 GiB  2001-09-09T01:46:40Z",
    ]
    listed = colodctl("checkpoint", "list", "--json").json
    assert listed["kept"][0] == {
        "guest": "web",
        "is_kept": True,
        "trouble": "",
        "advice": "",
        "epoch": 41,
        "epoch_age_s": 0.2,
        "image_bytes": 512 << 20,
    }
    assert listed["kept"][1]["epoch"] is None
    assert listed["kept"][1]["epoch_age_s"] is None
    assert listed["exported"] == [{"name": "web-1.xlsave", "size_bytes": 1 << 30, "unix_s": 1e9}]


def test_an_export_shows_how_far_it_is_and_where_it_went(daemon: FakeDaemon, colodctl: Run) -> None:
    reply = admin_pb2.ExportCheckpointReply
    begun = reply(plan=["write epoch 41 or newer"], path="/c/web", epoch=41)
    daemon.exports = [
        begun,
        reply(path="/c/web", epoch=42, written_bytes=5, total_bytes=9),
        reply(path="/c/web", epoch=42, written_bytes=9, total_bytes=9, is_done=True),
    ]
    ran = colodctl("checkpoint", "export", "web", "--name", "web")
    assert (ran.status, ran.out) == (0, "web: epoch 42 is in /c/web, 9 B\n")
    assert ran.err.splitlines() == ["web: writing 50 %", "web: writing 100 %"]
    assert daemon.requests[-1].name == "web"
    told = colodctl("checkpoint", "export", "web", "--json").json
    assert (told["path"], told["epoch"], told["bytes"]) == ("/c/web", 42, 9)
    daemon.exports = [begun]
    ran = colodctl("checkpoint", "export", "web", "--dry-run")
    assert ran.out == "write epoch 41 or newer\nweb: nothing was written\n"


def test_an_export_that_is_not_seen_to_end_is_unknown(daemon: FakeDaemon, colodctl: Run) -> None:
    daemon.exports = [admin_pb2.ExportCheckpointReply(path="/c/web", epoch=42)]
    assert colodctl("checkpoint", "export", "web").status == 5
    daemon.error = errors.NotAllowedNow("ALONE", "no image is kept", advice="switch it on")
    ran = colodctl("checkpoint", "export", "web")
    assert ran.status == 4
    assert "hint: switch it on" in ran.err


def test_a_list_says_how_the_schedule_stands(daemon: FakeDaemon, colodctl: Run) -> None:
    image = admin_pb2.ExportedImage(name="web-1.xlsave", size_bytes=1 << 30, unix_s=1e9)
    daemon.checkpoints = admin_pb2.CheckpointsReply(
        directory="/c",
        kept=[KEPT],
        schedule=admin_pb2.ImageSchedule(
            every_s=3600,
            keep_images=24,
            limit_bytes=64 << 30,
            used_bytes=1 << 30,
            directory="/c/scheduled",
            guests=[
                admin_pb2.ScheduledGuest(guest="web", trouble="the disk is full", last_unix_s=1e9),
                admin_pb2.ScheduledGuest(guest="db"),
            ],
            images=[image],
        ),
    )
    assert colodctl("checkpoint", "list").out.splitlines()[1:] == [
        "",
        "/c/scheduled: the last 24 of each guest, one every 60 min; 1.0 GiB of 64.0 GiB",
        "  taken",
        "web: no new image: the disk is full",
        "IMAGE         SIZE     BEGUN",
        "web-1.xlsave  1.0 GiB  2001-09-09T01:46:40Z",
    ]
    schedule = colodctl("checkpoint", "list", "--json").json["schedule"]
    assert [each["last_unix_s"] for each in schedule["guests"]] == [1e9, None]
    assert [each["name"] for each in schedule["images"]] == ["web-1.xlsave"]
    daemon.checkpoints.ClearField("schedule")
    assert colodctl("checkpoint", "list", "--json").json["schedule"] is None
