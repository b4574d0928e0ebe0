"""What a COLO session leaves behind: filters that lead the guest's output to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from colod.output.simulated import Absent, run

_NO_DOMAIN: Final = "is an invalid domain identifier"


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
    with suppress(Absent):
        run(command, f"filters of {guest}", absent=(_NO_DOMAIN,))
