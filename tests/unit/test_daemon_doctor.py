"""What the doctor says of certificates and of the link: before the pairing fails for them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from colod.daemon.doctor import (
    certificate_findings,
    exposed_findings,
    gate_findings,
    listen_findings,
    transport_findings,
)
from colod.failover.view import Journal, Link
from colod.model import Credentials, HostName, Role
from colod.rpc import pki
from colod.rpc.admin_group import GROUP
from colod.rpc.pki import HOST_DAYS
from colod.rpc.tls import TlsIdentity, load_identity
from tests.unit.failover_transcripts.situation import TERMS
from tests.unit.transport_subjects import ALPHA, BETA, credentials, make_pki


@pytest.fixture
def files(tmp_path: Path) -> Credentials:
    return credentials(make_pki(tmp_path / "pki", ALPHA), ALPHA, BETA)


def in_use(files: Credentials) -> TlsIdentity:
    return load_identity(files.ca, files.certificate, files.key, host=files.host)


@pytest.mark.parametrize(
    ("days", "severity"), [(0, "ok"), (HOST_DAYS - 31, "ok"), (HOST_DAYS - 29, "warning")]
)
def test_a_certificate_is_warned_of_a_month_before_its_end(
    files: Credentials, days: int, severity: str
) -> None:
    now = datetime.now(UTC) + timedelta(days=days, hours=1)
    (finding,) = certificate_findings(files, in_use(files), now)
    assert (finding.severity, finding.subject) == (severity, "tls")
    assert "certificate of alpha, valid until 2" in finding.text
    assert ("pki issue alpha --force" in finding.advice) == (severity == "warning")


def test_a_certificate_out_of_date_is_an_error(files: Credentials) -> None:
    now = datetime.now(UTC) + timedelta(days=HOST_DAYS + 1)
    (finding,) = certificate_findings(files, in_use(files), now)
    assert finding.severity == "error"
    assert "do not hear each other" in finding.advice


def test_a_new_certificate_that_the_daemon_has_not_read_is_warned_of(
    files: Credentials, tmp_path: Path
) -> None:
    before = in_use(files)
    pki.issue_certificate(tmp_path / "pki", ALPHA, force=True)
    (finding,) = certificate_findings(files, before, datetime.now(UTC))
    assert (finding.severity, finding.advice) == ("warning", "systemctl restart colod")


def test_files_that_cannot_be_used_now_are_errors(files: Credentials) -> None:
    used = in_use(files)
    wrong = replace(files, host=HostName("gamma"))
    (finding,) = certificate_findings(wrong, used, datetime.now(UTC))
    assert (finding.severity, finding.subject) == ("error", "tls")
    assert "has alpha, host.name is 'gamma'" in finding.text
    files.ca.unlink()
    files.key.unlink()
    assert len(certificate_findings(files, used, datetime.now(UTC))) == 2


@pytest.mark.parametrize(
    ("kind", "listen", "severity"),
    [
        ("tcp", "192.0.2.1", "warning"),
        ("tcp", "alpha.example", "warning"),
        ("tcp", "0.0.0.0", "warning"),
        ("tcp", "127.0.0.1", "ok"),
        ("tcp", "::1", "ok"),
        ("tcp", "localhost", "ok"),
        ("tls", "192.0.2.1", "ok"),
    ],
)
def test_bare_tcp_is_warned_of_where_others_may_be_on_the_way(
    kind: str, listen: str, severity: str
) -> None:
    (finding,) = transport_findings(kind, {"listen": listen})
    assert (finding.severity, finding.subject) == (severity, f"transport {kind}")


def test_each_path_is_looked_at_by_itself() -> None:
    first, second = transport_findings("tcp", {"listen": "::1"}, {"listen": "192.0.2.1"})
    assert (first.severity, second.severity) == ("ok", "warning")
    assert second.subject == "transport backup"


def test_bare_tcp_listens_on_loopback_where_nothing_is_said() -> None:
    assert transport_findings("tcp", {})[0].severity == "ok"


def test_an_address_that_nothing_listens_on_is_an_error() -> None:
    assert listen_findings({}) == []
    (finding,) = listen_findings({"admin.listen": "cannot listen on 192.0.2.1:7413"})
    assert (finding.severity, finding.subject) == ("error", "admin.listen")
    assert "192.0.2.1:7413" in finding.text
    assert "restart colod" in finding.advice


def test_a_file_with_passwords_that_others_may_read_is_warned_of() -> None:
    assert exposed_findings([]) == []
    (finding,) = exposed_findings(["/etc/colod/colod.toml has passwords"])
    assert (finding.severity, finding.subject) == ("warning", "configuration")
    assert "chmod 600" in finding.advice


def test_a_group_that_is_not_there_is_an_error_with_advice_of_its_own() -> None:
    (finding,) = listen_findings({GROUP: "admin.group: this host has no group 'ops'"})
    assert (finding.severity, finding.subject) == ("error", "admin.group")
    assert "make the group" in finding.advice


@pytest.mark.parametrize(
    ("gate", "link", "is_told"),
    [
        ('{"kind": "plug"}', Link.NONE, True),
        ('{"kind": "plug"}', Link.BROKEN, False),
        ('{"kind": "plug"}', Link.FOLLOWING, False),
        ("", Link.NONE, False),
    ],
)
def test_a_gate_that_no_session_releases_is_named(gate: str, link: Link, is_told: bool) -> None:
    journal = Journal(protection=TERMS, host=ALPHA, role=Role.PRIMARY, gate=gate)
    found = gate_findings(journal, link)
    assert [(each.severity, each.subject) for each in found] == [("warning", "web")] * is_told
