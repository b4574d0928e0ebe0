"""Stock `xl remus` between the hosts over a plain relay: what colod must reckon with."""

import time
from collections.abc import Callable

from tests.xen.guest import NAME, REPLICA
from tests.xen.host import Domain, Host
from tests.xen.process import CommandFailed

RELAY = "python3 /opt/lab/relay.py"
PORT = 9000
TRANSPORT = "^python3 /opt/lab/relay.py send"
HELPER = "libxl-save-helper"
SENDER = "/bin/xl remus"
RECEIVER = "/bin/xl migrate-receive"


def replicate(source: Host, target: Host, epochs: int = 5) -> None:
    """Start replication of the running guest, and wait for a number of whole checkpoints."""
    receive = f"{RELAY} receive {PORT} xl migrate-receive -r 2>/run/receive.err"
    target.run("rm -f /run/relay-receive.log")
    target.start(f"{receive}; echo $? >/run/receive.status")
    target.run("until grep -qs listening /run/relay-receive.log; do sleep 0.1; done")
    send = f"exec {RELAY} send {target.name} {PORT}"
    remus = f"xl remus -F -n -d -i 200 -s '' {NAME} '{send}' 2>/run/send.err"
    source.start(f"{remus}; echo $? >/run/send.status")
    wait_for(lambda: whole_epochs(target) >= epochs, 120, "checkpoints")


def whole_epochs(target: Host) -> int:
    """Return how many checkpoints the receiver has taken in."""
    return int(target.run("grep -c 'records processed' /run/receive.err", check=False).stdout)


def signal_process(host: Host, pattern: str, name: str = "KILL") -> None:
    """Send a signal to the processes in dom0 whose command line matches; there must be one."""
    bracketed = f"{pattern[:-1]}[{pattern[-1]}]"
    host.run(f"pkill -{name} -f '{bracketed}'")


def hold_replica(target: Host) -> None:
    """Take the second pause reference on the replica."""
    target.run(f"xl pause {REPLICA}")


def wait_for_domain(
    host: Host, name: str, has: Callable[[Domain], bool] = lambda _: True, limit_s: float = 60
) -> Domain:
    """Wait until a domain exists and has a property; return its row."""

    def found() -> bool:
        domain = host.domains().get(name)
        return domain is not None and has(domain)

    wait_for(found, limit_s, f"domain {name} on {host.name}")
    return host.domains()[name]


def wait_for(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Ask until a condition holds; CommandFailed after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise CommandFailed(f"waited {limit_s} s for {what}")
        time.sleep(0.2)
