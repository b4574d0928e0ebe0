"""The transport `ssh`: the host key is always checked, and whatever fails says what to do."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from colod import plugins
from colod.errors import ConfigError, PeerError, PeerRefused, PeerUnreachable
from colod.transport.base import Connection
from colod.transport.ssh import SshConnection, SshTransport
from colod.transport.sshclient import Destination, command, explain
from tests.ssh_server import HOST, LIMITED, SSHD, SshServer, make_key
from tests.unit.transport_subjects import ALPHA, BETA, credentials

LIMIT_S = 60.0
HOSTILE = """
StrictHostKeyChecking no
NoHostAuthenticationForLocalhost yes
VerifyHostKeyDNS yes
KnownHostsCommand /bin/echo %H
ControlMaster auto
ControlPath /tmp/%C
ForwardAgent yes
LocalForward 2222 127.0.0.1:22
PermitLocalCommand yes
LocalCommand /bin/false
RemoteCommand /bin/false
RequestTTY force
BatchMode no
"""

needs_sshd = pytest.mark.skipif(not SSHD.exists(), reason="no sshd (Debian: openssh-server)")
needs_ssh = pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh (Debian: openssh-client)")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("sshd")).running() as running:
        yield running


def transport(config: Path, **options: str) -> SshTransport:
    return SshTransport.from_options({"host": HOST, "config": str(config)} | options)


async def fails(
    config: Path, address: str = "127.0.0.1:9", timeout_s: float = LIMIT_S
) -> PeerError:
    """Return what a connect ends with, once nothing of it is left."""
    with pytest.raises(PeerError) as caught:
        await transport(config).connect(address, timeout_s=timeout_s)
    await nothing_runs()
    return caught.value


async def nothing_runs() -> None:
    async with asyncio.timeout(LIMIT_S):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


async def read(connection: Connection) -> int:
    return await connection.read_into(memoryview(bytearray(1)))


# -- the command line


@needs_ssh
def test_no_configuration_turns_host_key_checking_off(tmp_path: Path) -> None:
    hostile = tmp_path / "config"
    hostile.write_text(HOSTILE)
    argv = command(Destination(host=HOST, config=hostile), 9, "127.0.0.1", 3.2)
    shown = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    effective = dict(line.partition(" ")[::2] for line in shown.stdout.splitlines())
    wanted = {
        "stricthostkeychecking": "true",
        "nohostauthenticationforlocalhost": "no",
        "verifyhostkeydns": "false",
        "batchmode": "yes",
        "controlmaster": "false",
        "forwardagent": "no",
        "permitlocalcommand": "no",
        "requesttty": "false",
        "sessiontype": "none",
        "clearallforwardings": "yes",
        "serveraliveinterval": "5",
        "serveralivecountmax": "3",
        "connecttimeout": "4",
    }
    assert {name: effective.get(name) for name in wanted} == wanted
    assert effective.get("knownhostscommand", "none") == "none"
    assert "controlpath" not in effective
    assert "remotecommand" not in effective
    assert not any(name.endswith("forward") for name in effective if name != "forwardagent")


def test_the_host_is_never_taken_for_an_option() -> None:
    argv = command(Destination(host=HOST), 9, "::1", 1)
    assert argv[-4:] == ["-W", "[::1]:9", "--", HOST]
    for host in ("-oProxyCommand=id", "", "a b", "a\nb", "$(id)", "a;b"):
        with pytest.raises(ConfigError, match=r"transport\.host"):
            SshTransport.from_options({"host": host})


# -- the options


def test_all_problems_of_the_options_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        SshTransport.from_options(
            {
                "host": "-v",
                "config": "ssh_config",
                "listen": "192.0.2.1",
                "StrictHostKeyChecking": "no",
                "user": "root",
            }
        )
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "StrictHostKeyChecking: unknown; the host key is always checked" in problems
    assert "user: unknown; what is ssh's own goes into ssh_config" in problems
    assert "listen: '192.0.2.1', want a loopback address" in problems
    with pytest.raises(ConfigError, match="port"):
        SshTransport.from_options({"host": HOST, "port": "x"})


async def test_the_peers_name_is_called_where_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host"):
        SshTransport.from_options({})
    made = SshTransport.from_options({}, credentials(tmp_path, ALPHA, BETA))
    with pytest.raises(PeerUnreachable, match=r"beta wants to be called at '192\.0\.2\.1'"):
        await made.connect("192.0.2.1:22", timeout_s=1)


def test_it_is_found_by_its_name() -> None:
    assert plugins.load("colod.transports", "ssh") is SshTransport


# -- what fails, and what is said of it


@needs_sshd
async def test_an_unknown_host_key_is_refused_and_nothing_is_learnt(server: SshServer) -> None:
    known = server.folder / "nobody_known"
    config = server.client_config("unknown", f"Host *\nUserKnownHostsFile {known}\n")
    error = await fails(config)
    assert isinstance(error, PeerRefused)
    assert "its host key is not known here" in str(error)
    assert "ssh beta true" in str(error)
    assert not known.exists()


@needs_sshd
async def test_a_changed_host_key_is_refused_though_a_file_allows_it(server: SshServer) -> None:
    make_key(server.folder / "other")
    known = server.folder / "known_other"
    known.write_text(f"{HOST} {(server.folder / 'other.pub').read_text()}")
    more = f"Host *\nStrictHostKeyChecking no\nUserKnownHostsFile {known}\n"
    error = await fails(server.client_config("changed", more))
    assert isinstance(error, PeerRefused)
    assert "not the known one" in str(error)


@needs_sshd
async def test_a_key_that_is_not_taken_is_refused(server: SshServer) -> None:
    make_key(server.folder / "stranger")
    key = server.folder / "stranger"
    more = f"Host *\nIdentityFile {key}\nIdentitiesOnly yes\nIdentityAgent none\n"
    server.authorize("# ")
    try:
        error = await fails(server.client_config("stranger_config", more))
    finally:
        server.authorize(LIMITED)
    assert isinstance(error, PeerRefused)
    assert "does not take this host's key" in str(error)
    assert "permitopen" in str(error)


@needs_sshd
@pytest.mark.parametrize("limits", ["restrict", 'restrict,port-forwarding,permitopen="h:1"'])
async def test_a_key_that_may_not_forward_is_refused(server: SshServer, limits: str) -> None:
    server.authorize(limits)
    try:
        error = await fails(server.config)
    finally:
        server.authorize(LIMITED)
    assert isinstance(error, PeerRefused)
    assert "forwards nothing for this key" in str(error)


@needs_sshd
async def test_where_no_session_listens_ssh_got_in_and_may_try_again(server: SshServer) -> None:
    error = await fails(server.config)
    assert isinstance(error, PeerUnreachable)
    assert "no session listens there" in str(error)


@needs_sshd
async def test_who_answers_and_is_no_session_is_refused(server: SshServer) -> None:
    error = await fails(server.config, f"127.0.0.1:{server.port}")
    assert isinstance(error, PeerRefused)
    assert "is no session of colod: it says" in str(error)


@needs_ssh
async def test_a_mistake_in_the_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("NoSuchOption yes\n")
    error = await fails(tmp_path / "config")
    assert "mend ssh's configuration" in str(error)
    assert "nosuchoption" in str(error)


async def test_without_an_ssh_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = await fails(tmp_path / "config")
    assert "openssh-client" in str(error)


def test_words_that_nobody_knows_are_passed_on_and_bounded() -> None:
    error = explain(HOST, "x" * 9000 + " the end\n")
    assert isinstance(error, PeerUnreachable)
    assert str(error).endswith(" the end")
    assert len(str(error)) < 400
    assert "without a word" in str(explain(HOST, ""))


# -- its processes


@needs_sshd
async def test_the_death_of_ssh_is_an_error_on_both_sides(server: SshServer) -> None:
    ours, theirs = await pair(server)
    os.kill(ours._client._process.pid, signal.SIGKILL)
    for side in (ours, theirs):
        with pytest.raises(PeerUnreachable, match="without a mark"):
            await asyncio.wait_for(read(side), LIMIT_S)
        await side.close()
    await nothing_runs()


@needs_sshd
async def test_an_ssh_that_does_not_end_by_itself_is_killed(server: SshServer) -> None:
    ours, theirs = await pair(server)
    process = ours._client._process
    process.send_signal(signal.SIGSTOP)
    await ours.close()
    await nothing_runs()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(PeerUnreachable, match="without a mark"):
        await asyncio.wait_for(read(theirs), LIMIT_S)
    await theirs.close()


async def pair(server: SshServer) -> tuple[SshConnection, Connection]:
    """Return both ends of a connection, whose listener is closed."""
    sides = transport(server.config)
    listener = await sides.listen()
    ours, theirs = await asyncio.gather(
        sides.connect(listener.address, timeout_s=LIMIT_S), listener.accept()
    )
    await listener.close()
    return ours, theirs
