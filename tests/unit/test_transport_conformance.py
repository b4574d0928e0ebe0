"""Every built-in transport keeps every promise of `colod.transport.base`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from colod.transport.testing import CHECKS, Subject, run_check, why_not
from tests.unit.transport_subjects import (
    ALPHA,
    BETA,
    make_pki,
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


NOWHERE = Path("/nowhere")
CASES = [
    pytest.param(kind, check, id=f"{kind}-{check}")
    for kind, make in KINDS.items()
    for check in CHECKS
    if not why_not(make(NOWHERE, NOWHERE), check)
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"), ALPHA, BETA)


@pytest.mark.parametrize(("kind", "check"), CASES)
async def test_the_contract_is_kept(
    kind: str, check: str, certificates: Path, tmp_path: Path
) -> None:
    await run_check(KINDS[kind](certificates, tmp_path), check)
