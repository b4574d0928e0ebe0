"""The package starts nothing by itself, upgrades under protection, and leaves with care."""

from pathlib import Path

from tests.packaging.container import Container, until
from tests.packaging.pair import PackagedPair
from tests.xen.process import run

MODULES = "/usr/lib/colod/lib/python3.11/site-packages/colod"


def test_lintian_finds_nothing_that_is_not_explained(package: Path) -> None:
    done = run(["lintian", "--fail-on=error,warning", package], check=False, timeout_s=900)
    assert done.status == 0, done.stdout


def test_nothing_is_stopped_before_an_upgrade(package: Path, tmp_path: Path) -> None:
    run(["dpkg-deb", "--control", package, tmp_path / "control"])
    assert " stop " not in (tmp_path / "control/preinst").read_text()


def test_installation_starts_nothing_and_brings_everything(box: Container) -> None:
    assert box.run("colod --version").stdout.startswith("colod ")
    assert box.run("systemctl is-enabled colod colod-drain", check=False).stdout.split() == [
        "disabled",
        "disabled",
    ]
    assert box.run("systemctl is-active colod colod-drain", check=False).stdout.split() == [
        "inactive",
        "inactive",
    ]
    assert box.run("stat -c %a /etc/colod/tls /var/lib/colod").stdout.split() == ["700", "700"]
    box.run("getent group colod")
    box.run("colodctl completion bash | cmp - /usr/share/bash-completion/completions/colodctl")
    box.run("man --where colod colodctl colodctl-protect colod-session")
    problems = box.run("colodctl config check", check=False)
    assert problems.status == 7, "there is no configuration yet, and that is said"
    box.run(f"test -e {MODULES}/__pycache__/model.cpython-311.pyc")


def test_an_upgrade_restarts_the_daemon_and_nothing_else(box: Container, newer: Path) -> None:
    pair = PackagedPair(box)
    daemon, sessions, told = pair.daemon_pid(), pair.session_pids(), pair.ask_guest()
    epoch = pair.acked_epoch()

    box.run(f"dpkg --install {box.copy_in(newer)}", timeout_s=900)

    assert pair.daemon_pid() not in (0, daemon)
    assert pair.session_pids() == sessions
    box.run("for pid in $(cat /run/colod/sessions/*/pid | cut -d' ' -f1); do kill -0 $pid; done")
    box.run("systemctl is-active colod-drain")
    until(lambda: pair.status()["state"] == "PROTECTED", "alpha says PROTECTED", limit_s=60)
    until(lambda: pair.acked_epoch() > epoch + 5, "epochs go on", limit_s=60)
    after = pair.ask_guest()
    assert after["boot_id"] == told["boot_id"]
    assert after["counter"] > told["counter"]
    causes = box.run("colodctl history g1 --json").stdout
    assert "drain" not in causes


def test_an_upgrade_that_refuses_the_configuration_leaves_the_old_daemon(
    box: Container, newer: Path
) -> None:
    pair = PackagedPair(box)
    daemon = pair.daemon_pid()
    box.run("echo '[unheard_of]' >>/etc/colod/colod.toml")

    refused = box.run(f"dpkg --install {box.copy_in(newer)}", check=False, timeout_s=900)

    assert refused.status != 0
    assert "NOT restarted" in refused.stderr
    assert pair.daemon_pid() == daemon
    box.run("systemctl is-active colod")
    assert box.run("systemctl is-active colod-rescue", check=False).stdout.strip() == "inactive"
    box.run("sed -i '/unheard_of/d' /etc/colod/colod.toml && dpkg --configure colod")
    assert pair.daemon_pid() not in (0, daemon)
    until(lambda: pair.status()["state"] == "PROTECTED", "alpha says PROTECTED", limit_s=60)


def test_removal_waits_for_the_end_of_protection_and_purge_leaves_nothing(box: Container) -> None:
    pair = PackagedPair(box)
    sessions = pair.session_pids()

    refused = box.run("dpkg --remove colod", check=False)

    assert refused.status != 0
    assert "protection g1" in refused.stderr
    assert pair.session_pids() == sessions
    until(lambda: pair.status()["state"] == "PROTECTED", "it is still PROTECTED", limit_s=60)

    box.run("colodctl unprotect g1")
    until(lambda: not list((box.root / "var/lib/colod/protections").iterdir()), "it is forgotten")
    box.run("dpkg --remove colod")
    box.run("systemctl is-active colod", check=False)
    assert pair.daemon_pid() == 0
    assert (box.root / "etc/colod/colod.toml").exists(), "configuration stays until purge"
    box.run("dpkg --purge colod")
    left = box.run("find / -xdev -iname '*colod*' -not -path '/srv/*' -not -path '/root/*'").stdout
    own = {"/etc/systemd/system/colod-beta.service", "/etc/systemd/system/colod.service.d"}
    assert {line for line in left.splitlines() if "/usr/share/doc" not in line} <= own


def test_a_removal_that_is_insisted_on_ends_replication_and_keeps_the_journal(
    box: Container,
) -> None:
    PackagedPair(box)
    box.run("touch /run/colod/remove-anyway")
    removed = box.run("dpkg --purge colod", timeout_s=600)
    assert "/var/lib/colod is kept" in removed.stderr
    assert not (box.root / "run/colod/remove-anyway").exists()
    assert list((box.root / "var/lib/colod/protections").glob("*.journal"))
    assert not (box.root / "etc/colod").exists()
