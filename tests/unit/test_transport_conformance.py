"""Every built-in transport keeps every promise of `colod.transport.base`."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colod.transport.testing import CHECKS, Subject, run_check, why_not
from tests.ssh_server import SSHD, SshServer
from tests.unit.transport_subjects import (
    ALPHA,
    BETA,
    make_pki,
    ssh_subject,
    tcp_subject,
    tls_subject,
    unix_subject,
)

KINDS: dict[str, Callable[[Path, Path], Subject]] = {
    "tcp": lambda _, __: tcp_subject(),
    "tcp6": lambda _, __: tcp_subject("::1"),
    "unix": lambda _, directory: unix_subject(directory),
    "tls": lambda certificates, _: tls_subject(certificates),
    "tls6": lambda certificates, _: tls_subject(certificates, "::1"),
}


def cases(kind: str, described: Subject) -> list[object]:
    """Return those checks that say something of a kind."""
    return [
        pytest.param(kind, check, id=f"{kind}-{check}")
        for check in CHECKS
        if not why_not(described, check)
    ]


NOWHERE = Path("/nowhere")
CASES = [case for kind, make in KINDS.items() for case in cases(kind, make(NOWHERE, NOWHERE))]
SSH_CASES = [
    *cases("ssh", ssh_subject(None)),
    pytest.param("ssh6", "an_end_is_read_after_every_byte", id="ssh6"),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), ALPHA, BETA)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("sshd")).running() as server:
        yield server


@pytest.mark.parametrize(("kind", "check"), CASES)
async def test_the_contract_is_kept(
    kind: str, check: str, certificates: Path, tmp_path: Path
) -> None:
    await run_check(KINDS[kind](certificates, tmp_path), check)


@pytest.mark.skipif(not SSHD.exists(), reason="no sshd (Debian: openssh-server)")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "check"), SSH_CASES)
async def test_the_contract_is_kept_over_ssh(kind: str, check: str, sshd: SshServer) -> None:
    listen = "::1" if kind == "ssh6" else "127.0.0.1"
    await run_check(ssh_subject(sshd, listen), check)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("listen", "checks"), [("127.0.0.1", []), ("::1", ["an_end_is_read_after_every_byte"])]
)
def test_the_contract_is_kept_over_grpc(listen: str, checks: list[str], certificates: Path) -> None:
    argv = [sys.executable, "-m", "tests.unit.grpc_conformance", str(certificates), listen, *checks]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    verdicts = json.loads(done.stdout)
    assert len(verdicts) == (len(checks) or 40)
    assert {name: verdict for name, verdict in verdicts.items() if verdict} == {}
