"""Real QEMU asked whether it can do COLO: of Debian's builds, none has the fix."""

from __future__ import annotations

import shutil

import pytest

from colod.toolstack.colo_support import Has, look
from colod.toolstack.command import CommandRunner

QEMU = shutil.which("qemu-system-x86_64") or ""


@pytest.mark.skipif(not QEMU, reason="needs QEMU (Debian: qemu-system-x86)")
async def test_debians_full_qemu_has_filters_and_replication_and_not_the_fix() -> None:
    commands = CommandRunner(workers=1)
    try:
        model = (await look("none", commands, device_model=QEMU)).device_model
    finally:
        commands.close()
    assert (model.problem, model.missing_filters, model.missing_commands) == ("", (), ())
    assert (model.replicates, model.loads_state) == (Has.YES, Has.NO)
