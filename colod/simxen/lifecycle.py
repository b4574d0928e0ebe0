"""Making domains, and watching over them as xl's background process does."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from colod.simxen import control, speech
from colod.simxen.control import DomainGone, DomainLink
from colod.simxen.domain import SHUTDOWN_REBOOT, SHUTDOWN_SUSPEND
from colod.simxen.guest import Machine
from colod.simxen.host import Host
from colod.simxen.speech import ERROR_FAIL, libxl_error, say

JsonObject = dict[str, Any]

DEFAULT_TOTAL_MEMORY_MIB = 8192
DOM0_MEMORY_MIB = 1024
REBOOT_PAUSE_S = 0.2
"""xl itself waits two seconds before it makes a rebooted domain anew."""


class CreateFailed(Exception):
    """The domain could not be made; carries libxl's error number."""

    def __init__(self, rc: int) -> None:
        """Keep the number."""
        super().__init__(rc)
        self.rc = rc


@contextlib.contextmanager
def global_lock(host: Host) -> Iterator[None]:
    """Hold xl's global lock, which it takes only to balloon dom0.

    xl holds it during the whole restore, so one incoming replica then blocks every other start
    of a domain on that host.
    """
    if not host.is_autoballooning:
        yield
        return
    fd = os.open(host.root / "xl.lock", os.O_WRONLY | os.O_CREAT, 0o200)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def make_domain(host: Host, config: JsonObject, *, is_built: bool) -> int:
    """Start a domain, paused once; its guest boots when it is first unpaused.

    Args:
        host: Where.
        config: libxl's JSON; `c_info.name` must be free on this host.
        is_built: False for a domain whose memory comes from a stream.

    Returns:
        Its domid.

    Raises:
        CreateFailed: The name is taken, or memory is short.
    """
    with host.hypervisor_lock():
        domid = host.next_domid()
        _check_room(host, config, domid)
        staging = host.root / "domains" / f".new-{domid}"
        staging.mkdir()
        (staging / "config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
        Machine.create(staging, int(config.get("simulated", {}).get("memory_pages", 1024)))
        listener = _control_socket(staging)
        staging.rename(host.root / "domains" / str(domid))
        _spawn(host, domid, listener, is_built)
        listener.close()
    return domid


def _check_room(host: Host, config: JsonObject, domid: int) -> None:
    name = config["c_info"]["name"]
    living = control.domains(host)
    if any(each["name"] == name for each in living):
        libxl_error("libxl__domain_rename", f'Domain with name "{name}" already exists.', domid)
        libxl_error("initiate_domain_create", "cannot make domain: -6", domid)
        raise CreateFailed(ERROR_FAIL)
    wanted = int(config["b_info"]["max_memkb"]) // 1024
    free = free_memory_mib(host, living)
    if wanted > free:
        text = f"cannot allocate {wanted} MiB, {free} MiB are free (simulated)"
        libxl_error("libxl__build_pre", text, domid)
        raise CreateFailed(ERROR_FAIL)


def total_memory_mib(host: Host) -> int:
    """Return the simulated host's memory; xl.conf may set `sim_total_memory`."""
    return int(host.setting("sim_total_memory", str(DEFAULT_TOTAL_MEMORY_MIB)))


def free_memory_mib(host: Host, living: list[JsonObject]) -> int:
    """Return what is left for further domains."""
    used = sum(int(each["memory_mib"]) for each in living)
    return total_memory_mib(host) - DOM0_MEMORY_MIB - used


def _control_socket(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(control.short_path(directory / "ctl", fd))
    finally:
        os.close(fd)
    listener.listen(64)
    return listener


def _spawn(host: Host, domid: int, listener: socket.socket, is_built: bool) -> None:
    def live() -> None:
        # An image of its own: nothing that looks for xl's processes may find a domain instead.
        os.set_inheritable(listener.fileno(), True)
        words = (str(host.root), str(domid), str(listener.fileno()), str(int(is_built)))
        execute("colod.simxen.domain", "simxen-domain", *words)

    detach(host, f"domain {domid}", live, log=f"dom{domid}.log", keep=listener.fileno())


def execute(module: str, *words: str) -> NoReturn:
    """Become a fresh interpreter that runs `module.main(words[1:])`."""
    code = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; "
    root = str(Path(__file__).resolve().parents[2])
    # Without site-packages it starts in a fraction of the time.
    line = [sys.executable, "-S", "-c", f"{code}main(sys.argv[2:])", root, *words]
    os.execv(sys.executable, line)


def detach(
    host: Host, role: str, work: Callable[[], None], *, log: str, keep: int | None = None
) -> None:
    """Run `work` in a process of its own, outside the caller's session and its pipes.

    Returns once the new process is recorded as one of this host's.
    """
    ready, done = os.pipe()
    sys.stderr.flush()
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.close(done)
        os.waitpid(child, 0)
        os.read(ready, 1)
        os.close(ready)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _redirect(host, log, {keep, done})
        host.register(role)
        os.write(done, b"+")
        os.close(done)
        work()
    except BaseException as error:
        _bury(error)
    finally:
        host.unregister()
        os._exit(0)


def _bury(error: BaseException) -> NoReturn:
    import traceback

    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def _redirect(host: Host, log: str, keep: set[int | None]) -> None:
    # Nothing of the caller's may stay open: an inherited pipe would hide its end of file.
    out = os.open(host.root / "log" / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    kept = {0, 1, 2, *keep}
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(entry.name))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def watch_over(host: Host, domid: int, config: JsonObject, name: str) -> None:
    """Leave a background xl that reacts to the domain's poweroff, reboot and crash.

    Args:
        host: Where.
        domid: The domain to watch.
        config: What a reboot makes the domain anew from.
        name: The name that a reboot gives it (not `NAME--incoming`).
    """
    log = f"xl-{config['c_info']['name']}.log"
    detach(host, f"xl monitor {domid}", lambda: _monitor(host, domid, config, name), log=log)


def _monitor(host: Host, domid: int, config: JsonObject, name: str) -> None:
    current: int | None = domid
    while current is not None:
        say(f"Waiting for domain {name} (domid {current}) to die [pid {os.getpid()}]")
        reason = _wait_death(host, current)
        if reason is None:
            say(f"Domain {current} has been destroyed.")
            return
        if reason == SHUTDOWN_SUSPEND:
            # Also a checkpoint's: from the first one on nobody sees to the guest's end.
            say("Domain has suspended.")
            say("Done. Exiting now")
            return
        current = _react(host, current, config, name, reason)


def _wait_death(host: Host, domid: int) -> int | None:
    try:
        with DomainLink(host, domid) as link:
            link.send("watch")
            return int(link.receive(None)["reason"])
    except DomainGone:
        return None


def _react(host: Host, domid: int, config: JsonObject, name: str, reason: int) -> int | None:
    key = {0: "on_poweroff", SHUTDOWN_REBOOT: "on_reboot"}.get(reason, "on_crash")
    action = str(config.get(key, "destroy"))
    say(f"Domain {domid} has shut down, reason code {reason} 0x{reason:x}")
    say(f"Action for shutdown reason code {reason} is {action}")
    if action == "preserve":
        return None
    say(f"Domain {domid} needs to be cleaned up: destroying the domain")
    control.destroy(host, domid)
    if action != "restart":
        say("Done. Exiting now")
        return None
    say("Done. Rebooting now")
    time.sleep(REBOOT_PAUSE_S)
    config["c_info"]["name"] = name
    try:
        with global_lock(host):
            fresh = make_domain(host, config, is_built=True)
    except CreateFailed as error:
        say(f"cannot make the domain again: {error.rc}")
        return None
    control.ask(host, fresh, "unpause")
    return fresh


def rename(host: Host, domid: int, name: str) -> bool:
    """Give a domain another name, if no other domain has it."""
    with host.hypervisor_lock():
        other = control.find_by_name(host, name)
        if other not in {None, domid}:
            libxl_error("libxl__domain_rename", f'Domain with name "{name}" already exists.', domid)
            return False
        return bool(control.ask(host, domid, "rename", name=name)["ok"])


def prune(host: Host) -> None:
    """Remove what dead domains left: for a host whose processes are all gone."""
    for part in ("domains", "guests"):
        for entry in (host.root / part).iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def unpause(host: Host, domid: int) -> bool:
    """Drop one pause reference; False, with Xen's complaint, if there was none."""
    return _counted(host, domid, "unpause", "domain_unpause_done", "Unpausing domain")


def pause(host: Host, domid: int) -> bool:
    """Take one pause reference."""
    return _counted(host, domid, "pause", "libxl_domain_pause", "Pausing domain")


def _counted(host: Host, domid: int, command: str, function: str, text: str) -> bool:
    try:
        reply = control.ask(host, domid, command)
    except DomainGone:
        libxl_error(function, f"{text}: No such process", domid)
        return False
    if not reply["ok"]:
        libxl_error(function, f"{text}: {reply['error']}", domid)
    return bool(reply["ok"])


def resume(host: Host, domid: int) -> bool:
    """Make a suspended guest run again; of one that is not suspended, complain like libxc."""
    try:
        reply = control.ask(host, domid, "resume")
    except DomainGone:
        libxl_error("domain_resume_done", "xc_domain_resume failed: No such process", domid)
        return False
    if not reply["ok"]:
        shutdown = reply["shutdown"]
        reason = 255 if shutdown is None else shutdown
        state = f"(shutdown {int(shutdown is not None)}, reason {reason})"
        speech.say(f"xc: error: Dom {domid} not suspended: {state}: Internal error")
        libxl_error("domain_resume_done", "xc_domain_resume failed: Invalid argument", domid)
    return bool(reply["ok"])
