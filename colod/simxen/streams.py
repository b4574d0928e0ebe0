"""`remus`, `migrate-receive`, `save` and `restore`: what xl does around libxl's streams."""

import os
import resource
import signal
import sys
import time
from typing import NoReturn

from colod.simxen import control, lifecycle
from colod.simxen.host import Host
from colod.simxen.lifecycle import CreateFailed
from colod.simxen.saverestore import HelperDied, HelperFailed, Incoming, Sender
from colod.simxen.selection import find_domain
from colod.simxen.speech import (
    ERROR_GUEST_TIMEDOUT,
    XlExit,
    fail,
    libxl_error,
    options,
    say,
)
from colod.simxen.wire import EndOfStream, read_exactly, write_all
from colod.stream import xl

CHILD_REPORT_S = 2.0


def remus(host: Host, arguments: list[str]) -> int:
    """Replicate a domain through a transport command until something breaks."""
    found, rest = options(arguments, "Fbundi:s:N:ecp", "remus", 2)
    domid = find_domain(host, rest[0])
    if "c" in found and not _may_run_colo(host, domid, found):
        return 1
    interval_s = (int(found.get("i") or 0) or 200) / 1000
    ssh = found.get("s", "ssh")
    end = " -e" if "e" in found else ""
    rune = f"exec {ssh} {rest[1]} xl migrate-receive -r {end}" if ssh else rest[1]
    child, send_fd, receive_fd = _transport(host, rune)
    _preamble(child, send_fd, receive_fd, rune)
    if "c" in found:
        return _replicate_colo(host, domid, send_fd, receive_fd)
    sender = Sender(host, domid, send_fd, back_fd=receive_fd, interval_s=interval_s)
    try:
        sender.write_config("migration stream")
    except OSError as error:
        fail(f"xl: fatal error: xl_simulated.c:0: {error.strerror}: libxl_write_exactly")
    return _replicate(host, domid, sender, found)


def _replicate_colo(host: Host, domid: int, send_fd: int, receive_fd: int) -> int:
    from colod.simxen.colo import xl as colo

    sender = colo.ColoSender(host, domid, send_fd, back_fd=receive_fd)
    try:
        sender.write_config("migration stream")
    except OSError as error:
        fail(f"xl: fatal error: xl_simulated.c:0: {error.strerror}: libxl_write_exactly")
    return colo.replicate(host, domid, sender)


def _may_run_colo(host: Host, domid: int, found: dict[str, str]) -> bool:
    from colod.simxen.colo import xl as colo

    if found.keys() & set("idnb"):
        fail("Option -c is mutually exclusive with -i, -d, -n and -b")
    if not colo.is_supported(host):
        libxl_error("libxl__domain_remus_start", "COLO is not supported", domid)
        return False
    kind = control.config_of(host, domid)["c_info"]["type"]
    if kind != "hvm":
        libxl_error("libxl__colo_save_setup", f"COLO only supports hvm now, not {kind}", domid)
        return False
    return True


def _replicate(host: Host, domid: int, sender: Sender, found: dict[str, str]) -> int:
    rc, timer_runs = 0, False
    try:
        _check_buffering(domid, found)
        sender.send(is_live=True, is_checkpointed=True)
    except HelperFailed as error:
        rc = error.rc
        timer_runs = isinstance(error, HelperDied) and error.was_between_checkpoints
        text = f"Remus: Domain suspend terminated with rc {rc}, teardown Remus devices..."
        say(f"libxl: warning: libxl_simulated.c:0:libxl__remus_teardown: Domain {domid}:{text}")
    if control.is_gone(host, domid):
        say("Remus: Primary domain has been destroyed.")
        return 0
    if rc == ERROR_GUEST_TIMEDOUT:
        say("Failed to suspend domain at primary.")
    else:
        # The dangerous habit: nobody asks whether the other side runs the guest by now.
        say("Remus: Backup failed? resuming domain at primary.")
        if not lifecycle.resume(host, domid) and timer_runs:
            _abort()
    return 1


def _abort() -> None:
    # Seen on Xen 4.17: with the helper dead between two checkpoints xl forgets its timer.
    say("xl: libxl.c:166: libxl_ctx_free: Assertion `XEN_TAILQ_EMPTY(&ctx->etimes)' failed.")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGABRT)


def _check_buffering(domid: int, found: dict[str, str]) -> None:
    if "n" not in found:
        libxl_error("libxl__remus_setup", "Remus: No support for network buffering", domid)
        raise HelperFailed
    if "F" not in found:
        text = "Unsafe mode must be enabled to replicate to /dev/null, disable buffering"
        libxl_error("libxl_domain_remus_start", text, domid)
        raise HelperFailed


def _transport(host: Host, rune: str) -> tuple[int, int, int]:
    theirs_in, send_fd = os.pipe()
    receive_fd, theirs_out = os.pipe()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        try:
            os.dup2(theirs_in, 0)
            os.dup2(theirs_out, 1)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvp("sh", ["sh", "-c", rune])
        finally:
            os._exit(1)
    host.register("transport", child)
    os.close(theirs_in)
    os.close(theirs_out)
    return child, send_fd, receive_fd


def _preamble(child: int, send_fd: int, receive_fd: int, rune: str) -> None:
    stream = "migration receiver stream"
    try:
        got = read_exactly(receive_fd, len(xl.MIGRATE_RECEIVER_BANNER))
    except (EndOfStream, OSError):
        libxl_error("libxl_read_exactly", f"file/stream truncated reading banner from {stream}")
    else:
        if got == xl.MIGRATE_RECEIVER_BANNER:
            return
        say(f"{stream} contained unexpected data instead of banner")
        say(f"(command run was: {rune} )")
    os.close(send_fd)
    _report_child(child)
    raise XlExit(1)


def _report_child(child: int) -> None:
    deadline = time.monotonic() + CHILD_REPORT_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            if code:
                say(f"libxl: info: migration transport process [{child}] exited with status {code}")
            return
        time.sleep(0.01)
    say(f"migration child [{child}] not exiting, no longer waiting (exit status unreported)")


def migrate_receive(host: Host, arguments: list[str]) -> int:
    """Build a replica from stdin; when the stream ends for whatever reason, let it run."""
    is_colo = "--colo" in arguments
    found, rest = options(_short(arguments), "Fedrp", "migrate-receive", 0)
    if rest:
        fail("Usage: xl migrate-receive [-r] [-e]")
    if "r" not in found and not is_colo:
        fail("migrate-receive: the simulated Xen only receives Remus streams (-r) and --colo")
    say("migration target: Ready to receive domain.")
    write_all(1, xl.MIGRATE_RECEIVER_BANNER)
    try:
        if is_colo:
            from colod.simxen.colo import xl as colo

            return colo.migrate_receive(host)
        incoming = Incoming(0, "<incoming migration stream>")
        name = str(incoming.config["c_info"]["name"])
        domid = _receive(host, incoming, f"{name}--incoming", is_checkpointed=True)
    except (HelperFailed, CreateFailed) as error:
        fail(f"migration target: Domain creation failed (code {error.rc}).")
    if "e" not in found:
        lifecycle.watch_over(host, domid, incoming.config, name)
    # The dangerous habit: every end of the stream means that the other side died.
    say(f"migration target: Remus Failover for domain {domid}")
    if not lifecycle.rename(host, domid, name):
        say("migration target (Remus): Failed to rename domain")
    return 0 if lifecycle.unpause(host, domid) else 1


def _short(arguments: list[str]) -> list[str]:
    """Return the arguments without the long ones, which only COLO has."""
    rest = [each for each in arguments if each not in {"--colo", "--userspace-colo-proxy"}]
    if "--coloft-script" in rest:
        at = rest.index("--coloft-script")
        del rest[at : at + 2]
    return rest


def _receive(host: Host, incoming: Incoming, name: str, *, is_checkpointed: bool) -> int:
    incoming.config["c_info"]["name"] = name
    with lifecycle.global_lock(host):
        domid = lifecycle.make_domain(host, incoming.config, is_built=False)
        try:
            incoming.restore(host, domid, is_checkpointed=is_checkpointed)
        except (HelperFailed, control.DomainGone) as error:
            text = "cannot (re-)build domain: -3"
            libxl_error("domcreate_rebuild_done", text, domid)
            control.destroy(host, domid)
            raise HelperFailed from error
    return domid


def save(host: Host, arguments: list[str]) -> int:
    """Write a domain to a file; afterwards it is destroyed, or goes on with `-c`."""
    found, rest = options(arguments, "cpD", "save", 2)
    domid = find_domain(host, rest[0])
    try:
        fd = os.open(rest[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError:
        fail(f"Failed to open temp file {rest[1]} for writing")
    try:
        sender = Sender(host, domid, fd)
        sender.write_config(rest[1])
        sender.send(is_live=False, is_checkpointed=False)
    except (HelperFailed, OSError):
        say("Failed to save domain, resuming domain")
        lifecycle.resume(host, domid)
        return 1
    finally:
        os.close(fd)
    if "p" in found:
        lifecycle.pause(host, domid)
    if "p" in found or "c" in found:
        lifecycle.resume(host, domid)
    else:
        control.destroy(host, domid)
    return 0


def restore(host: Host, arguments: list[str]) -> int:
    """Build a domain from a file and let it run."""
    found, rest = options(arguments, "FcpdeVA", "restore", 1)
    try:
        fd = os.open(rest[-1], os.O_RDONLY)
    except OSError as error:
        _cannot(f"Can't open restore file: {error.strerror}")
    try:
        incoming = Incoming(fd, rest[-1])
        name = str(incoming.config["c_info"]["name"])
        domid = _receive(host, incoming, name, is_checkpointed=False)
    except (HelperFailed, CreateFailed):
        return 1
    finally:
        os.close(fd)
    if "p" not in found:
        lifecycle.unpause(host, domid)
    if "e" not in found:
        lifecycle.watch_over(host, domid, incoming.config, name)
    return 0


def _cannot(text: str) -> NoReturn:
    fail(text)
