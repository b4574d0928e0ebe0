"""Images of the replicas on this host: what can be written, what was, and to write one."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from colod.daemon.image_disk import on_image_disk
from colod.daemon.parts import Parts
from colod.daemon.protection import ProtectionService
from colod.daemon.sessions import SessionHandle
from colod.errors import CheckpointError, NotAllowedNow, OutcomeUnknown, PreflightRefused
from colod.model import Role
from colod.session.imagefile import PART_SUFFIX
from colod.v1 import admin_pb2, session_pb2

SUFFIX: Final = ".xlsave"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
_ANSWER_S: Final = 20.0
_REPORT_S: Final = 1.0
MARGIN: Final = 1.05
"""An image takes a little more than the pages in it."""
_SWITCH_ON: Final = (
    "set checkpoints.keep = true in the configuration of the secondary and restart its colod; then "
    "pair anew, on the primary: colodctl suspend, colodctl resume"
)
_PAIR_ANEW: Final = "pair anew, on the primary: colodctl suspend, colodctl resume"


class Checkpoints:
    """Asks the receivers' sessions for images."""

    def __init__(self, parts: Parts) -> None:
        """Work with `parts`."""
        self._parts = parts

    def directory(self) -> Path:
        """Return where images are.

        Raises:
            PreflightRefused: If none are kept on this host.
        """
        directory = self._parts.limits.image_directory
        if directory is None:
            raise PreflightRefused(
                [f"{self._parts.host} keeps no images of replicas: {_SWITCH_ON}"]
            )
        return directory

    async def listing(self, services: Iterable[ProtectionService]) -> admin_pb2.CheckpointsReply:
        """Return of which replicas images could be written, and which were.

        Raises:
            CheckpointError: If the disk does not answer.
        """
        directory = self._parts.limits.image_directory
        return admin_pb2.CheckpointsReply(
            directory=str(directory or ""),
            kept=[_kept(each) for each in services if each.journal.role is Role.SECONDARY],
            exported=await on_image_disk(_exported, directory) if directory is not None else [],
        )

    async def check(self, service: ProtectionService) -> session_pb2.ReplicaImage:
        """Return what is kept of a replica, if an image of it can be written now.

        Raises:
            NotAllowedNow: If not; it says what to do.
            PreflightRefused: If the disk has no room for one.
            CheckpointError: If it does not answer.
        """
        image = self.check_kept(service)
        await on_image_disk(self.check_room, image)
        return image

    def check_kept(self, service: ProtectionService) -> session_pb2.ReplicaImage:
        """Return the same, without a look at the disk, which may hang.

        Raises:
            NotAllowedNow: If nothing whole is kept; it says what to do.
        """
        journal = service.journal
        if journal.role is not Role.SECONDARY:
            raise NotAllowedNow(
                service.state,
                f"the replica of {service.guest} is on {journal.peer}",
                advice=f"run it on {journal.peer}",
            )
        kept = _kept(service)
        if not kept.is_kept:
            raise NotAllowedNow(
                service.state, f"{service.guest}: {kept.trouble}", advice=kept.advice
            )
        image = _image(service.session)
        assert image is not None
        return image

    def check_room(self, image: session_pb2.ReplicaImage) -> None:
        """Check that the disk has room for an image. Blocks.

        Raises:
            PreflightRefused: If it has none, or cannot be asked.
        """
        directory = self.directory()
        wanted = int(image.image_bytes * MARGIN)
        try:
            free = shutil.disk_usage(directory).free
        except OSError as error:
            raise PreflightRefused([f"{directory}: {error.strerror}"]) from error
        if free < wanted:
            raise PreflightRefused(
                [
                    f"{directory} has {free >> 20} MiB free, an image needs "
                    f"{-(-wanted >> 20)} MiB: free some, or move checkpoints.directory"
                ]
            )

    async def path_of(self, service: ProtectionService, name: str) -> Path:
        """Return where an image is to be written.

        Raises:
            PreflightRefused: If the name is none, or taken.
            CheckpointError: If the disk does not answer.
        """
        if not name:
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            name = f"{service.guest[:80]}-{now}{SUFFIX}"
        # A path could be anywhere; who may use the socket need not be root.
        if not _NAME.fullmatch(name):
            raise PreflightRefused(
                [f"{name!r}: want a name of at most 128 of A-Z a-z 0-9 _ . + -, and no path"]
            )
        path = self.directory() / name
        if await on_image_disk(path.exists):
            raise PreflightRefused([f"{path} is there already"])
        return path

    async def write(
        self, service: ProtectionService, path: Path, config_path: Path | None = None
    ) -> AsyncIterator[session_pb2.ImageExport]:
        """Have an image of the newest epoch written; yield how it goes, the last is done.

        Check first whether it can be. Closing this early stops nothing.

        Raises:
            NotAllowedNow: If none can be written now.
            CheckpointError: If it failed.
            SessionError: If the session does not answer, or refuses.
            OutcomeUnknown: If the session ended meanwhile.
        """
        self.check_kept(service)
        session = service.session
        assert session is not None
        while _is_writing(session):  # one at a time: the other may be the schedule's
            await session.until(lambda: not _is_writing(session), timeout_s=_REPORT_S)
        name = uuid.uuid4().hex
        order = session_pb2.SessionCommand(generation=service.journal.generation)
        order.export_image.id = name
        order.export_image.path = str(path)
        order.export_image.config_path = str(config_path or "")
        await session.command(order, timeout_s=_ANSWER_S)
        while True:
            export = _export(session, name)
            if export is None:
                raise OutcomeUnknown(f"the session of {service.guest} ended while it wrote {path}")
            if export.error:
                raise CheckpointError(f"no image of {service.guest} was written: {export.error}")
            yield export
            if export.is_done:
                return
            await session.until(
                lambda seen=export: _export(session, name) != seen,  # type: ignore[misc]
                timeout_s=_REPORT_S,
            )


def _export(session: SessionHandle, name: str) -> session_pb2.ImageExport | None:
    """Return how the image of that name stands, None if nobody knows."""
    image = _image(session)
    if image is None or image.export.id != name or session.process is None:
        return None
    return image.export


def _is_writing(session: SessionHandle) -> bool:
    """Whether the session writes an image now."""
    image = _image(session)
    if image is None or session.process is None or not image.export.id:
        return False
    return not (image.export.is_done or image.export.error)


def _image(session: SessionHandle | None) -> session_pb2.ReplicaImage | None:
    status = session.status if session is not None else None
    return status.image if status is not None and status.HasField("image") else None


def _kept(service: ProtectionService) -> admin_pb2.KeptImage:
    """Return what is kept of a replica here."""
    kept = admin_pb2.KeptImage(guest=service.guest, epoch_age_s=-1)
    session = service.session
    if session is None or session.process is None:
        kept.trouble, kept.advice = "there is no replica here now", "colodctl status"
        return kept
    image = _image(session)
    if image is None:
        kept.trouble, kept.advice = "no image is kept of its replica", _SWITCH_ON
    elif image.trouble:
        kept.trouble = f"no image is kept of its replica any more: {image.trouble}"
        kept.advice = _PAIR_ANEW
    elif not image.epoch:
        kept.trouble = "no epoch of its replica is whole yet"
        kept.advice = "wait until colodctl status shows it REPLICATING or PROTECTED"
    else:
        kept.is_kept = image.is_kept
        kept.epoch, kept.epoch_age_s = image.epoch, _age_now(session, image)
        kept.image_bytes = image.image_bytes
    return kept


def _age_now(session: SessionHandle, image: session_pb2.ReplicaImage) -> float:
    if image.epoch_age_s < 0:
        return -1.0
    return image.epoch_age_s + max(0.0, time.monotonic() - session.status_at)


def _exported(directory: Path) -> Sequence[admin_pb2.ExportedImage]:
    found = []
    with suppress(OSError):
        for path in sorted(directory.iterdir()):
            if _NAME.fullmatch(path.name) and path.suffix != PART_SUFFIX and path.is_file():
                status = path.stat()
                found.append(
                    admin_pb2.ExportedImage(
                        name=path.name, size_bytes=status.st_size, unix_s=status.st_mtime
                    )
                )
    return found
