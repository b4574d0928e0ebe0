"""Roles: what a certificate says of its operator, and that the table misses no call."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509

from colod.errors import ConfigError, NotPermitted
from colod.model import HostName
from colod.rpc import pki, tls
from colod.rpc.operators import (
    HERE,
    OPERATOR_KEY,
    Operator,
    OperatorRole,
    local_operator,
    operator_in,
    remote_operator,
)
from colod.rpc.permissions import ADMINS_FIELDS, LEAST, check_permitted, needed
from colod.v1 import admin_pb2
from tests.operators import sign

CALLS = {each.name: each for each in admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.create_authority(directory)
    return directory


def test_the_table_has_every_call_of_the_service_and_no_other() -> None:
    assert set(LEAST) == set(CALLS), "say in colod/rpc/permissions.py who may make the call"


def test_fields_that_are_an_admins_are_there() -> None:
    for call, fields in ADMINS_FIELDS.items():
        assert set(fields) <= set(CALLS[call].input_type.fields_by_name)
    forced = {
        name for name, call in CALLS.items() if "force_reason" in call.input_type.fields_by_name
    }
    assert all(LEAST[call] is OperatorRole.ADMIN or call in ADMINS_FIELDS for call in forced)


def test_the_table_in_docs_is_the_one_of_the_code() -> None:
    text = (DOCS / "cli.md").read_text()
    rows = re.findall(r"^\| `(viewer|operator|admin)` \| [^|]* \| ([^|]*) \|$", text, re.M)
    told = {call: role for role, calls in rows for call in re.findall(r"\w+", calls)}
    assert told == {call: role.word for call, role in LEAST.items()}


def test_a_call_that_is_not_in_the_table_is_nobodys() -> None:
    admin = Operator(name="ann", role=OperatorRole.ADMIN, address="ipv4:192.0.2.9:1")
    assert needed("Reboot", None) is None
    with pytest.raises(NotPermitted, match="Reboot is not for operators"):
        check_permitted(admin, "Reboot", None)


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("Failover", admin_pb2.FailoverRequest(guest="web", force_reason="burnt down")),
        ("KeepQuarantined", admin_pb2.KeepQuarantinedRequest(domain="web--q", withdraw=True)),
        ("DrillLive", admin_pb2.DrillLiveRequest(guest="web", fence=True)),
    ],
)
def test_a_field_that_is_set_makes_a_request_an_admins(call: str, request_: Any) -> None:
    operator = Operator(name="ann", role=OperatorRole.OPERATOR, address="ipv4:192.0.2.9:1")
    check_permitted(operator, call, type(request_)())
    with pytest.raises(NotPermitted, match="needs an admin"):
        check_permitted(operator, call, request_)


@pytest.mark.parametrize("role", OperatorRole)
def test_an_issued_certificate_says_name_and_role_and_is_no_host_s(
    authority: Path, role: OperatorRole
) -> None:
    issued = pki.issue_operator(authority, "ann@example.org", role, force=True)
    pem = issued.certificate.read_bytes()
    assert operator_in(x509.load_pem_x509_certificate(pem)) == ("ann@example.org", role)
    assert tls.dns_names(pem) == ()
    assert 88 <= (issued.expires - datetime.now(UTC)).days <= 90
    assert issued.certificate == authority / "operators" / "ann@example.org.pem"


def test_an_operators_certificate_is_no_hosts_identity(authority: Path) -> None:
    made = sign(authority, "both", names=["host-a"], units=["colod-admin"], hosts=["host-a"])
    with pytest.raises(ConfigError, match=r"is an operator's \(colod-admin\)"):
        tls.load_identity(authority / "ca.pem", made, made.with_suffix(".key"), host="host-a")


def test_the_roles_that_no_host_has_are_all_roles() -> None:
    assert tuple(role.unit for role in OperatorRole) == tls.ROLE_UNITS


def test_a_host_may_have_units_of_its_own(authority: Path) -> None:
    made = sign(authority, "ours", names=["host-a"], units=["colod-hosts"], hosts=["host-a"])
    key = made.with_suffix(".key")
    assert tls.load_identity(authority / "ca.pem", made, key, host="host-a")
    assert tls.caller_roles({"x509_pem_cert": (made.read_bytes(),)}) == ()
    with pytest.raises(NotPermitted, match="not known, colod-hosts"):
        remote_operator(caller(made.read_bytes()))


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "names no role: want one organizational unit of colod-viewer, colod-operator"),
    "of others": ({"units": ["admin", "Colod-admin"]}, "names no role"),
    "unknown": ({"units": ["colod-root"]}, "a role that is not known, colod-root"),
    "several": (
        {"units": ["colod-viewer", "colod-admin"]},
        r"several roles \(colod-viewer, colod-admin\)",
    ),
    "twice": ({"units": ["colod-admin", "colod-admin"]}, "several roles"),
    "host": ({"units": ["colod-admin"], "hosts": ["host-b"]}, r"of a host too \(host-b\)"),
    "no name": ({"units": ["colod-admin"], "names": []}, "one common name"),
    "names": ({"units": ["colod-admin"], "names": ["ann", "bob"]}, "one common name"),
    "line": ({"units": ["colod-admin"], "names": ["ann\nbob"]}, "one common name"),
    "blank": ({"units": ["colod-admin"], "names": [" "]}, "one common name"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_not_one_role_of_one_name_is_nobodys(authority: Path, case: str) -> None:
    wanted, said = ODD[case]
    made = sign(authority, "odd", **wanted)
    with pytest.raises(NotPermitted, match=said) as caught:
        operator_in(x509.load_pem_x509_certificate(made.read_bytes()))
    assert "colodctl pki issue-operator" in caught.value.advice


def test_a_hosts_certificate_has_no_role(authority: Path) -> None:
    issued = pki.issue_certificate(authority, HostName("host-b"), force=True)
    with pytest.raises(NotPermitted, match="host-b names no role"):
        remote_operator(caller(issued.certificate.read_bytes()))


def caller(*pems: bytes) -> Any:
    """Return a context of gRPC with what TLS has proven."""
    return SimpleNamespace(
        auth_context=lambda: {"x509_pem_cert": list(pems)} if pems else {},
        peer=lambda: "ipv4:192.0.2.9:4711",
    )


def test_who_calls_is_what_tls_has_proven(authority: Path) -> None:
    made = sign(authority, "ann", units=["colod-operator", "engineering"])
    who = remote_operator(caller(made.read_bytes()))
    assert (who.name, who.role, who.address) == (
        "ann",
        OperatorRole.OPERATOR,
        "ipv4:192.0.2.9:4711",
    )
    assert (str(who), who.is_remote) == ("ann (operator)", True)


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_a_certificate_that_ran_out_while_it_was_connected_is_refused(
    authority: Path, days: tuple[int, int]
) -> None:
    made = sign(authority, "old", units=["colod-admin"], days=days)
    with pytest.raises(NotPermitted, match="of ann is valid from"):
        remote_operator(caller(made.read_bytes()))


@pytest.mark.parametrize("pems", [(), (b"hello",)])
def test_what_cannot_be_read_is_nobodys(pems: tuple[bytes, ...]) -> None:
    with pytest.raises(NotPermitted, match="cannot be read"):
        remote_operator(caller(*pems))


def test_who_may_use_the_socket_may_do_all_and_says_who_it_is() -> None:
    said = {OPERATOR_KEY: b"ann"}
    context = SimpleNamespace(invocation_metadata=lambda: tuple(said.items()))
    who = local_operator(context)
    assert (who.name, who.role, who.address) == ("ann", OperatorRole.ADMIN, HERE)
    assert not who.is_remote
