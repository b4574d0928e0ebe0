"""colodctl --host: the same commands over TLS, what its options want, and how refusals end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from colod.cli.main import run
from colod.model import HostName
from colod.rpc import pki, tls
from colod.rpc.operators import OperatorRole
from colod.rpc.remote_server import RemoteServer, start_remote_server
from tests.integration.admin_double import FakeDaemon, replicating, report
from tests.json_documents import check_json


@dataclass
class Remote:
    """A daemon's double behind TLS, and how to ask it."""

    double: FakeDaemon
    server: RemoteServer
    directory: Path
    capsys: pytest.CaptureFixture[str]

    def options(self, operator: str) -> list[str]:
        stem = self.directory / "operators" / operator
        return [
            *("--host", f"127.0.0.1:{self.server.port}", "--host-name", "host-a"),
            *("--ca", str(self.directory / "ca.pem")),
            *("--cert", f"{stem}.pem", "--key", f"{stem}.key"),
        ]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        status = run(arguments)
        captured = self.capsys.readouterr()
        check_json(arguments, captured.out, captured.err)
        return status, captured.out, captured.err

    def as_(self, operator: str, *arguments: str) -> tuple[int, str, str]:
        return self.run(*self.options(operator), *arguments)


@pytest.fixture
def remote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Remote]:
    pki.create_authority(tmp_path)
    issued = pki.issue_certificate(tmp_path, HostName("host-a"))
    for role in OperatorRole:
        words = ("issue-operator", role.word, "--role", role.word, "--directory", str(tmp_path))
        assert run(("pki", *words)) == 0
    assert "viewer.key for --key (mode 0600)" in capsys.readouterr().out
    identity = tls.load_identity(tmp_path / "ca.pem", issued.certificate, issued.key, host="host-a")
    double = FakeDaemon()
    double.reports = [report(replicating())]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def serve() -> RemoteServer:
        return await start_remote_server(double, "127.0.0.1:0", identity)

    server = asyncio.run_coroutine_threadsafe(serve(), loop).result(30)
    yield Remote(double, server, tmp_path, capsys)
    asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


def test_commands_are_the_same_from_elsewhere(remote: Remote) -> None:
    status, out, err = remote.as_("viewer", "status", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["host"] == "host-a"
    status, out, _ = remote.as_("viewer", "version")
    assert (status, "9.9 on host-a" in out) == (0, True)
    assert remote.as_("operator", "suspend", "web")[0] == 0
    assert remote.as_("admin", "unprotect", "web")[0] == 0


def test_who_may_not_is_told_who_could_with_status_4(remote: Remote) -> None:
    status, out, err = remote.as_("viewer", "suspend", "web")
    assert (status, out) == (4, "")
    assert err.splitlines() == [
        "colodctl: viewer is a viewer: Suspend needs an operator (operator.not_permitted)",
        "hint: ask an operator, or use colodctl on that host, as its group there",
    ]
    status, _, err = remote.as_("operator", "drain", "--json")
    assert (status, json.loads(err)["error"]["code"]) == (4, "operator.not_permitted")


def test_what_it_needs_may_come_from_the_environment(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = remote.options("viewer")
    for name, value in zip(options[::2], options[1::2], strict=True):
        monkeypatch.setenv(f"COLOD_{name[2:].upper().replace('-', '_')}", value)
    status, out, _ = remote.run("status")
    assert (status, "web" in out) == (0, True)


def test_it_is_said_which_options_are_missing(remote: Remote) -> None:
    whole = remote.options("viewer")
    for incomplete, said in (
        (whole[:4], "--host needs --cert, --key, --ca as well"),
        ([*whole[:2], *whole[4:]], "does not say which host that is: add --host-name"),
        ([*whole, "--socket", "/run/x"], "--host and --socket are two daemons"),
        (["--host", "host-a", *whole[4:]], "want host:port"),
    ):
        status, _, err = remote.run(*incomplete, "status")
        assert (status, said in err) == (2, True), err


def test_another_host_and_no_host_are_status_3(remote: Remote) -> None:
    other = [*remote.options("viewer"), "--host-name", "host-b"]
    status, _, err = remote.run(*other, "status")
    assert status == 3
    assert "is not host-b: " in err
    remote.double.requests.clear()
    nobody = ["--host", "127.0.0.1:1", *remote.options("viewer")[2:]]
    status, _, err = remote.run(*nobody, "status")
    assert status == 3
    assert "Connection refused" in err


def test_files_that_cannot_be_used_are_status_7(remote: Remote) -> None:
    options = [*remote.options("viewer"), "--key", "/nowhere/ann.key"]
    status, _, err = remote.run(*options, "status")
    assert status == 7
    assert "--key: /nowhere/ann.key: No such file" in err


@pytest.mark.parametrize("name", ["../ann", "", "-a", "a" * 65, "ann smith", ".ann", "a/b"])
def test_a_name_that_is_none_of_a_file_is_refused(remote: Remote, name: str) -> None:
    words = ("issue-operator", "--role", "admin", "--directory", str(remote.directory), "--", name)
    status, _, err = remote.run("pki", *words)
    assert status == 2
    assert "letters, digits" in err


def test_days_are_those_asked_for(remote: Remote) -> None:
    words = ("issue-operator", "bob", "--role", "viewer", "--days", "3", "--json")
    status, out, _ = remote.run("pki", *words, "--directory", str(remote.directory))
    assert status == 0
    made = Path(json.loads(out)["certificate"])
    assert made == remote.directory / "operators" / "bob.pem"
    status, _, err = remote.run("pki", *words, "--directory", str(remote.directory))
    assert (status, "would be overwritten" in err) == (1, True)
