"""What a COLO session leaves behind: filters that lead the guest's output to nobody."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Final

from colod.errors import NetworkError

COMMAND_S: Final = 20.0
_ABSENT: Final = "is an invalid domain identifier"


def let_pass(argv: Sequence[str], guest: str) -> None:
    """Take the guest's filters away, so that it speaks to the network itself; blocks.

    Only on a host that owns the guest alone. A guest that is gone needs nothing.

    Args:
        argv: `colod-simxl`, with what it needs to find its host.
        guest: The domain's name.

    Raises:
        NetworkError: If they may still be there; it may be tried again.
    """
    command = [*argv, "sim", "colo", guest, "pass"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"filters of {guest}: {error}") from error
    if done.returncode and _ABSENT not in done.stderr:
        raise NetworkError(f"filters of {guest}: {done.stderr.strip()}")
