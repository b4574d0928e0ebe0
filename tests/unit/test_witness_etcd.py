"""The etcd witness, as far as it goes without an etcd."""

from __future__ import annotations

from pathlib import Path

import pytest

from colod.errors import WitnessUnreachable
from colod.model import GuestName, HostName
from colod.witness.etcd import EtcdWitness


async def test_a_password_file_that_is_not_utf_8_is_named_and_is_no_defect(tmp_path: Path) -> None:
    """It may be mended while the daemon runs, as one that is missing."""
    path = tmp_path / "password"
    path.write_bytes("geheiß\n".encode("latin-1"))
    options = {
        "endpoints": ["http://127.0.0.1:1"],
        "user": "colod",
        "password_file": str(path),
        "timeout_s": 0.5,
    }
    witness = EtcdWitness.from_config(options, host=HostName("alpha"))
    try:
        with pytest.raises(WitnessUnreachable, match=rf"not UTF-8.*{path}"):
            await witness.read(GuestName("web"))
    finally:
        await witness.close()
