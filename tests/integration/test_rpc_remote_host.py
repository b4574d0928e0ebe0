"""The way to a remote host: what is said before anything is asked."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from colod import errors
from colod.rpc import pki
from colod.rpc.admin_client import AdminClient
from colod.rpc.operators import OperatorRole
from tests.operators import remote


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.create_authority(directory)
    for role in OperatorRole:
        pki.issue_operator(directory, role.word, role)
    return directory


def of(authority: Path, name: str) -> Path:
    return authority / "operators" / f"{name}.pem"


def test_nobody_at_the_address_is_said_with_its_reason(authority: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        where = remote(taken.getsockname()[1], authority, of(authority, "admin"))
        with pytest.raises(errors.DaemonUnreachable, match="Connection refused") as caught:
            AdminClient(where)
    assert "admin.listen" in caught.value.advice


def test_what_answers_without_tls_is_no_daemon(authority: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1024)

        thread = threading.Thread(target=answer)
        thread.start()
        where = remote(listener.getsockname()[1], authority, of(authority, "admin"))
        with pytest.raises(errors.DaemonUnreachable, match="handshake failed"):
            AdminClient(where)
        thread.join(30)


def test_what_is_wrong_with_the_files_is_named(authority: Path, tmp_path: Path) -> None:
    good = of(authority, "admin")
    nothing = remote(1, tmp_path, tmp_path / "ann.pem")
    with pytest.raises(errors.ConfigError) as caught:
        AdminClient(nothing)
    assert [each.split(":")[0] for each in caught.value.problems] == ["--ca", "--cert", "--key"]
    (tmp_path / "ann.pem").write_bytes(good.read_bytes())
    secret = tmp_path / "ann.key"
    secret.write_bytes(of(authority, "viewer").with_suffix(".key").read_bytes())
    secret.chmod(0o640)
    where = remote(1, authority, tmp_path / "ann.pem")
    with pytest.raises(errors.ConfigError, match="can be read by others"):
        AdminClient(where)
    secret.chmod(0o600)
    with pytest.raises(errors.ConfigError, match="is not the key of"):
        AdminClient(where)
    secret.write_text("hello")
    with pytest.raises(errors.ConfigError, match="not the PEM"):
        AdminClient(where)
