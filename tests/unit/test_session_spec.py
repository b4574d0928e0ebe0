"""colod.session.spec."""

import json
from pathlib import Path
from typing import Any

import pytest

from colod.errors import ConfigError
from colod.model import Credentials, HostName
from colod.output.kinds import GateSpec, Kind
from colod.session.spec import parse_spec, read_spec

SEND: dict[str, Any] = {
    "version": 1,
    "role": "send",
    "guest": "g1",
    "pairing": "0" * 32,
    "generation": 4,
    "host": "alpha",
    "peer": "beta",
    "secret": "5e" * 32,
    "transport": {"kind": "tcp", "options": {"listen": "::1"}},
    "address": "beta:1",
    "ping_interval_s": 1,
    "silence_s": 5.5,
    "staging_bytes": 1 << 30,
}


def test_a_specification_is_read_as_the_daemon_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SEND))
    spec = read_spec(path)
    assert spec.is_sender
    assert spec.secret == b"\x5e" * 32
    assert (spec.transport_kind, spec.transport_options) == ("tcp", {"listen": "::1"})
    assert (spec.ping_interval_s, spec.silence_s, spec.staging_bytes) == (1.0, 5.5, 1 << 30)


def test_a_transport_may_prove_the_hosts_with_the_files_that_are_given() -> None:
    assert parse_spec(SEND).credentials is None
    files = {"ca": "/t/ca.pem", "certificate": "/t/host.pem", "key": "/t/host.key"}
    assert parse_spec(SEND | {"tls": files}).credentials == Credentials(
        host=HostName("alpha"),
        peer=HostName("beta"),
        ca=Path("/t/ca.pem"),
        certificate=Path("/t/host.pem"),
        key=Path("/t/host.key"),
    )


def test_a_guest_has_no_gate_unless_it_is_said() -> None:
    assert parse_spec(SEND).gate == GateSpec(kind=Kind.NONE)
    told = {"kind": "plug", "interfaces": ["vif1.0"], "limit_bytes": 1 << 20}
    wanted = GateSpec(kind=Kind.PLUG, interfaces=("vif1.0",), limit_bytes=1 << 20)
    assert parse_spec(SEND | {"gate": told}).gate == wanted


def test_a_receiver_needs_its_commands() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec(SEND | {"role": "receive"})
    named = {problem.partition(":")[0] for problem in caught.value.problems}
    assert named == {"receive_argv", "pause_argv", "exists_argv"}


def test_a_sender_needs_an_address() -> None:
    with pytest.raises(ConfigError, match="address"):
        parse_spec(SEND | {"address": ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("role", "both"),
        ("guest", "../x"),
        ("guest", "g1--incoming"),
        ("pairing", "xyz"),
        ("generation", -1),
        ("generation", True),
        ("generation", "4"),
        ("host", ""),
        ("secret", "5e"),
        ("secret", "no hex"),
        ("transport", "tcp"),
        ("transport", {"kind": "tcp", "options": {"port": 3}}),
        ("tls", "/t/ca.pem"),
        ("tls", {"ca": "/t/ca.pem"}),
        ("tls", {"ca": "/t/ca.pem", "certificate": "/t/host.pem", "key": "host.key"}),
        ("tls", {"ca": "/a", "certificate": "/b", "key": "/c", "password": "/d"}),
        ("receive_argv", "xl migrate-receive"),
        ("silence_s", 0),
        ("silence_s", float("nan")),
        ("staging_bytes", 10),
        ("peer", "alpha"),
        ("version", 2),
        ("gate", "plug"),
        ("gate", {"kind": "plug"}),
        ("gate", {"kind": "simulated", "interfaces": ["vif1.0"]}),
        ("gate", {"kind": "hope", "interfaces": ["vif1.0"]}),
        ("gate", {"kind": "plug", "interfaces": [3]}),
        ("gate", {"kind": "plug", "interfaces": ["vif1.0"], "limit_bytes": 10}),
        ("gate", {"kind": "plug", "interfaces": ["vif1.0"], "limit_bytes": True}),
        ("gate", {"kind": "plug", "interfaces": ["vif1.0"], "speed": 3}),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        parse_spec(SEND | {name: value})


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec({"version": 1, "role": "send"})
    assert len(caught.value.problems) == 7


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_a_file_that_is_no_specification_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_spec(path)
    with pytest.raises(ConfigError):
        read_spec(tmp_path / "missing.json")


def test_a_specification_that_is_shown_does_not_show_the_secret() -> None:
    spec = parse_spec(SEND)
    assert spec.secret == bytes.fromhex("5e" * 32)
    assert "5e5e" not in repr(spec)
    assert "^^^^" not in repr(spec)
