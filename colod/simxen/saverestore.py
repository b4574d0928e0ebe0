"""xl's side of a save or restore: it runs the helper and answers its questions."""

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from colod.simxen import control, lifecycle
from colod.simxen.control import DomainGone, SuspendTimedOut
from colod.simxen.helper import CHECKPOINT_FAILOVER, CHECKPOINT_SUCCESS
from colod.simxen.host import Host
from colod.simxen.speech import (
    ERROR_FAIL,
    ERROR_GUEST_TIMEDOUT,
    ERROR_INVAL,
    fail,
    libxl_error,
    say,
)
from colod.simxen.wire import EndOfStream, StreamBroken, read_exactly, read_record, write_all
from colod.stream import libxl, writer, xl
from colod.stream.record import ByteOrder

JsonObject = dict[str, Any]


class HelperFailed(Exception):
    """The helper reported a failure, or died; carries libxl's error number."""

    def __init__(self, rc: int = ERROR_FAIL) -> None:
        """Keep the number."""
        super().__init__(rc)
        self.rc = rc


class HelperDied(HelperFailed):
    """The helper ended without a word.

    Attributes:
        was_between_checkpoints: xl's interval timer was running at that moment.
    """

    def __init__(self, *, was_between_checkpoints: bool) -> None:
        """Keep when it was."""
        super().__init__()
        self.was_between_checkpoints = was_between_checkpoints


class Helper:
    """A running `libxl-save-helper`."""

    def __init__(
        self, host: Host, domid: int, mode: str, fds: tuple[int, int], *flags: str
    ) -> None:
        """Start it; it gets descriptors of its own of the stream and of its back channel.

        So the other end of either sees no end of file before xl *and* the helper are gone.
        """
        self._host = host
        self._domid = domid
        directory = host.root / "domains" / str(domid)
        stream, back = os.dup(fds[0]), os.dup(fds[1])
        reply_end, self._reply = os.pipe()
        self._request, request_end = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            arguments = [mode, str(stream), str(back), str(domid), str(directory), *flags]
            _become_helper(reply_end, request_end, (stream, back), arguments)
        for each in (stream, back, reply_end, request_end):
            os.close(each)
        host.register(f"save-helper {domid}", self.pid)

    def fileno(self) -> int:
        """Return where its questions arrive, for `select`."""
        return self._request

    def converse(self, answers: dict[str, Callable[[], int]]) -> None:
        """Answer its questions until it is done.

        Raises:
            HelperFailed: It failed, or it died.
        """
        unread, question = b"", ""
        while True:
            ready, _, _ = select.select([self._request], [], [], 1.0)
            if not ready:
                self._check_host()
                continue
            got = os.read(self._request, 4096)
            if not got:
                self._report_death()
                raise HelperDied(was_between_checkpoints=question == "checkpoint")
            unread += got
            while b"\n" in unread:
                line, _, unread = unread.partition(b"\n")
                question, _, rc = line.decode().partition(" ")
                if question == "complete":
                    self._reap()
                    if int(rc):
                        raise HelperFailed
                    return
                self._answer(answers[question]())

    def _answer(self, value: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            write_all(self._reply, f"{value}\n".encode())

    def _check_host(self) -> None:
        if not self._host.exists:
            os.kill(self.pid, signal.SIGKILL)

    def _report_death(self) -> None:
        status = self._reap()
        how = f"exited with error status {os.waitstatus_to_exitcode(status)}"
        if os.WIFSIGNALED(status):
            how = f"died due to fatal signal {signal.strsignal(os.WTERMSIG(status))}"
        who = f"domain {self._domid} save/restore helper"
        text = f"file/stream truncated reading ipc msg header from {who} stdout pipe"
        libxl_error("libxl_read_exactly", text)
        libxl_error("libxl_report_child_exitstatus", f"{who} [{self.pid}] {how}")

    def _reap(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self._host.unregister(self.pid)
        for each in (self._reply, self._request):
            os.close(each)
        return status


def _become_helper(reply: int, request: int, kept: tuple[int, int], arguments: list[str]) -> None:
    try:
        os.dup2(reply, 0)
        os.dup2(request, 1)
        for each in kept:
            os.set_inheritable(each, True)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        lifecycle.execute("colod.simxen.helper", "libxl-save-helper", *arguments)
    finally:
        os._exit(127)


class Sender:
    """One domain on its way out of this host."""

    def __init__(
        self, host: Host, domid: int, fd: int, *, back_fd: int = -1, interval_s: float = 0.0
    ) -> None:
        """Write to `fd`; checkpoints come `interval_s` seconds after each other's end.

        Remus never reads `back_fd`; the helper only holds it open.
        """
        self._host = host
        self._domid = domid
        self._fd = fd
        self._back_fd = fd if back_fd < 0 else back_fd
        self._interval_s = interval_s
        self._rc = ERROR_FAIL
        self._helper: Helper

    def write_config(self, source: str) -> None:
        """Write xl's header with the domain's configuration."""
        text = json.dumps(control.config_of(self._host, self._domid), indent=4)
        header = writer.xl_header((text + "\n").encode())
        write_all(self._fd, header)
        length = len(header) - xl.HEADER_BYTES
        say(f"Saving to {source} new xl format (info 0x3/0x0/{length})")

    def send(self, *, is_live: bool, is_checkpointed: bool) -> None:
        """Write libxl's stream; with checkpoints this returns only by an exception.

        Raises:
            HelperFailed: The stream broke, the guest did not suspend, or it is gone.
        """
        context = writer.libxl_record(libxl.RecordType.LIBXC_CONTEXT)
        try:
            write_all(self._fd, writer.libxl_header() + context)
        except OSError as error:
            raise HelperFailed from error
        flags = (str(int(is_live)), str(int(is_checkpointed)))
        fds = (self._fd, self._back_fd)
        helper = self._helper = Helper(self._host, self._domid, "--save-domain", fds, *flags)
        answers = {
            "suspend": self._suspend,
            "postcopy": lambda: int(lifecycle.resume(self._host, self._domid)),
            "checkpoint": self._checkpoint,
        }
        try:
            helper.converse(answers)
            write_all(self._fd, writer.libxl_record(libxl.RecordType.END))
        except OSError as error:
            raise HelperFailed from error
        except HelperDied:
            raise
        except HelperFailed as error:
            raise HelperFailed(self._rc) from error

    def _suspend(self) -> int:
        timeout_s = float(self._host.setting("sim_suspend_timeout", "60"))
        try:
            reply = control.suspend(self._host, self._domid, timeout_s)
        except DomainGone:
            text = "guest we were suspending has been destroyed"
        except SuspendTimedOut:
            self._rc = ERROR_GUEST_TIMEDOUT
            text = "guest did not suspend, timed out"
        else:
            if reply["ok"]:
                return 1
            reason = reply["shutdown"]
            text = f"guest we were suspending has shut down with unexpected reason code {reason}"
        libxl_error("domain_suspend", text, self._domid)
        return 0

    def _checkpoint(self) -> int:
        try:
            write_all(self._fd, writer.checkpoint_end())
        except OSError as error:
            libxl_error("stream_write", f"Failed to write CHECKPOINT_END: {error.strerror}")
            return 0
        # A timer of libxl, not a wait for the other side: nobody acknowledges anything.
        # Only the helper's death ends it early: the helper says nothing before our reply.
        select.select([self._helper], [], [], self._interval_s)
        return 1


class Incoming:
    """What xl read before libxl's stream: the configuration of the domain to come."""

    def __init__(self, fd: int, source: str) -> None:
        """Read xl's header from `fd`.

        Raises:
            XlExit: It is not one; xl has said so.
        """
        self.fd = fd
        header = self._read(xl.HEADER_BYTES, source)
        if not header.startswith(xl.SAVEFILE_MAGIC):
            say("File has wrong magic number - corrupt or for a different tool?")
            raise HelperFailed(ERROR_INVAL)
        order, mandatory, optional, length = xl.header_fields(ByteOrder.LITTLE).unpack(header[32:])
        if order != xl.SAVEFILE_BYTEORDER_VALUE:
            say("File has wrong byte order")
            raise HelperFailed(ERROR_INVAL)
        info = f"0x{mandatory:x}/0x{optional:x}/{length}"
        say(f"Loading new save file {source} (new xl fmt info {info})")
        if mandatory & ~xl.XL_MANDATORY_FLAG_ALL or length < 4:
            say("Savefile has mandatory flag(s) which are not supported, or no config")
            raise HelperFailed(ERROR_INVAL)
        text = bytes(self._read(length, source)[4:]).rstrip(b"\0")
        say(" Savefile contains xl domain config in JSON format")
        say("Parsing config from <saved>")
        self.config = self._parse(text)

    def restore(self, host: Host, domid: int, *, is_checkpointed: bool) -> None:
        """Read libxl's stream into a domain made for it; a plain image has to end properly.

        Raises:
            HelperFailed: There is no consistent domain.
        """
        self._read_libxl_header()
        fds = (self.fd, 1 if is_checkpointed else self.fd)
        helper = Helper(host, domid, "--restore-domain", fds)
        helper.converse({"checkpoint": self._checkpoint})
        if not is_checkpointed:
            self._read_end()
        reply = control.ask(host, domid, "built")
        if not reply["intact"]:
            say("colod-simxl: the restored guest's memory is not of one moment (simulated check)")

    def _read(self, size: int, source: str) -> bytearray:
        try:
            return read_exactly(self.fd, size)
        except (EndOfStream, OSError):
            libxl_error("libxl_read_exactly", f"file/stream truncated reading header from {source}")
            fail("xl: fatal error: xl_simulated.c:0: Input/output error: libxl_read_exactly")

    @staticmethod
    def _parse(text: bytes) -> JsonObject:
        try:
            config: JsonObject = json.loads(text)
            _ = config["c_info"]["name"], config["b_info"]["target_memkb"]
        except (ValueError, KeyError, TypeError) as error:
            say("Failed to parse the domain's configuration")
            raise HelperFailed(ERROR_INVAL) from error
        return config

    def _read_libxl_header(self) -> None:
        try:
            ident, version, _ = libxl.HEADER.unpack(read_exactly(self.fd, libxl.HEADER.size))
            if ident != libxl.IDENT or version != libxl.VERSION:
                libxl_error(
                    "stream_header_done", f"Invalid ident or version: {ident:#x}, {version}"
                )
                raise HelperFailed
            kind, _body = read_record(self.fd)
        except (EndOfStream, StreamBroken) as error:
            libxl_error("stream_read", str(error))
            raise HelperFailed from error
        if kind != libxl.RecordType.LIBXC_CONTEXT:
            libxl_error("process_record", f"Unrecognised record 0x{kind:08x}")
            raise HelperFailed

    def _read_end(self) -> None:
        try:
            kind = None
            while kind != libxl.RecordType.END:
                kind, _ = read_record(self.fd)
        except (EndOfStream, StreamBroken, OSError) as error:
            libxl_error("stream_read", str(error))
            raise HelperFailed from error

    def _checkpoint(self) -> int:
        # libxl's records of a checkpoint: up to CHECKPOINT_END they are only gathered.
        try:
            while True:
                kind, _ = read_record(self.fd)
                if kind == libxl.RecordType.CHECKPOINT_END:
                    return CHECKPOINT_SUCCESS
                if kind not in libxl.EMULATOR_RECORDS:
                    libxl_error("process_record", f"Unrecognised record 0x{kind:08x}")
                    return CHECKPOINT_FAILOVER
        except (EndOfStream, StreamBroken, OSError) as error:
            libxl_error("stream_read", str(error))
            return CHECKPOINT_FAILOVER
