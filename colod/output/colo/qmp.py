"""A device model's QMP socket: take COLO's filters away, or put one in again.

After a failover the secondary's QEMU still sends the guest's output to a comparator that died with
the other host, and waits for input that nobody mirrors: the guest runs and is mute until its two
redirectors are gone. Its rewriter stays, for the connections that it shifts.

Spec: QEMU docs/interop/qmp-spec.rst; qapi/qom.json (object-del, object-add, qom-list),
qapi/char.json (chardev-remove).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from colod.errors import ColodError

SECONDARY_REDIRECTORS = ("rs1", "rs2")
"""What is in a secondary's way. Source: Xen tools/libs/light/libxl_dm.c, "secondary colo run"."""

PRIMARY_FILTERS = ("m1", "r1", "r2")
"""What is in a primary's way. Source: the same, "primary colo run"."""

MAX_LINE_BYTES = 1 << 20
"""A longer answer is none to anything that is asked here."""

TIMEOUT_S = 5.0
"""For a whole visit. A QEMU that is slower hangs, or writes to a filter that nobody reads."""


class QmpError(ColodError):
    """The device model did not answer, or not as QMP has it: what was asked may have been done."""

    code = "qmp.failed"


class QmpRefused(QmpError):
    """The device model answered with an error.

    Attributes:
        kind: Its class, mostly `GenericError`.
    """

    code = "qmp.refused"

    def __init__(self, command: str, kind: str, description: str) -> None:
        """Say what was refused and why."""
        super().__init__(f"{command}: {kind}: {description}")
        self.kind = kind


class Qmp:
    """One connection; make it by `connected`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection at its first byte."""
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def negotiate(self) -> None:
        """Read the greeting, and enter command mode.

        Raises:
            QmpError: If this is no QMP.
        """
        if "QMP" not in await self._message():
            raise QmpError("no greeting: this is not a QMP socket")
        await self.execute("qmp_capabilities")

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run a command, and return what it returns; events meanwhile are passed over.

        Raises:
            QmpRefused: If the answer is an error.
            QmpError: If there is none, or it makes no sense.
        """
        self._number += 1
        request = {"execute": command, "arguments": arguments or {}, "id": self._number}
        try:
            self._writer.write(json.dumps(request).encode() + b"\r\n")
            await self._writer.drain()
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        while True:
            answer = await self._message()
            if "event" in answer:
                continue
            if answer.get("id", self._number) != self._number:
                raise QmpError(f"{command}: answer to something else: {answer.get('id')!r:.80}")
            if "return" in answer:
                return answer["return"]
            refusal = answer.get("error")
            if not isinstance(refusal, dict):
                raise QmpError(f"{command}: answer without return or error: {answer!r:.80}")
            raise QmpRefused(command, str(refusal.get("class")), f"{refusal.get('desc')!s:.500}")

    async def objects(self) -> frozenset[str]:
        """Return the ids of all objects that were made by a user, filters among them.

        Raises:
            QmpError: If that cannot be told.
        """
        listed = await self.execute("qom-list", {"path": "/objects"})
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise QmpError(f"qom-list: no list of objects: {listed!r:.80}")
        # The others are properties of the container itself.
        return frozenset(
            str(each.get("name")) for each in listed if str(each.get("type")).startswith("child<")
        )

    async def _message(self) -> dict[str, object]:
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise QmpError(f"more than {MAX_LINE_BYTES} bytes without an end of line") from error
        except OSError as error:
            raise QmpError(str(error)) from error
        if not line.endswith(b"\n"):
            raise QmpError("the device model closed the connection")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpError(f"no JSON: {line!r:.80}") from error
        if not isinstance(message, dict):
            raise QmpError(f"no JSON object: {line!r:.80}")
        return message


@contextlib.asynccontextmanager
async def connected(path: Path, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Qmp]:
    """Connect to a device model, in command mode, for at most `timeout_s`.

    Args:
        path: Its socket: `/run/xen/qmp-libxl-DOMID`, or another one; each takes one client at a
            time, so that libxl may have to be waited for.
        timeout_s: For all that is done in this context.

    Raises:
        QmpError: If nobody is there, or the time is over.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
            try:
                qmp = Qmp(reader, writer)
                await qmp.negotiate()
                yield qmp
            finally:
                # Not close(): that waits until the other end has read what was asked of it.
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise QmpError(f"{path}: no answer in {timeout_s} s") from error
    except OSError as error:
        raise QmpError(f"{path}: {error}") from error


async def remove_filters(
    path: Path, objects: Sequence[str], timeout_s: float = TIMEOUT_S
) -> tuple[str, ...]:
    """Take filters away, and verify that they are gone; those that are gone already are no error.

    Only on a host that owns the guest alone: without its redirectors the guest speaks to the
    network. After an error this may be called again.

    Args:
        path: The device model's socket.
        objects: Ids, such as SECONDARY_REDIRECTORS, taken away in this order.
        timeout_s: For all of it.

    Returns:
        Those that were there.

    Raises:
        QmpError: If one is left, or nobody knows.
    """
    async with connected(path, timeout_s) as qmp:
        there = await qmp.objects()
        found = tuple(each for each in objects if each in there)
        refusals = []
        for each in found:
            try:
                await qmp.execute("object-del", {"id": each})
            except QmpRefused as error:
                refusals.append(str(error))
        left = sorted((await qmp.objects()).intersection(objects))
        if left:
            raise QmpError(f"{path}: not removed: {', '.join(left)} ({'; '.join(refusals)})")
        return found


async def renew_way_out(path: Path, netdev: str, indev: str, timeout_s: float = TIMEOUT_S) -> None:
    """Put the primary's redirector to the network in again, after the proxy has connected anew.

    QEMU's filter stops reading for good when its socket is closed once; a new one reads. It has to
    stand where libxl put it, before the one that takes the guest's output away: behind it, each
    frame that may leave would come back to be compared.

    Args:
        path: The device model's socket.
        netdev: Where the filter stands: `net` and the interface's device id.
        indev: The id of its socket, of `colo_filter_redirector0_indev`.
        timeout_s: For all of it.

    Raises:
        QmpError: If it is not there at the end; nothing that is compared leaves then.

    Source: QEMU net/filter-mirror.c, redirector_chr_event(); net/net.c, filter_receive_iov().
    """
    async with connected(path, timeout_s) as qmp:
        if "r1" in await qmp.objects():
            await qmp.execute("object-del", {"id": "r1"})
        properties = {"netdev": netdev, "queue": "rx", "indev": indev}
        place = {"position": "id=r2", "insert": "before"}
        await qmp.execute(
            "object-add", {"qom-type": "filter-redirector", "id": "r1", **properties, **place}
        )
