"""`colodctl colo config` as a process, with the simulated xl."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.json_documents import check_json

SIMXL = str(Path(sys.executable).with_name("colod-simxl"))
COLODCTL = str(Path(sys.executable).with_name("colodctl"))
CONFIG = """
[host]
name = "alpha"
state_directory = "{root}/state"
[peer]
name = "beta"
address = "192.0.2.2:7411"
[witness]
kind = "manual"
[toolstack]
xl = ["{xl}"]
guest_configs = "{root}"
[transport]
kind = "tcp"
listen = "192.0.2.1"
"""
GUEST = """
name = "web"
type = "hvm"
memory = 32
vif = ["mac=00:16:3e:77:00:10,bridge=br0,type=ioemu"]
"""


@dataclass
class Stand:
    root: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "COLOD_SIMXEN_DIR": str(self.root / "sim")}

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [COLODCTL, "--config", str(self.root / "colod.toml"), *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False)
        check_json(words, done.stdout, done.stderr)
        return done

    def xl(self, *words: str) -> None:
        subprocess.run([SIMXL, *words], env=self.env, capture_output=True, check=True)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    (tmp_path / "sim").mkdir()
    (tmp_path / "colod.toml").write_text(CONFIG.format(root=tmp_path, xl=SIMXL))
    return Stand(tmp_path)


def test_a_file_comes_out_with_the_keys_and_xl_takes_it(stand: Stand) -> None:
    file = stand.root / "own.cfg"
    file.write_text(GUEST)
    done = stand.ctl("colo", "config", "web", "--file", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(GUEST)
    assert ",colo_sock_mirror_ip=192.0.2.1,colo_sock_mirror_port=21648," in done.stdout
    assert file.read_text() == GUEST, "nothing is written"
    file.write_text(done.stdout)
    stand.xl("create", "-n", str(file))


def test_a_running_guest_has_one_for_each_host(stand: Stand) -> None:
    file = stand.root / "web.cfg"
    file.write_text(GUEST)
    stand.xl("create", "-p", str(file))
    try:
        done = stand.ctl("colo", "config", "web", "--role", "both")
        assert done.returncode == 0, done.stderr
        assert f"# === alpha: {file}\n" in done.stdout
        assert f"# === beta: {file}\n" in done.stdout
        assert stand.ctl("colo", "config", "web", "--json").returncode == 0
    finally:
        stand.xl("destroy", "web")


def test_what_cannot_be_had_is_refused_with_what_to_do(stand: Stand) -> None:
    file = stand.root / "own.cfg"
    file.write_text(GUEST.replace("hvm", "pvh").replace(",type=ioemu", ""))
    done = stand.ctl("colo", "config", "web", "--file", str(file), "--json")
    assert done.returncode == 4
    assert '"code": "preflight.refused"' in done.stderr
    done = stand.ctl("colo", "config", "web")
    assert done.returncode == 6
    assert "hint: give its configuration: --file FILE" in done.stderr
    done = stand.ctl("colo", "config", "web", "--file", str(stand.root / "none.cfg"))
    assert done.returncode == 1
    assert "none.cfg" in done.stderr


def test_an_address_can_be_given(stand: Stand) -> None:
    file = stand.root / "own.cfg"
    file.write_text(GUEST)
    words = ("colo", "config", "web", "--file", str(file), "--secondary-address")
    assert "colo_sock_mirror_ip=192.0.2.1" in stand.ctl(*words, "192.0.2.7").stdout
    done = stand.ctl(*words, "2001:db8::1")
    assert done.returncode == 7
    assert "hint: give the option: libxl takes no names, and no IPv6" in done.stderr


def test_a_directory_is_named_in_full(stand: Stand) -> None:
    file = stand.root / "own.cfg"
    file.write_text(GUEST)
    done = stand.ctl("colo", "config", "web", "--file", str(file), "--overlays", "over")
    assert done.returncode == 2
    assert "--overlays" in done.stderr
    assert "want an absolute path" in done.stderr
