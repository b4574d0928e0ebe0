"""`colod-simxl`: the command line of a simulated xl."""

import importlib
import sys

from colod.simxen.host import Host
from colod.simxen.speech import XlExit, say

_COMMANDS = {
    "list": ("listing", "list_domains"),
    "info": ("listing", "info"),
    "network-list": ("listing", "network_list"),
    "xenstore": ("listing", "xenstore"),
    "--version": ("listing", "version"),
    "create": ("commands", "create"),
    "destroy": ("commands", "destroy"),
    "pause": ("commands", "pause"),
    "unpause": ("commands", "unpause"),
    "resume": ("commands", "resume"),
    "rename": ("commands", "rename"),
    "shutdown": ("commands", "shutdown"),
    "reboot": ("commands", "reboot"),
    "domid": ("commands", "domid"),
    "domname": ("commands", "domname"),
    "remus": ("streams", "remus"),
    "migrate-receive": ("streams", "migrate_receive"),
    "save": ("streams", "save"),
    "restore": ("streams", "restore"),
    "sim": ("faults", "sim"),
}
"""From command to (module, function): only the one that is asked for is imported."""

_RECORDED = frozenset({"create", "remus", "migrate-receive", "save", "restore"})


def main() -> None:
    """Run one command and exit with its status."""
    arguments = sys.argv[1:]
    while arguments and arguments[0] in {"-v", "-vv", "-vvv", "-f", "-t", "-T", "-N"}:
        arguments.pop(0)
    if not arguments or arguments[0] == "help":
        print("Usage colod-simxl (simulated xl) <subcommand> [args]\n")
        print("\n".join(f" {name}" for name in _COMMANDS))
        sys.exit(0 if arguments else 1)
    try:
        status = _run(arguments[0], arguments[1:])
    except XlExit as ending:
        status = ending.status
    except KeyboardInterrupt:
        status = 130
    sys.stdout.flush()
    sys.exit(status)


def _run(command: str, arguments: list[str]) -> int:
    if command not in _COMMANDS:
        say("command not implemented")
        return 1
    try:
        host = Host.from_environment()
    except LookupError as error:
        say(f"colod-simxl: {error}\ncannot init xl context")
        return 1
    if (host.root / "faults" / command).exists():
        from colod.simxen.faults import suffer

        suffered = suffer(host, command)
        if suffered is not None:
            return suffered
    if command in _RECORDED:
        host.register(f"xl {command}")
    module, function = _COMMANDS[command]
    action = getattr(importlib.import_module(f"colod.simxen.{module}"), function)
    try:
        status: int = action(host, arguments)
    finally:
        if command in _RECORDED:
            host.unregister()
    return status
