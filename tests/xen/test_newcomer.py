"""From two bare dom0s to a protected guest, a drill, an upgrade and a lost host, by the docs alone.

What is typed and answered is kept as `.lab/logs/newcomer.md`; docs/first-guest.md is such a run.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from tests.packaging import build
from tests.xen.guest import ADDRESS, NAME, PORT
from tests.xen.host import Host
from tests.xen.lab import Lab
from tests.xen.process import CACHE
from tests.xen.stock import wait_for
from tests.xen.transcript import Transcript, commands_of

pytestmark = [pytest.mark.lab, pytest.mark.timeout(3000, func_only=True)]

OPENING = """# The first guest: a transcript

Two bare Xen hosts, `alpha` and `beta`, become a pair that protects a guest, by what
[install.md](install.md) and [drills.md](drills.md) say. Written by `tests/xen/test_newcomer.py`,
which typed each command in the dom0s of two nested hosts with real Xen, so times are those of
emulated processors. The witness, an etcd, was there before. Output is whole, but for
dpkg's progress.
"""
EXAMPLE = "/usr/share/doc/colod/examples/colod.toml.example"
BRIDGE = "drill0"
NEIGHBOUR = ADDRESS.rpartition(".")[0] + ".99"
CHECK = f"timeout 60 bash -c 'exec 3<>/dev/tcp/{ADDRESS}/{PORT} && read -r -t 50 word <&3'"
SLOW_S = 600.0


def test_a_newcomer_protects_a_guest_drills_upgrades_and_loses_a_host(
    stock: Lab, tmp_path: Path
) -> None:
    package = build.package()
    newer = build.newer(package, tmp_path)
    told = Transcript(CACHE / "logs/newcomer.md", OPENING)
    install(told, stock, package)
    certify(told, stock)
    configure(told, stock)
    protect(told, stock)
    drill(told, stock)
    upgrade(told, stock, newer)
    lose_the_host(told, stock)
    for command in commands_of("docs/install.md", "The package"):
        assert _typed(told, command), f"docs/install.md says {command!r}, and nobody typed it"


def install(told: Transcript, lab: Lab, package: Path) -> None:
    told.section("The package")
    for host in lab.hosts:
        host.put(package, f"/root/{package.name}")
        told.type(host, f"apt install -y ./{package.name}", timeout_s=SLOW_S)


def certify(told: Transcript, lab: Lab) -> None:
    told.section(
        "Certificates", "Here the authority is made on one of the hosts; better elsewhere."
    )
    alpha, beta = lab.hosts
    told.type(alpha, "colodctl pki init")
    for host in lab.hosts:
        told.type(alpha, f"colodctl pki issue {host.name}")
    for host in (alpha, beta):
        told.carry(alpha, "/etc/colod/pki/ca.pem", host, "/etc/colod/tls/ca.pem")
        told.carry(alpha, f"/etc/colod/pki/{host.name}.pem", host, "/etc/colod/tls/host.pem")
        told.carry(alpha, f"/etc/colod/pki/{host.name}.key", host, "/etc/colod/tls/host.key", 0o600)


def configure(told: Transcript, lab: Lab) -> None:
    told.section("Configuration", "`sed` for an editor. Emulated hosts are slow: longer limits.")
    for host, peer in (lab.hosts, lab.hosts[::-1]):
        told.type(host, f"install -m 600 {EXAMPLE} /etc/colod/colod.toml")
        edits = {
            "host-a": host.name,
            "host-b": peer.name,
            "192.0.2.1": host.address,
            "192.0.2.2": peer.address,
            "^endpoints = .*": f'endpoints = ["http://{lab.witness.endpoint}"]',
            "^suspect_after_s = .*": "beat_interval_s = 1.0\\nsuspect_after_s = 20.0",
        }
        script = "; ".join(f"s#{old}#{new}#g" for old, new in edits.items())
        told.type(host, f"sed -i '{script}' /etc/colod/colod.toml")
        told.type(host, "printf '[checkpoints]\\nkeep = true\\n' >>/etc/colod/colod.toml")
        told.type(host, "colodctl config check")
        told.type(host, "systemctl enable --now colod colod-drain", timeout_s=SLOW_S)
    for host in lab.hosts:
        wait_for(functools.partial(_is_well, host), SLOW_S, f"{host.name} hears its peer")
        told.type(host, "colodctl doctor")


def protect(told: Transcript, lab: Lab) -> None:
    told.section("Protection")
    alpha, beta = lab.hosts
    told.type(alpha, f"colodctl protect {NAME} --to {beta.name} --disks none", timeout_s=SLOW_S)
    wait_for(functools.partial(_is_protected, alpha), SLOW_S, "PROTECTED")
    for host in lab.hosts:
        told.type(host, "colodctl status")
    told.type(alpha, "colodctl lag")


def drill(told: Transcript, lab: Lab) -> None:
    told.section("An isolated drill")
    beta = lab.beta
    for command in (
        f"ip link add {BRIDGE} type bridge",
        f"ip link set {BRIDGE} up",
        f"ip address add {NEIGHBOUR}/32 dev {BRIDGE}",
        f"ip route add {ADDRESS}/32 dev {BRIDGE}",
    ):
        told.type(beta, command)
    asked = f'colodctl drill isolated {NAME} --yes --bridge {BRIDGE} --check "{CHECK}"'
    told.type(beta, asked, timeout_s=SLOW_S)
    told.section("The same by a timer, on both hosts")
    for host in lab.hosts:
        told.type(host, "mkdir -p /etc/colod/drills")
        lines = f'"CHECK={CHECK}" "OPTIONS=--bridge {BRIDGE}"'
        told.type(host, f"printf '%s\\n' {lines} >/etc/colod/drills/{NAME}.conf")
        told.type(host, f"systemctl enable --now colod-drill@{NAME}.timer")
        told.type(host, f"systemctl start colod-drill@{NAME}.service", timeout_s=SLOW_S)
    assert told.type(beta, "colodctl drill report").count("PASSED") == 2
    assert "PASSED" not in told.type(lab.alpha, "colodctl drill report")


def upgrade(told: Transcript, lab: Lab, newer: Path) -> None:
    told.section("An upgrade, under protection")
    before = lab.client.wait_for_answer()
    for host in lab.hosts[::-1]:
        sessions, daemon = _sessions(host), _daemon(host)
        assert sessions
        host.put(newer, f"/root/{newer.name}")
        told.type(host, f"apt install -y ./{newer.name}", timeout_s=SLOW_S)
        assert _daemon(host) not in ("0", daemon)
        assert _sessions(host) == sessions, "an upgrade ended a session"
        wait_for(functools.partial(_is_protected, host), SLOW_S, "PROTECTED again")
        _epochs_go_on(lab.alpha)
        told.type(host, "colodctl status")
    states = told.type(lab.alpha, f"colodctl history {NAME}")
    assert "ALONE" not in states
    after = lab.client.wait_for_answer()
    assert (after.boot_id, after.counter > before.counter) == (before.boot_id, True)
    told.type(lab.alpha, "apt remove -y colod", timeout_s=SLOW_S, status=100)
    assert _is_protected(lab.alpha)


def lose_the_host(told: Transcript, lab: Lab) -> None:
    told.section(
        "The loss of a host", "The machine `alpha` is switched off, as by a power failure."
    )
    before = lab.client.wait_for_answer()
    lab.alpha.kill()
    after = lab.client.wait_for_answer(240)
    assert (after.boot_id, after.counter > before.counter) == (before.boot_id, True)
    wait_for(lambda: "ALONE" in _status(lab.beta), 120, "ALONE")
    told.type(lab.beta, "colodctl status")
    told.type(lab.beta, f"colodctl history {NAME}")
    assert lab.running_copies() == [f"beta:{NAME}"]


def _is_well(host: Host) -> bool:
    return host.run("colodctl doctor", check=False).status == 0


def _status(host: Host) -> str:
    return host.run("colodctl status", check=False).stdout


def _is_protected(host: Host) -> bool:
    return "PROTECTED" in _status(host)


def _epochs_go_on(host: Host) -> None:
    before = _epoch(host)
    wait_for(lambda: _epoch(host) > before + 3, SLOW_S, "epochs go on")


def _epoch(host: Host) -> int:
    said = host.run(f"colodctl status {NAME} --json", check=False).stdout
    found = re.search(r'"acked_epoch": "?(\d+)', said)
    return int(found[1]) if found else 0


def _sessions(host: Host) -> list[str]:
    return sorted(host.run("pgrep -f '/colod-session (send|receive)'", check=False).stdout.split())


def _daemon(host: Host) -> str:
    return host.run("systemctl show --property=MainPID --value colod").stdout.strip()


def _typed(told: Transcript, command: str) -> bool:
    """Return whether a command of the docs was typed, with this pair's names and versions."""
    if command.startswith("editor "):
        return any(each.startswith("sed -i") for each in told.typed)
    wanted = command.replace("host-a", "alpha").replace("host-b", "beta")
    return _plain(wanted) in {_plain(each) for each in told.typed}


def _plain(command: str) -> str:
    """Return a command without its answer to apt's question and without the package's version."""
    return re.sub(r"colod_\S+\.deb", "colod.deb", command.replace(" -y ", " "))
