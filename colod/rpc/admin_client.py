"""Ask a daemon: this host's over its unix socket, or another's; for `colodctl`, without asyncio."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import grpc

from colod.errors import ColodError, DaemonUnreachable, OutcomeUnknown, VersionMismatch
from colod.rpc import limits, status, versions
from colod.rpc.operators import OPERATOR_KEY
from colod.rpc.remote_host import RemoteHost
from colod.v1 import admin_pb2, admin_pb2_grpc

READ_TIMEOUT_S: Final = 10.0
CHANGE_TIMEOUT_S: Final = 120.0

_Reply = TypeVar("_Reply")
_METADATA: Final = ((versions.METADATA_KEY, str(versions.ADMIN_VERSION_MAX)),)
_OPERATOR_MAX_BYTES: Final = 256


class AdminClient:
    """A daemon.

    All calls raise the `ColodError` that the daemon answers; DaemonUnreachable when nothing was
    asked of it; OutcomeUnknown when it was asked and no answer came.
    """

    def __init__(self, where: Path | RemoteHost, *, operator: str = "") -> None:
        """Connect.

        Args:
            where: The socket of the daemon on this host, or another host.
            operator: Who asks, for the audit log; another host has it from the certificate.

        Raises:
            ConfigError: If what `where` names cannot be used.
            DaemonUnreachable: If nobody listens there, or this user may not use it.
            NotPermitted: If the certificate cannot be believed.
        """
        self._where = where
        self._metadata: versions.Metadata = _METADATA
        if isinstance(where, RemoteHost):
            self._channel = where.channel()
        else:
            _check_answers(where)
            self._channel = grpc.insecure_channel(f"unix:{where}", limits.CLIENT)
            self._metadata = (*_METADATA, (OPERATOR_KEY, operator.encode()[:_OPERATOR_MAX_BYTES]))
        self._stub = admin_pb2_grpc.AdminStub(self._channel)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel, and end what is under way on it; any thread may."""
        self._channel.close()

    def version(self) -> admin_pb2.VersionReply:
        """Return the daemon's version and host."""
        return self._call(self._stub.Version, admin_pb2.VersionRequest())

    def protect(self, request: admin_pb2.ProtectRequest) -> admin_pb2.ProtectReply:
        """Begin to protect a guest, or say what would be done."""
        return self._call(self._stub.Protect, request, CHANGE_TIMEOUT_S)

    def unprotect(self, guest: str) -> None:
        """End a protection."""
        self._call(self._stub.Unprotect, admin_pb2.UnprotectRequest(guest=guest), CHANGE_TIMEOUT_S)

    def make_checkpoint(self, guest: str) -> int:
        """Have a guest's two running copies made equal; return the pairing's checkpoints so far."""
        request = admin_pb2.MakeCheckpointRequest(guest=guest)
        return self._call(self._stub.MakeCheckpoint, request, CHANGE_TIMEOUT_S).checkpoints

    def suspend(self, guest: str) -> None:
        """End a guest's replication until it is resumed."""
        self._call(self._stub.Suspend, admin_pb2.SuspendRequest(guest=guest), CHANGE_TIMEOUT_S)

    def resume(self, guest: str) -> None:
        """Have a guest replicated again."""
        self._call(self._stub.Resume, admin_pb2.ResumeRequest(guest=guest), CHANGE_TIMEOUT_S)

    def status(
        self, guest: str = "", *, timeout_s: float = READ_TIMEOUT_S
    ) -> admin_pb2.StatusReply:
        """Return the state of one protection or of all."""
        return self._call(self._stub.Status, admin_pb2.StatusRequest(guest=guest), timeout_s)

    def watch_status(
        self, guest: str = "", *, timeout_s: float | None = None
    ) -> Iterator[admin_pb2.StatusReply]:
        """Yield the state at each change and at least once a second.

        Raises:
            OutcomeUnknown: When `timeout_s` seconds have passed, or the daemon went away.
        """
        request = admin_pb2.StatusRequest(guest=guest)
        return self._stream(self._stub.WatchStatus, request, timeout_s)

    def failover(
        self, request: admin_pb2.FailoverRequest, *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> admin_pb2.FailoverReply:
        """Make this host the owner, or say what would be done."""
        return self._call(self._stub.Failover, request, timeout_s)

    def switchover(
        self, request: admin_pb2.SwitchoverRequest, *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> admin_pb2.SwitchoverReply:
        """Give a guest of this host to the other one, or say what would be done."""
        return self._call(self._stub.Switchover, request, timeout_s)

    def drain(
        self, *, switch_over: bool = False, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> admin_pb2.DrainReply:
        """End all sessions of this host in good order; before that, if asked, give guests away."""
        request = admin_pb2.DrainRequest(switch_over=switch_over)
        return self._call(self._stub.Drain, request, timeout_s)

    def set_automation(
        self, request: admin_pb2.SetAutomationRequest
    ) -> admin_pb2.SetAutomationReply:
        """Pause automation, or let the hosts act by themselves again."""
        return self._call(self._stub.SetAutomation, request, CHANGE_TIMEOUT_S)

    def fence_confirm(self, request: admin_pb2.FenceConfirmRequest) -> admin_pb2.FenceConfirmReply:
        """Give an operator's word that the other host is off."""
        return self._call(self._stub.FenceConfirm, request, CHANGE_TIMEOUT_S)

    def history(self, guest: str, limit: int) -> admin_pb2.HistoryReply:
        """Return the newest `limit` changes of state, of one guest or of all."""
        request = admin_pb2.HistoryRequest(guest=guest, limit=limit)
        return self._call(self._stub.History, request)

    def doctor(self, guest: str = "") -> admin_pb2.DoctorReply:
        """Have the daemon examine host, peer, witness and guest."""
        request = admin_pb2.DoctorRequest(guest=guest)
        return self._call(self._stub.Doctor, request, CHANGE_TIMEOUT_S)

    def checkpoints(self, guest: str = "") -> admin_pb2.CheckpointsReply:
        """Return of which replicas images can be written, and which were."""
        return self._call(self._stub.Checkpoints, admin_pb2.CheckpointsRequest(guest=guest))

    def export_checkpoint(
        self, request: admin_pb2.ExportCheckpointRequest, *, timeout_s: float
    ) -> Iterator[admin_pb2.ExportCheckpointReply]:
        """Yield how an image gets written; the daemon goes on when nobody listens.

        Raises:
            OutcomeUnknown: When `timeout_s` seconds have passed, or the daemon went away.
        """
        return self._stream(self._stub.ExportCheckpoint, request, timeout_s)

    def drill(
        self, request: admin_pb2.DrillRequest, *, timeout_s: float
    ) -> Iterator[admin_pb2.DrillReply]:
        """Yield the steps of a drill, its record last; closing this gives the drill up.

        Raises:
            OutcomeUnknown: When `timeout_s` seconds have passed, or the daemon went away.
        """
        return self._stream(self._stub.Drill, request, timeout_s)

    def drill_secondary(
        self, request: admin_pb2.DrillSecondaryRequest, *, timeout_s: float
    ) -> Iterator[admin_pb2.DrillReply]:
        """Yield the steps of a drill of a secondary, its record last.

        Raises:
            OutcomeUnknown: When `timeout_s` seconds have passed, or the daemon went away.
        """
        return self._stream(self._stub.DrillSecondary, request, timeout_s)

    def drill_live(
        self, request: admin_pb2.DrillLiveRequest, *, timeout_s: float
    ) -> Iterator[admin_pb2.DrillReply]:
        """Yield the steps of a failover by choice, its record last.

        Raises:
            OutcomeUnknown: When `timeout_s` seconds have passed, or the daemon went away.
        """
        return self._stream(self._stub.DrillLive, request, timeout_s)

    def drill_checked(self, drill_id: str, status: int, said: str, outage_s: float = 0.0) -> None:
        """Say what the check or the probe of a drill came to."""
        request = admin_pb2.DrillCheckedRequest(
            id=drill_id, status=status, said=said, outage_s=outage_s
        )
        self._call(self._stub.DrillChecked, request)

    def drills(self, guest: str, limit: int) -> admin_pb2.DrillsReply:
        """Return the newest `limit` drills of this host, of one guest or of all."""
        request = admin_pb2.DrillsRequest(guest=guest, limit=limit)
        return self._call(self._stub.Drills, request)

    def quarantine(
        self, guest: str = "", *, timeout_s: float = READ_TIMEOUT_S
    ) -> admin_pb2.QuarantineReply:
        """Return the copies that another generation has left there, of one guest or of all."""
        return self._call(
            self._stub.Quarantine, admin_pb2.QuarantineRequest(guest=guest), timeout_s
        )

    def discard_quarantined(
        self, request: admin_pb2.DiscardQuarantinedRequest
    ) -> admin_pb2.DiscardQuarantinedReply:
        """Throw one of them away, or say what would be done."""
        return self._call(self._stub.DiscardQuarantined, request, CHANGE_TIMEOUT_S)

    def keep_quarantined(
        self, request: admin_pb2.KeepQuarantinedRequest
    ) -> admin_pb2.KeepQuarantinedReply:
        """Have one of them kept, or give that order up."""
        return self._call(self._stub.KeepQuarantined, request, CHANGE_TIMEOUT_S)

    def _stream(
        self, method: Callable[..., Any], request: Any, timeout_s: float | None
    ) -> Iterator[Any]:
        stream = self._call(method, request, timeout_s)
        try:
            yield from stream
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            stream.cancel()

    def _call(
        self,
        method: Callable[..., _Reply],
        request: Any,
        timeout_s: float | None = READ_TIMEOUT_S,
    ) -> _Reply:
        try:
            return method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> ColodError:
        details = error.details() or ""
        sent = status.error_from(details, error.trailing_metadata() or ())
        if sent is not None:
            return sent
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return OutcomeUnknown(
                    "the daemon gave no answer in time",
                    advice="it may still carry the request out; look at: colodctl status",
                )
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return OutcomeUnknown(
                    f"the daemon went away before it answered ({self._where})",
                    advice="look at: systemctl status colod; then: colodctl status",
                )
            case grpc.StatusCode.UNIMPLEMENTED:
                return VersionMismatch(
                    "this daemon does not know the request",
                    advice="restart it: colod and colodctl are of different versions",
                )
        answer = ColodError(f"the daemon failed: {details} ({error.code().name.lower()})")
        answer.advice = "look at: journalctl -u colod"
        return answer


def _check_answers(path: Path) -> None:
    """Raise DaemonUnreachable with the cause that gRPC's own message hides."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(READ_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except PermissionError as error:
            raise DaemonUnreachable(
                f"this user may not use {path}",
                advice="run as root, or join the group that admin.group names",
            ) from error
        except OSError as error:
            raise DaemonUnreachable(
                f"no daemon answers at {path}: {error.strerror or error}",
                advice="is colod running? systemctl status colod",
            ) from error
