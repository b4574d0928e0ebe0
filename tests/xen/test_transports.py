"""Every transport that leaves the host, on real Xen: a guest survives its host over each.

What they must do besides, with faults, is tested without Xen; `tcp` carries all other tests of the
lab.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from colod.rpc import pki
from tests.xen.colod_hosts import SENDER, ColodHosts, certify
from tests.xen.guest import NAME
from tests.xen.lab import Lab
from tests.xen.stock import wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500, func_only=True)]

TLS = 'kind = "tls"\nlisten = "{data_address}"'
GRPC = 'kind = "grpc"\nlisten = "{data_address}"'
SSH = 'kind = "ssh"\nhost = "{peer}"\nconfig = "/etc/colod/ssh_config"'

KEY = "/etc/colod/ssh_key"
KNOWN = "/etc/colod/ssh_known_hosts"
SSH_CONFIG = f"""User root
IdentityFile {KEY}
IdentitiesOnly yes
UserKnownHostsFile {KNOWN}
"""
LIMITS = 'restrict,port-forwarding,permitopen="127.0.0.1:*"'


TWO_PATHS = 'kind = "tcp"\nlisten = "{data_address}"\n\n[transport.backup]\nlisten = "{address}"'
DATA = "10.79.0"


def trust_each_other(lab: Lab) -> None:
    """Give each host a key that the other lets forward, and the other's host key."""
    for host in lab.hosts:
        host.put(SSH_CONFIG.encode(), "/etc/colod/ssh_config")
        host.run(f"rm -f {KEY} && ssh-keygen -q -t ed25519 -N '' -f {KEY}", timeout_s=120)
    for host, other in (lab.hosts, lab.hosts[::-1]):
        public = host.run(f"cat {KEY}.pub").stdout.strip()
        other.run("mkdir -p -m 700 /root/.ssh")
        other.run(f"echo '{LIMITS} {public}' >>/root/.ssh/authorized_keys")
        known = other.run("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()
        host.put(f"{other.name} {known[0]} {known[1]}\n".encode(), KNOWN)


def senders(hosts: ColodHosts) -> list[int]:
    """Return the numbers of alpha's sending session and of the xl whose child it is."""
    return hosts.pids(hosts.alpha, SENDER)


def survives(hosts: ColodHosts) -> None:
    """Have alpha die: the guest goes on at beta, and nothing that was answered is taken back."""
    hosts.commits(10)
    before = hosts.lab.client.wait_for_answer()
    hosts.alpha.kill()
    after = hosts.lab.client.wait_for_answer(180)
    assert after.boot_id == before.boot_id
    assert after.counter >= before.counter
    assert hosts.reaches(hosts.beta, "ALONE")["owner"] == "beta"
    assert hosts.lab.running_copies() == [f"beta:{NAME}"]


def replace_authority(hosts: ColodHosts) -> None:
    """Have both hosts trust another authority, in the three steps of docs/transports.md."""
    both = hosts.lab.hosts
    old = both[0].get("/etc/colod/tls/ca.pem")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        pki.create_authority(folder)
        new = (folder / "ca.pem").read_bytes()
        for step in ("trust both", "prove by the new", "trust the new"):
            for host in both:
                if step == "prove by the new":
                    certify(host, folder)
                host.put(new if step == "trust the new" else old + new, "/etc/colod/tls/ca.pem")
            for host in both:
                host.run("systemctl restart colod", timeout_s=180)
            hosts.until_protected()


@pytest.mark.parametrize("transport", [TLS, GRPC], ids=["tls", "grpc"])
def test_certificates_are_replaced_under_protection_and_the_guest_survives_its_host(
    pair: Lab, transport: str
) -> None:
    hosts = ColodHosts(pair, transport=transport, resync="automatic")
    hosts.protect()
    hosts.until_protected()
    sending, pairing = senders(hosts), hosts.status(pair.alpha)["pairing"]
    replace_authority(hosts)
    hosts.commits(10)
    assert senders(hosts) == sending, "the connection keeps what it began with"
    assert hosts.status(pair.alpha)["pairing"] == pairing

    pair.alpha.run(f"colodctl suspend {NAME}", timeout_s=180)
    pair.alpha.run(f"colodctl resume {NAME} --no-wait", timeout_s=180)
    hosts.until_protected()
    assert hosts.status(pair.alpha)["pairing"] != pairing, "another one, under the new authority"
    survives(hosts)


def test_a_link_is_pulled_and_replaced_without_a_change_of_roles(pair: Lab) -> None:
    hosts = ColodHosts(
        pair,
        resync="automatic",
        data_prefix=DATA,
        transport=TWO_PATHS,
        suspect_s=24.0,
        silence_s=16.0,
    )
    hosts.protect()
    hosts.until_protected()
    before, sending = hosts.status(pair.alpha), senders(hosts)
    changes = len(hosts.history(pair.alpha))
    boot_id = pair.client.wait_for_answer().boot_id
    assert before["link"]["path"] == "primary"

    hosts.cut_data(pair.beta)
    wait_for(lambda: path_of(hosts) == "backup", 60, "the link goes over the second path")
    hosts.commits(10)
    hosts.join_data(pair.beta)
    wait_for(lambda: path_of(hosts) == "primary", 120, "the link is back on the first path")
    hosts.commits(10)

    after = hosts.status(pair.alpha)
    for name in ("pairing", "generation", "owner", "state"):
        assert after[name] == before[name], name
    assert senders(hosts) == sending
    assert len(hosts.history(pair.alpha)) == changes, "nobody noticed anything"
    assert pair.client.wait_for_answer().boot_id == boot_id
    survives(hosts)


def path_of(hosts: ColodHosts) -> str:
    """Return over which path the link goes, "" while it is broken."""
    return str(hosts.status(hosts.alpha).get("link", {}).get("path", ""))


def test_over_ssh_the_guest_survives_its_host(pair: Lab) -> None:
    trust_each_other(pair)
    hosts = ColodHosts(pair, transport=SSH, resync="automatic")
    hosts.protect()
    hosts.until_protected()
    ssh = hosts.pids(pair.alpha, "ssh .* -W 127.0.0.1")
    assert len(ssh) == 1, "its stream goes through one ssh"
    survives(hosts)
