"""xl's short commands on domains."""

import json
import os
from pathlib import Path

from colod.simxen import control, lifecycle
from colod.simxen.control import DomainGone
from colod.simxen.domain import SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT
from colod.simxen.host import Host
from colod.simxen.lifecycle import CreateFailed
from colod.simxen.selection import find_domain
from colod.simxen.speech import (
    BANNER,
    ERROR_DOMAIN_NOTFOUND,
    fail,
    libxl_error,
    options,
    say,
)


def create(host: Host, arguments: list[str]) -> int:
    """Make a domain from a configuration file."""
    from colod.simxen.settings import ConfigProblem, domain_config

    found, rest = options(arguments, "AFVcdef:inpq", "create", 0)
    files = [each for each in rest if "=" not in each] or [found.get("f", "")]
    say(BANNER)
    try:
        text = Path(files[0]).read_text(encoding="utf-8") if files[0] else ""
    except OSError as error:
        fail(f"Failed to read config file: {files[0]}: {error.strerror}", 3)
    extra = "\n".join(each for each in rest if "=" in each)
    if "q" not in found:
        say(f"Parsing config from {files[0]}")
    try:
        config = domain_config(f"{text}\n{extra}\n")
    except ConfigProblem as problem:
        fail(str(problem))
    if "n" in found:
        print(json.dumps(config, indent=4))
        return 0
    try:
        with lifecycle.global_lock(host):
            domid = lifecycle.make_domain(host, config, is_built=True)
    except CreateFailed as error:
        return -error.rc
    if "p" not in found:
        lifecycle.unpause(host, domid)
    if "e" not in found:
        lifecycle.watch_over(host, domid, config, str(config["c_info"]["name"]))
    return 0


def pause(host: Host, arguments: list[str]) -> int:
    """Take a pause reference; like xl, exit with 0 whatever became of it."""
    _, rest = options(arguments, "", "pause", 1)
    lifecycle.pause(host, find_domain(host, rest[0]))
    return 0


def unpause(host: Host, arguments: list[str]) -> int:
    """Drop a pause reference; like xl, exit with 0 whatever became of it."""
    _, rest = options(arguments, "", "unpause", 1)
    lifecycle.unpause(host, find_domain(host, rest[0]))
    return 0


def resume(host: Host, arguments: list[str]) -> int:
    """Make a suspended domain run again; like xl, exit with 0 whatever became of it."""
    _, rest = options(arguments, "", "resume", 1)
    lifecycle.resume(host, find_domain(host, rest[0]))
    return 0


def destroy(host: Host, arguments: list[str]) -> int:
    """Destroy a domain at once."""
    _, rest = options(arguments, "f", "destroy", 1)
    domid = find_domain(host, rest[0])
    if domid == 0:
        fail("Not destroying domain 0; use -f to force.")
    if not control.destroy(host, domid):
        libxl_error("libxl__destroy_domid", "Non-existant domain", domid)
        libxl_error("domain_destroy_callback", "Unable to destroy guest", domid)
        libxl_error("domain_destroy_cb", "Destruction of domain failed", domid)
        fail(f"destroy failed (rc={ERROR_DOMAIN_NOTFOUND})")
    return 0


def rename(host: Host, arguments: list[str]) -> int:
    """Give a domain another name."""
    _, rest = options(arguments, "", "rename", 2)
    domid = find_domain(host, rest[0])
    try:
        renamed = lifecycle.rename(host, domid, rest[1])
    except DomainGone:
        renamed = False
    if not renamed:
        fail(f"Can't rename domain '{rest[0]}'.")
    return 0


def shutdown(host: Host, arguments: list[str]) -> int:
    """Ask the guest to power off."""
    return _ask_guest(host, arguments, "shutdown", SHUTDOWN_POWEROFF, "Shutting down domain")


def reboot(host: Host, arguments: list[str]) -> int:
    """Ask the guest to reboot."""
    return _ask_guest(host, arguments, "reboot", SHUTDOWN_REBOOT, "Rebooting domain")


def _ask_guest(host: Host, arguments: list[str], command: str, reason: int, text: str) -> int:
    found, rest = options(arguments, "awF", command, 0)
    if not rest:
        fail("You must specify -a or a domain id.\n")
    domid = find_domain(host, rest[0])
    say(f"{text} {domid}")
    try:
        with control.DomainLink(host, domid) as link:
            link.ask("shutdown", reason=reason)
    except DomainGone:
        fail(f"{command} failed (rc={ERROR_DOMAIN_NOTFOUND})")
    if "w" in found:
        _wait_gone(host, domid)
    return 0


def _wait_gone(host: Host, domid: int) -> None:
    try:
        with control.DomainLink(host, domid) as link:
            link.send("watch")
            link.wait_end()
    except DomainGone:
        os.sched_yield()


def domid(host: Host, arguments: list[str]) -> int:
    """Print a domain's number."""
    _, rest = options(arguments, "", "domid", 1)
    found = control.find_by_name(host, rest[0])
    if found is None:
        text = f"Can't get domid of domain name '{rest[0]}', maybe this domain does not exist."
        fail(text)
    print(found)
    return 0


def domname(host: Host, arguments: list[str]) -> int:
    """Print a domain's name."""
    _, rest = options(arguments, "", "domname", 1)
    if not rest[0].isdigit():
        fail("Invalid domain id.\n")
    try:
        print(control.ask(host, int(rest[0]), "info")["name"])
    except DomainGone:
        text = "Can't get domain name of domain id "
        fail(f"{text}'{rest[0]}', maybe this domain does not exist.")
    return 0
