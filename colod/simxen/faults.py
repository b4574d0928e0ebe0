"""`colod-simxl sim …`: what no xl has, for demos, drills and tests."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable

from colod.simxen import control, lifecycle
from colod.simxen.control import DomainGone
from colod.simxen.host import Host, kill_processes
from colod.simxen.selection import find_domain
from colod.simxen.speech import fail, say


def sim(host: Host, arguments: list[str]) -> int:
    """Run one of the simulation's own commands."""
    action = SIM_COMMANDS.get(arguments[0]) if arguments else None
    if action is None:
        fail(f"Usage: colod-simxl sim {'|'.join(SIM_COMMANDS)}", 2)
    return action(host, arguments[1:])


def suffer(host: Host, command: str) -> int | None:
    """Carry out what was ordered for this command; return its status, None to let it run."""
    path = host.root / "faults" / command
    try:
        order = path.read_text(encoding="utf-8").split()
        path.unlink()
    except OSError:
        return None
    if order[0] == "hang":
        host.register(f"hanging {command}")
        while host.exists:
            time.sleep(0.2)
    if order[0] == "delay":
        time.sleep(float(order[1]))
        return None
    say(f"colod-simxl: simulated failure of {command}")
    return int(order[1])


def _kill_host(host: Host, _: list[str]) -> int:
    """Cut the power: every process of this host dies at once, transports included.

    What starts afterwards runs under another boot of the host.
    """
    host.boot_anew()
    if not kill_processes(host):
        fail("some processes of this host did not die")
    lifecycle.prune(host)
    return 0


def _stop_host(host: Host, _: list[str]) -> int:
    """Shut the host down: destroy its domains, end what is left."""
    for each in control.domains(host):
        control.destroy(host, each["domid"])
    return _kill_host(host, [])


def _guests(host: Host, _: list[str]) -> int:
    """Print every domain's true state, pause count included, as JSON."""
    print(json.dumps(control.domains(host), indent=4))
    return 0


def _processes(host: Host, _: list[str]) -> int:
    """Print this host's processes as JSON."""
    found = [{"pid": each.pid, "role": each.role} for each in host.processes()]
    print(json.dumps(found, indent=4))
    return 0


def _guest(host: Host, arguments: list[str]) -> int:
    """`NAME [REQUEST]`: ask a running guest past its network; fails if it does not run here."""
    path = host.root / "guests" / f"{arguments[0]}.sock"
    request = " ".join(arguments[1:]) or "get"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(2.0)
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with connection:
            connection.connect(control.short_path(path, fd))
            connection.sendall(f"{request}\n".encode())
            print(connection.recv(65536).decode().strip())
    except OSError as error:
        fail(f"guest {arguments[0]} does not answer on {host.name}: {error}")
    finally:
        os.close(fd)
    return 0


def _plug(host: Host, arguments: list[str]) -> int:
    """`VIF add|buffer|release_one|release_indefinite|limit N|show|del`: the emulated qdisc."""
    if len(arguments) < 2 or arguments[1] not in _PLUG_ACTIONS:
        fail(f"Usage: sim plug VIF {'|'.join(_PLUG_ACTIONS)}", 2)
    vif, action = arguments[0], arguments[1]
    size = int(arguments[2]) if action == "limit" else 0
    domid = int("".join(letter for letter in vif.partition(".")[0] if letter.isdigit()) or -1)
    try:
        reply = control.ask(host, domid, "plug", vif=vif, action=action, bytes=size)
    except DomainGone:
        fail(f"no such interface: {vif}")
    if not reply["ok"]:
        fail(str(reply["error"]))
    if action == "show":
        print(json.dumps(reply))
    return 0


_PLUG_ACTIONS = ("add", "buffer", "release_one", "release_indefinite", "limit", "show", "del")


def _fail_next(host: Host, arguments: list[str]) -> int:
    """`COMMAND [STATUS]`: let the next xl COMMAND fail before it does anything."""
    status = arguments[1] if len(arguments) > 1 else "1"
    (host.root / "faults" / arguments[0]).write_text(f"fail {int(status)}", encoding="utf-8")
    return 0


def _delay_next(host: Host, arguments: list[str]) -> int:
    """`COMMAND SECONDS`: let the next xl COMMAND begin so much later."""
    order = f"delay {float(arguments[1])}"
    (host.root / "faults" / arguments[0]).write_text(order, encoding="utf-8")
    return 0


def _hang_next(host: Host, arguments: list[str]) -> int:
    """`COMMAND`: let the next xl COMMAND hang until it is killed."""
    (host.root / "faults" / arguments[0]).write_text("hang 1", encoding="utf-8")
    return 0


def _slow_suspend(host: Host, arguments: list[str]) -> int:
    """`NAME MS`: let the guest take so long for each suspend."""
    domid = find_domain(host, arguments[0])
    control.ask(host, domid, "knob", suspend_delay_s=int(arguments[1]) / 1000)
    return 0


def _kill_helper(host: Host, arguments: list[str]) -> int:
    """`NAME`: SIGKILL the save-helper of a domain."""
    role = f"save-helper {find_domain(host, arguments[0])}"
    found = [each for each in host.processes() if each.role == role]
    for each in found:
        os.kill(each.pid, signal.SIGKILL)
    return 0 if found else 1


def _colo(host: Host, arguments: list[str]) -> int:
    """`[NAME ACTION]`: filters and copies of a guest in COLO."""
    from colod.simxen.colo.commands import colo

    return colo(host, arguments)


SIM_COMMANDS: dict[str, Callable[[Host, list[str]], int]] = {
    "kill-host": _kill_host,
    "stop-host": _stop_host,
    "guests": _guests,
    "guest": _guest,
    "processes": _processes,
    "plug": _plug,
    "fail": _fail_next,
    "hang": _hang_next,
    "delay": _delay_next,
    "slow-suspend": _slow_suspend,
    "kill-helper": _kill_helper,
    "colo": _colo,
}
