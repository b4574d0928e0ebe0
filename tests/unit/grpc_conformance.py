"""Run the conformance suite over gRPC, in a process and an event loop of its own, as a session has.

gRPC keeps descriptors open while anything of it lives, and does not bear a loop for each test.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc.aio

from colod.transport.testing import CHECKS, Nonconformity, run_check, why_not
from tests.unit.transport_subjects import grpc_subject


async def verdicts(directory: Path, listen: str, names: list[str]) -> dict[str, str]:
    """Return why each check failed, or nothing where it passed."""
    grpc.aio.init_grpc_aio()  # from here to the end of the process its own descriptors stay
    subject = grpc_subject(directory, listen)
    found = {}
    for name in ["each_end_has_an_address_for_messages", *names]:  # the first opens them all
        try:
            await run_check(subject, name)
            found[name] = ""
        except Nonconformity as error:
            found[name] = str(error)
    return {name: found[name] for name in names}


def main() -> None:
    """Print the verdicts of the checks that are named, of all that apply if none is."""
    directory, listen, *names = sys.argv[1:]
    subject = grpc_subject(Path(directory), listen)
    every = [name for name in CHECKS if not why_not(subject, name)]
    print(json.dumps(asyncio.run(verdicts(Path(directory), listen, names or every))), flush=True)


if __name__ == "__main__":
    main()
