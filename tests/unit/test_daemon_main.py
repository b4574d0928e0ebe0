"""How the daemon's process ends."""

from __future__ import annotations

from contextvars import copy_context
from pathlib import Path

import pytest
import structlog

from colod.daemon import main as daemon_main

CONFIG = """
[host]
name = "alpha"
state_directory = "{root}"
runtime_directory = "{root}"
[peer]
name = "beta"
address = "127.0.0.1:7411"
[witness]
kind = "file"
directory = "{root}"
"""


def test_a_defect_is_logged_with_what_to_do_and_ends_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fails(self: daemon_main.Daemon) -> int:
        raise ValueError("never meant to happen")

    path = tmp_path / "colod.toml"
    path.write_text(CONFIG.format(root=tmp_path))
    monkeypatch.setattr(daemon_main.Daemon, "run", fails)
    # What it binds and configures for the whole process ends with the test.
    status = copy_context().run(daemon_main.main, ["--config", str(path)])
    structlog.reset_defaults()
    assert status == daemon_main.EXIT_FAILED
    told = "".join(capfd.readouterr())
    assert "daemon.failed" in told
    assert "a defect of colod: ValueError: never meant to happen" in told
    assert "guests go on as they are" in told
