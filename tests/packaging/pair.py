"""Two colods of the package in one container, on the simulated Xen: alpha as an operator has it, as
`colod.service` with `/etc/colod`; beta as a second service."""

from __future__ import annotations

import json
from typing import Any

from tests.packaging.container import Container, until

HOME = "/usr/lib/colod/bin"
CONFIG = """
[host]
name = "{name}"
{directories}
[peer]
name = "{peer}"
listen = "127.0.0.1:{port}"
address = "127.0.0.1:{peer_port}"
[tls]
ca = "/etc/colod/pki/ca.pem"
certificate = "/etc/colod/pki/{name}.pem"
key = "/etc/colod/pki/{name}.key"
[transport]
kind = "tls"
listen = "127.0.0.1"
[witness]
kind = "file"
directory = "/srv/witness"
[toolstack]
xl = ["/usr/lib/colod/bin/colod-simxl"]
xenstore = ["/usr/lib/colod/bin/colod-simxl", "xenstore"]
[detection]
suspect_after_s = 30.0
session_silence_s = 20.0
"""
BETA = 'state_directory = "/srv/beta/state"\nruntime_directory = "/srv/beta/run"'
DROP_IN = "[Service]\nEnvironment=COLOD_SIMXEN_DIR=/srv/{name}/xen\n"
BETA_UNIT = """[Service]
Type=notify
ExecStart=/usr/sbin/colod --config /srv/beta/colod.toml
KillMode=process
Environment=COLOD_SIMXEN_DIR=/srv/beta/xen
"""
GUEST = """name="g1"
memory=64
vif=['bridge=br0,mac=00:16:3e:00:00:01']
sim_service="127.0.0.1:7777"
sim_memory_pages=256
"""
ASK = (
    "import socket; s = socket.create_connection(('127.0.0.1', 7777), 5); s.settimeout(20); "
    "s.sendall(b'get\\n'); print(s.makefile().readline())"
)


class PackagedPair:
    """The pair, its guest `g1` protected from alpha to beta."""

    def __init__(self, container: Container) -> None:
        """Configure both, start them and protect the guest."""
        self.box = container
        container.run(
            "mkdir -p /srv/witness /srv/alpha/xen /srv/beta/xen /srv/beta/state /srv/beta/run"
        )
        container.run("colodctl pki init; colodctl pki issue alpha; colodctl pki issue beta")
        container.put(
            "/etc/colod/colod.toml",
            CONFIG.format(name="alpha", peer="beta", port=7411, peer_port=7412, directories=""),
        )
        container.put(
            "/srv/beta/colod.toml",
            CONFIG.format(name="beta", peer="alpha", port=7412, peer_port=7411, directories=BETA),
        )
        container.put(
            "/etc/systemd/system/colod.service.d/simulated.conf", DROP_IN.format(name="alpha")
        )
        container.put("/etc/systemd/system/colod-beta.service", BETA_UNIT)
        container.put("/srv/g1.cfg", GUEST)
        container.run("systemctl daemon-reload && systemctl start colod-beta")
        container.run("systemctl enable --now colod colod-drain")
        container.run(f"COLOD_SIMXEN_DIR=/srv/alpha/xen {HOME}/colod-simxl create /srv/g1.cfg")
        container.run("colodctl protect g1 --to beta --disks none --interval-ms 100")
        until(lambda: self.status()["state"] == "PROTECTED", "alpha says PROTECTED")

    def status(self) -> dict[str, Any]:
        """Return what alpha says of the guest, {"state": ""} when it says nothing."""
        done = self.box.run("colodctl status g1 --json", check=False)
        if done.status != 0:
            return {"state": ""}
        found: list[dict[str, Any]] = json.loads(done.stdout)["protections"]
        return found[0]

    def acked_epoch(self) -> int:
        """Return the newest epoch that beta has acknowledged."""
        return int(self.status()["progress"]["acked_epoch"])

    def session_pids(self) -> str:
        """Return the numbers of both hosts' sessions and of their xl."""
        return self.box.run("cat /run/colod/sessions/*/pid /srv/beta/run/sessions/*/pid").stdout

    def daemon_pid(self) -> int:
        """Return the number of alpha's daemon, 0 when it does not run."""
        return int(self.box.run("systemctl show --value -p MainPID colod").stdout)

    def ask_guest(self) -> dict[str, Any]:
        """Ask the guest for what it counts, as a client does; one that is paused is asked again."""
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            done = self.box.run(f'python3 -c "{ASK}"', check=False)
            answers.extend(json.loads(line) for line in done.stdout.splitlines() if line)
            return bool(answers)

        until(answered, "the guest answers", limit_s=60)
        return answers[0]
