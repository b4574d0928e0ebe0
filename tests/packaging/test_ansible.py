"""The Ansible role brings a host up, changes nothing the second time, and refuses nonsense."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

from tests.packaging.container import Container
from tests.xen.process import REPOSITORY, Completed, run

PLAYS = REPOSITORY / "deploy/ansible"
HOME = "/usr/lib/colod/bin"
VARIABLES: dict[str, Any] = {
    "ansible_connection": "local",
    "colod_witness": {"kind": "manual"},
    "colod_deb": "",
    "colod_tables": {
        "toolstack": {
            "xl": [f"{HOME}/colod-simxl"],
            "xenstore": [f"{HOME}/colod-simxl", "xenstore"],
        },
        "transport": {"listen": "127.0.0.1"},
        "peer": {"listen": "127.0.0.1:7411"},
    },
}
DROP_IN = "[Service]\nEnvironment=COLOD_SIMXEN_DIR=/srv/xen\n"


def play(box: Container, *, check: bool = True, **more: object) -> Completed:
    """Run the playbook for host-a of the example's inventory, in the container itself."""
    box.put("/root/variables.json", json.dumps({**VARIABLES, **more}))
    command = "ansible-playbook --limit host-a --extra-vars @/root/variables.json site.yml"
    return box.run(f"cd /root/ansible && {command}", check=check, timeout_s=900)


def test_the_files_are_clean() -> None:
    run(["yamllint", "--strict", "-c", PLAYS / ".yamllint", PLAYS])
    lint = "cd $0 && ansible-lint --offline --strict site.yml"
    run(["sh", "-c", lint, PLAYS], timeout_s=600)


def test_the_role_brings_a_host_up_once_and_keeps_what_works(box: Container, package: Path) -> None:
    shutil.copytree(PLAYS, box.root / "root/ansible")
    box.put("/etc/systemd/system/colod.service.d/simulated.conf", DROP_IN)
    box.run("mkdir -p /srv/xen && systemctl daemon-reload")
    deb = box.copy_in(package)

    first = play(box, colod_deb=deb)
    assert "failed=0" in first.stdout
    assert box.run("systemctl is-active colod colod-drain").stdout.split() == ["active", "active"]
    config = tomllib.loads((box.root / "etc/colod/colod.toml").read_text())
    assert config["peer"]["name"] == "host-b"
    assert config["peer"]["address"] == "192.0.2.2:7411"
    assert box.run("stat -c %a /etc/colod/tls/host.key").stdout.strip() == "600"
    pid = box.run("systemctl show --value -p MainPID colod").stdout

    second = play(box, colod_deb=deb)
    assert " changed=0 " in second.stdout, second.stdout
    assert box.run("systemctl show --value -p MainPID colod").stdout == pid

    before = (box.root / "etc/colod/colod.toml").read_text()
    refused = play(box, check=False, colod_tables={"detection": {"suspect_after_s": 0.001}})
    assert refused.status != 0
    assert (box.root / "etc/colod/colod.toml").read_text() == before
    assert box.run("systemctl show --value -p MainPID colod").stdout == pid

    changed = play(box, colod_admin_group="")
    assert "failed=0" in changed.stdout
    assert box.run("systemctl show --value -p MainPID colod").stdout != pid
