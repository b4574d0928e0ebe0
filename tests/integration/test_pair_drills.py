"""Images of a replica and drills on it, by real daemons over the simulated Xen."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pair import Pair, until

KEEP = '\n[checkpoints]\nkeep = true\ndirectory = "{root}/images"\n'


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give a pair whose replica follows and of which an image is kept."""
    root = Path(tempfile.mkdtemp(prefix="colod-"))  # paths of sockets end at 107 bytes
    found = Pair(root, suspect_s=20.0, silence_s=15.0, extra=KEEP.format(root=root))
    try:
        found.start()
        found.create_guest()
        found.protect()
        yield found
    finally:
        found.close()
        shutil.rmtree(root, ignore_errors=True)


def test_an_export_is_an_image_that_xl_restores(pair: Pair) -> None:
    refused = pair.alpha.try_ctl("checkpoint", "export", "g1")
    assert refused.returncode == 4
    assert "hint: run it on beta" in refused.stderr
    listed = json.loads(pair.beta.ctl("checkpoint", "list", "--json"))
    assert listed["kept"][0]["is_kept"]
    assert "nothing was written" in pair.beta.ctl("checkpoint", "export", "g1", "--dry-run")
    assert pair.beta.try_ctl("checkpoint", "export", "g1", "--name", "../x").returncode == 4
    done = json.loads(pair.beta.ctl("checkpoint", "export", "g1", "--json"))
    assert done["epoch"] >= listed["kept"][0]["epoch"]
    exported = json.loads(pair.beta.ctl("checkpoint", "list", "--json"))["exported"]
    assert [each["size_bytes"] for each in exported] == [done["bytes"]]
    pair.beta.ctl("stream", "inspect", done["path"])
    acked = pair.alpha.protection().progress.acked_epoch
    until(lambda: pair.alpha.protection().progress.acked_epoch > acked + 3, "epochs go on")
