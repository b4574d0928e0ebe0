"""No secret of a protection is where it does not belong: a log, a state, a command line."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.pair_trial import MakeTrial, Trial
from tests.pair import Pair

MAY_HOLD = re.compile(r"spec\.json$|/pki/.*\.key$")
"""Files that a secret is kept in, for their owner alone."""


def forms_of(secret: bytes) -> set[bytes]:
    """Return how a secret could be written: as it is, in hexadecimal, in base64, as Python does."""
    text = base64.b64encode(secret)
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        text,
        base64.urlsafe_b64encode(secret),
        # A part that lies differently in three bytes looks different, but for its middle.
        *(base64.b64encode(secret[at:])[:-4] for at in (1, 2)),
        repr(secret)[2:-1].encode(),
    }


def secrets_of(pair: Pair) -> dict[str, set[bytes]]:
    """Return the secrets of all pairings so far, and each line of the private keys, by a name."""
    found: dict[str, set[bytes]] = {}
    for path in sorted(pair.root.rglob("spec.json")):
        secret = bytes.fromhex(json.loads(path.read_text())["secret"])
        assert len(secret) >= 16
        found[f"secret of {path.parent.name}"] = forms_of(secret)
    for path in sorted(pair.root.rglob("*.key")):
        lines = path.read_bytes().split()
        body = [line for line in lines if len(line) > 30]
        assert body, path
        whole = base64.b64decode(b"".join(lines[3:-3]))
        found[path.name] = {*body, whole, whole.hex().encode()}
    return found


def files_of(root: Path) -> Iterator[Path]:
    """Yield every file below `root` that has no business with secrets."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and not MAY_HOLD.search(str(path)):
            yield path


def contents_of(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each of them with what is in it; what goes away meanwhile has nothing."""
    for path in files_of(root):
        with suppress(FileNotFoundError):
            yield str(path), path.read_bytes()


def processes_of(pair: Pair) -> Iterator[tuple[str, bytes]]:
    """Yield command line and environment of all that runs for the pair. Source: proc(5)."""
    pids = [pid for host in pair.hosts for pid in (*host.session_pids(), *host.xl_pids())]
    pids += [host.daemon.pid for host in pair.hosts if host.daemon is not None]
    for pid in pids:
        for name in ("cmdline", "environ"):
            path = Path(f"/proc/{pid}/{name}")
            with suppress(FileNotFoundError, ProcessLookupError):  # ended just now
                yield str(path), path.read_bytes()


def leaks(places: Sequence[tuple[str, bytes]], known: dict[str, set[bytes]]) -> list[str]:
    """Return which secret is found where."""
    return [
        f"{name} in {place}"
        for place, octets in places
        for name, forms in known.items()
        if any(form in octets for form in forms)
    ]


def exercise(trial: Trial) -> None:
    """Do what makes both hosts talk: replicate, be refused, be restarted, be told what to do."""
    trial.replicate()
    trial.alpha.ctl("status", "--json")
    trial.alpha.ctl("doctor", check=False)
    trial.beta.ctl("failover", "g1", "--dry-run", check=False)
    trial.alpha.stop_daemon()
    trial.alpha.start_daemon()
    trial.until_epochs_go_on()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_no_secret_is_in_a_log_a_state_or_a_command_line(
    make_trial: MakeTrial, transport: str
) -> None:
    trial = make_trial(transport=transport)
    exercise(trial)
    pair = trial.pair
    known = secrets_of(pair)
    assert len([name for name in known if name.startswith("secret")]) >= 2, "of both sessions"
    places = list(contents_of(pair.root))
    logs = [octets for place, octets in places if place.endswith(("/log", "colod.log"))]
    assert len(logs) >= 4, "both daemons' and both sessions'"
    assert all(logs), "an empty log shows nothing"
    assert leaks(places, known) == []
    assert leaks(list(processes_of(pair)), known) == []
    for path in pair.root.rglob("*"):
        if MAY_HOLD.search(str(path)):
            assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"


def test_a_secret_that_is_in_a_log_would_be_found(tmp_path: Path) -> None:
    secret = bytes(range(7, 39))
    known = {"secret": forms_of(secret)}
    for number, form in enumerate(forms_of(secret)):
        (tmp_path / f"log-{number}").write_bytes(b"x" + form + b"\n")
    places = list(contents_of(tmp_path))
    assert len(leaks(places, known)) == len(places) > 5
    assert leaks([("elsewhere", b"nothing")], known) == []
