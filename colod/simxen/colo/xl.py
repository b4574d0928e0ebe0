"""`xl remus -c -p` and `xl migrate-receive --colo`: libxl's part of COLO, with its bugs.

xl.conf may say which of the bugs that stock libxl has are left out, `sim_colo_fixed` (a comma
between): `suspended`, with the secondary lost xl aborts and leaves the primary's guest suspended;
`incoming`, after a failover the receiving xl crashes and the copy keeps the name `NAME--incoming`;
`filters`, after a failover the copy's filters stay, and it is mute. `sim_colo = "off"` is a libxl
that was built without COLO, as Debian's.

Source: Xen tools/libs/light/libxl_colo_save.c, libxl_colo_restore.c; docs/colo.md for the bugs.
"""

import contextlib
import os
import resource
import signal
from typing import NoReturn

from colod.simxen import control, lifecycle
from colod.simxen.colo import states
from colod.simxen.colo.nic import Filters
from colod.simxen.colo.notify import Proxy, ProxyFailed
from colod.simxen.control import DomainGone, SuspendTimedOut
from colod.simxen.helper import CHECKPOINT_FAILOVER, CHECKPOINT_SUCCESS, COLO
from colod.simxen.host import Host
from colod.simxen.saverestore import Helper, HelperFailed, Incoming, JsonObject, Sender
from colod.simxen.speech import ERROR_FAIL, fail, libxl_error, say
from colod.simxen.wire import EndOfStream, StreamBroken, write_all
from colod.stream import libxl, writer
from colod.stream.libxl import ControlId

NOTIFY_FILE = "colo-notify"
"""In a domain's directory: where its proxy listens, as `checkpoint_host` and `_port` say in Xen."""

_SUSPEND_S = 60.0
_LEFT_SUSPENDED_S = 1.0
_EMULATOR = {"simulated": "device model"}


def is_supported(host: Host) -> bool:
    """Tell whether this host's libxl has COLO."""
    return host.setting("sim_colo", "on") != "off"


def has_bug(host: Host, name: str) -> bool:
    """Tell whether a bug of stock libxl is there."""
    return name not in host.setting("sim_colo_fixed", "").replace(" ", "").split(",")


class ColoSender(Sender):
    """A domain whose copy runs on the other host."""

    def replicate(self) -> None:
        """Write libxl's stream, and read what comes back; returns only by an exception.

        Raises:
            HelperFailed: A stream broke, a guest did not suspend, or the proxy is not there.
        """
        path = self._host.root / "domains" / str(self._domid) / NOTIFY_FILE
        try:
            self._proxy = Proxy(path.read_text(encoding="utf-8").strip())
            context = writer.libxl_record(libxl.RecordType.LIBXC_CONTEXT)
            write_all(self._fd, writer.libxl_header() + context)
        except (OSError, ProxyFailed) as error:
            libxl_error("colo_proxy_setup", str(error), self._domid)
            raise HelperFailed from error
        self._has_copy = False
        fds = (self._fd, self._back_fd)
        self._helper = Helper(self._host, self._domid, "--save-domain", fds, "1", "1", COLO)
        self._helper.converse(
            {
                "suspend": self._suspend,
                "checkpoint": self._checkpoint,
                "postcopy": self._resume,
                "wait_checkpoint": self._wait_checkpoint,
            }
        )

    def _suspend(self) -> int:
        if super()._suspend() != 1:
            return 0
        return self._hear(ControlId.CHECKPOINT_SVM_SUSPENDED) if self._has_copy else 1

    def _checkpoint(self) -> int:
        try:
            write_all(self._fd, writer.emulator_xenstore_data(_EMULATOR))
            write_all(self._fd, writer.emulator_context(b"simulated device model"))
            write_all(self._fd, writer.checkpoint_end())
        except OSError as error:
            libxl_error("stream_write", f"Failed to write checkpoint: {error.strerror}")
            return 0
        return 1

    def _resume(self) -> int:
        """Run on once the secondary is ready, and the proxy knows of it."""
        if not self._hear(ControlId.CHECKPOINT_SVM_READY):
            return 0
        try:
            self._proxy.checkpointed()
        except ProxyFailed as error:
            libxl_error("colo_proxy_preresume", str(error), self._domid)
            return 0
        if not lifecycle.resume(self._host, self._domid):
            return 0
        self._has_copy = True
        return self._hear(ControlId.CHECKPOINT_SVM_RESUMED)

    def _wait_checkpoint(self) -> int:
        try:
            self._proxy.wait(besides=[self._helper])
            states.say(self._fd, ControlId.CHECKPOINT_NEW)
        except (OSError, ProxyFailed) as error:
            libxl_error("colo_proxy_checkpoint", str(error), self._domid)
            return 0
        return 1

    def _hear(self, state: ControlId) -> int:
        try:
            states.hear(self._back_fd, state)
        except (EndOfStream, StreamBroken) as error:
            libxl_error("colo_common_read_stream_done", str(error), self._domid)
            return 0
        return 1


def replicate(host: Host, domid: int, sender: ColoSender) -> int:
    """Do what `xl remus -c` does once the transport stands."""
    with contextlib.suppress(HelperFailed):
        sender.replicate()
    if control.is_gone(host, domid):
        say("COLO: Primary domain has been destroyed.")
        return 0
    if has_bug(host, "suspended"):
        with contextlib.suppress(DomainGone, SuspendTimedOut):
            control.suspend(host, domid, _LEFT_SUSPENDED_S)
        _abort("xl: libxl_stream_write.c:331: stream_complete: Assertion `rc' failed.")
    say("COLO: Backup failed? resuming domain at primary.")
    lifecycle.resume(host, domid)
    return 1


class ColoIncoming(Incoming):
    """A domain that comes in, and runs while it does."""

    def follow(self, host: Host, domid: int) -> None:
        """Read libxl's stream into a domain made for it, until that ends.

        Raises:
            HelperFailed: There is no consistent domain.
        """
        self._host, self._domid, self._has_run = host, domid, False
        control.ask(host, domid, "filters", use=Filters.SECONDARY)
        self._read_libxl_header()
        helper = Helper(host, domid, "--restore-domain", (self.fd, 1), COLO)
        helper.converse(
            {
                "checkpoint": self._checkpoint,
                "postcopy": self._run,
                "wait_checkpoint": self._wait_checkpoint,
                "suspend": self._suspend,
            }
        )
        # Whatever was being checkpointed is void: the copy goes on from where it was itself.
        lifecycle.resume(host, domid)

    def _run(self) -> int:
        reply = control.ask(self._host, self._domid, "reload" if self._has_run else "built")
        if not reply["intact"]:
            say("colod-simxl: the copy's memory is not of one moment (simulated check)")
        try:
            states.say(1, ControlId.CHECKPOINT_SVM_READY)
            if self._has_run:
                lifecycle.resume(self._host, self._domid)
            else:
                lifecycle.unpause(self._host, self._domid)
            self._has_run = True
            states.say(1, ControlId.CHECKPOINT_SVM_RESUMED)
        except OSError:
            return CHECKPOINT_FAILOVER
        return CHECKPOINT_SUCCESS

    def _wait_checkpoint(self) -> int:
        try:
            states.hear(self.fd, ControlId.CHECKPOINT_NEW)
        except (EndOfStream, StreamBroken) as error:
            libxl_error("colo_common_read_stream_done", str(error), self._domid)
            return CHECKPOINT_FAILOVER
        return CHECKPOINT_SUCCESS

    def _suspend(self) -> int:
        try:
            if not control.suspend(self._host, self._domid, _SUSPEND_S)["ok"]:
                return CHECKPOINT_FAILOVER
            states.say(1, ControlId.CHECKPOINT_SVM_SUSPENDED)
        except (SuspendTimedOut, OSError):
            return CHECKPOINT_FAILOVER
        return CHECKPOINT_SUCCESS


def migrate_receive(host: Host) -> int:
    """Build a copy from stdin and let it run; when the stream ends, it has the guest's name."""
    if not is_supported(host):
        libxl_error("libxl__colo_restore_setup", "COLO is not supported")
        fail(f"migration target: Domain creation failed (code {ERROR_FAIL}).")
    incoming = ColoIncoming(0, "<incoming migration stream>")
    name = str(incoming.config["c_info"]["name"])
    incoming.config["c_info"]["name"] = f"{name}--incoming"
    with lifecycle.global_lock(host):
        domid = lifecycle.make_domain(host, incoming.config, is_built=False)
        try:
            incoming.follow(host, domid)
        except (HelperFailed, DomainGone) as error:
            libxl_error("domcreate_rebuild_done", "cannot (re-)build domain: -3", domid)
            control.destroy(host, domid)
            raise HelperFailed from error
    if not has_bug(host, "filters"):
        control.ask(host, domid, "filters", use=Filters.PLAIN)
    if has_bug(host, "incoming"):
        _abort("xl: libxl_event.c:2102: libxl__ao_complete: Assertion `!ao->complete' failed.")
    lifecycle.watch_over(host, domid, incoming.config, name)
    say(f"migration target: COLO Failover for domain {domid}")
    if not lifecycle.rename(host, domid, name):
        say("migration target (COLO): Failed to rename domain")
    return 0


def _abort(text: str) -> NoReturn:
    say(text)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGABRT)
    raise AssertionError


def describe(host: Host, domid: int) -> JsonObject:
    """Return how a domain's filters stand, and where their sockets lie."""
    reply = control.ask(host, domid, "filters")
    return {**reply, "domid": domid, "directory": str(host.root / "domains" / str(domid))}
