"""The witness `etcd`, against Debian's etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme

from colod.errors import ConfigError, WitnessError, WitnessUnreachable
from colod.failover.record import create, encode, go_alone, pair, take_over
from colod.model import Epoch, HostName
from colod.witness.base import Lost, Stored, Unknown, Won
from colod.witness.etcd import EtcdWitness
from colod.witness.settle import settle
from tests.integration.etcd_server import EtcdMember, Tls, free_port, require_etcd, start_cluster
from tests.unit.witness_contract import (
    GUEST,
    PAIRING,
    A,
    B,
    Hosts,
    WitnessContract,
    attempt,
    created,
    paired,
    record_of,
    write,
)

PATIENT_S = 30.0
HASTY_S = 0.5
_prefixes = count(1)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    """One member that stays up for all tests of this module."""
    require_etcd()
    (member,) = start_cluster(tmp_path_factory.mktemp("etcd"), 1)
    yield member
    member.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdMember]:
    """One member that the test may hurt."""
    require_etcd()
    (member,) = start_cluster(tmp_path, 1)
    yield member
    member.stop()


@pytest.fixture
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def witness(
    stack: AsyncExitStack,
    *endpoints: str,
    host: HostName = A,
    timeout_s: float = PATIENT_S,
    **options: Any,
) -> EtcdWitness:
    """Make a witness that is closed when the test ends."""
    table = {"endpoints": endpoints, "timeout_s": timeout_s} | options
    made = EtcdWitness.from_config(table, host=host)
    stack.push_async_callback(made.close)
    return made


@pytest.fixture
def prefix() -> str:
    """Where no other test has its records."""
    return f"/test-{next(_prefixes)}/"


@pytest.fixture
def hosts(etcd: EtcdMember, opened: AsyncExitStack, prefix: str) -> Hosts:
    return Hosts(
        witness(opened, etcd.url, host=A, prefix=prefix),
        witness(opened, etcd.url, host=B, prefix=prefix),
    )


class TestContract(WitnessContract):
    """The witness etcd does what every witness must."""


async def test_records_lie_under_the_documented_key(
    own: EtcdMember, opened: AsyncExitStack
) -> None:
    stored = await created(Hosts(witness(opened, own.url), witness(opened, own.url)))
    held = own.ctl("get", "/colod/v1/protections/web", "--print-value-only").stdout
    assert held.rstrip(b"\n") == encode(record_of(stored))


async def test_a_write_to_a_hung_etcd_is_unknown_and_settles_once_it_goes_on(
    own: EtcdMember, opened: AsyncExitStack
) -> None:
    patient, hasty = witness(opened, own.url), witness(opened, own.url, timeout_s=HASTY_S)
    stored = await paired(Hosts(patient, patient))
    await hasty.read(GUEST)
    alone = go_alone(record_of(stored), attempt=attempt())
    own.freeze()
    outcome = await hasty.compare_and_swap(GUEST, stored, alone)
    assert isinstance(outcome, Unknown), outcome
    with pytest.raises(WitnessUnreachable):
        await hasty.read(GUEST)
    assert isinstance(await settle(hasty, GUEST, stored, alone), Unknown)
    own.thaw()
    settled = await settle(patient, GUEST, stored, alone)
    assert isinstance(settled, Won)
    assert settled.stored.record == alone
    assert await patient.read(GUEST) == settled.stored


async def test_an_unknown_write_is_denied_only_by_what_overtook_it(
    own: EtcdMember, opened: AsyncExitStack
) -> None:
    a, b = witness(opened, own.url), witness(opened, own.url, host=B)
    hasty = witness(opened, own.url, timeout_s=HASTY_S)
    stored = await paired(Hosts(a, b))
    # Nothing listens there: this write provably never reaches etcd.
    nowhere = witness(opened, f"http://127.0.0.1:{free_port()}", timeout_s=HASTY_S)
    alone = go_alone(record_of(stored), attempt=attempt())
    assert isinstance(await nowhere.compare_and_swap(GUEST, stored, alone), Unknown)
    taken = await write(b, stored, take_over(record_of(stored), PAIRING, attempt=attempt()))
    assert await settle(hasty, GUEST, stored, alone) == Lost(taken)


async def test_a_write_whose_answer_was_lost_is_recognised_as_ours(
    own: EtcdMember, opened: AsyncExitStack
) -> None:
    direct = witness(opened, own.url)
    stored = await paired(Hosts(direct, direct))
    alone = go_alone(record_of(stored), attempt=attempt())
    async with _Deafening(own.client_port) as deaf:
        through = witness(opened, f"http://127.0.0.1:{deaf.port}", timeout_s=10)
        await through.read(GUEST)
        deaf.swallow_answers()
        writing = asyncio.ensure_future(through.compare_and_swap(GUEST, stored, alone))
        while (await direct.read(GUEST)) == stored:  # a round trip each time
            pass
        deaf.cut()
        # The same write is sent again within the time bound and finds itself in place.
        outcome = await writing
    assert outcome == Won(await direct.read(GUEST))
    assert record_of(await direct.read(GUEST)) == alone


async def test_a_stopped_endpoint_is_passed_over(own: EtcdMember, opened: AsyncExitStack) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    client = witness(opened, dead, own.url)
    stored = await paired(Hosts(client, client))
    assert await client.read(GUEST) == stored


async def test_a_member_that_hangs_or_dies_costs_time_but_no_answer(
    tmp_path: Path, opened: AsyncExitStack
) -> None:
    require_etcd()
    members = start_cluster(tmp_path, 3)
    try:
        client = witness(opened, *(one.url for one in members))
        stored = await paired(Hosts(client, client))
        members[0].freeze()
        after = await write(client, stored, go_alone(record_of(stored), attempt=attempt()))
        members[0].thaw()
        members[1].stop()
        assert await client.read(GUEST) == after
        members[2].stop()
        alone = witness(opened, members[0].url, timeout_s=HASTY_S)
        with pytest.raises(WitnessUnreachable):  # a minority answers no linearizable read
            await alone.read(GUEST)
    finally:
        for one in members:
            one.stop()


async def test_a_restarted_etcd_is_found_again_by_the_same_witness(
    own: EtcdMember, opened: AsyncExitStack
) -> None:
    client = witness(opened, own.url)
    stored = await paired(Hosts(client, client))
    own.stop()
    hasty = witness(opened, own.url, timeout_s=HASTY_S)
    with pytest.raises(WitnessUnreachable):
        await hasty.read(GUEST)
    own.start()
    own.wait_until_serving()
    assert await client.read(GUEST) == stored


async def test_a_restored_older_etcd_is_seen_as_older_and_is_never_a_lost_race(
    own: EtcdMember, opened: AsyncExitStack, tmp_path: Path
) -> None:
    client = witness(opened, own.url)
    before = await created(Hosts(client, client))
    own.ctl("snapshot", "save", str(tmp_path / "backup"))
    stored = await write(
        client, before, pair(record_of(before), PAIRING, Epoch(2), attempt=attempt())
    )
    own.stop()
    own.data.rename(tmp_path / "old-data")
    own.ctl(
        *("snapshot", "restore", str(tmp_path / "backup"), "--data-dir", str(own.data)),
        *("--name", own.name, "--initial-cluster", f"{own.name}={own.peer_url}"),
        *("--initial-advertise-peer-urls", own.peer_url),
        *("--initial-cluster-token", "restored"),
    )
    own.start()
    own.wait_until_serving()
    # The daemon that saw the old cluster is told so; one that starts now reads the older record.
    with pytest.raises(WitnessError, match="restored"):
        await client.read(GUEST)
    again = witness(opened, own.url)
    assert await again.read(GUEST) == before
    alone = go_alone(record_of(stored), attempt=attempt())
    for one in (client, again):
        outcome = await one.compare_and_swap(GUEST, stored, alone)
        assert isinstance(outcome, Unknown), outcome
    # Another change may get the very revision that ours had: it is not taken for ours.
    other = await write(
        again, before, pair(record_of(before), PAIRING, Epoch(3), attempt=attempt())
    )
    same_revision = replace(stored, revision=other.revision)
    outcome = await again.compare_and_swap(GUEST, same_revision, alone)
    assert isinstance(outcome, Unknown), outcome
    assert await again.read(GUEST) == other


async def test_endpoints_of_two_clusters_are_not_taken_for_one_witness(
    etcd: EtcdMember, own: EtcdMember, opened: AsyncExitStack
) -> None:
    client = witness(opened, own.url, etcd.url, timeout_s=5)
    await client.read(GUEST)
    own.stop()
    with pytest.raises(WitnessError, match="different clusters"):
        await client.read(GUEST)


@pytest.mark.parametrize("value", ["", "{}", '{"deleted": true}', "[1]", "null", "\\"])
async def test_what_is_no_record_is_an_error_and_is_never_written_over(
    etcd: EtcdMember, hosts: Hosts, prefix: str, value: str
) -> None:
    stored = await created(hosts)
    key = f"{prefix}web"
    etcd.ctl("put", key, stdin=value.encode() or b"\n")
    with pytest.raises(WitnessError):
        await hosts.a.read(GUEST)
    following = pair(record_of(stored), PAIRING, Epoch(2), attempt=attempt())
    with pytest.raises(WitnessError):
        await hosts.a.compare_and_swap(GUEST, stored, following)
    held = etcd.ctl("get", key, "--print-value-only").stdout
    assert held.strip() == value.encode()


class TestAuthentication:
    """Users and passwords."""

    @pytest.fixture
    def guarded(self, own: EtcdMember, tmp_path: Path) -> EtcdMember:
        """A member with authentication on, and a user who may touch colod's keys only."""
        for words in (
            ("user", "add", "root:top"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "colod"),
            ("role", "grant-permission", "colod", "--prefix=true", "readwrite", "/colod/"),
            ("user", "add", "colod:pass word"),
            ("user", "grant-role", "colod", "colod"),
            ("auth", "enable"),
        ):
            own.ctl(*words)
        (tmp_path / "password").write_text("pass word\n")
        (tmp_path / "wrong").write_text("guess\n")
        return own

    async def test_the_user_of_the_configuration_is_let_in(
        self, guarded: EtcdMember, opened: AsyncExitStack, tmp_path: Path
    ) -> None:
        client = witness(
            opened, guarded.url, user="colod", password_file=str(tmp_path / "password")
        )
        stored = await paired(Hosts(client, client))
        assert await client.read(GUEST) == stored
        assert [one.problems for one in await client.status()] == [()]

    async def test_a_token_that_etcd_forgot_is_renewed(
        self, guarded: EtcdMember, opened: AsyncExitStack, tmp_path: Path
    ) -> None:
        client = witness(
            opened, guarded.url, user="colod", password_file=str(tmp_path / "password")
        )
        stored = await paired(Hosts(client, client))
        guarded.stop()  # simple tokens live in memory
        guarded.start()
        guarded.wait_until_serving()
        after = await write(client, stored, go_alone(record_of(stored), attempt=attempt()))
        # Any change of users and roles makes older tokens stale in another way.
        guarded.ctl("--user", "root:top", "user", "add", "other:secret")
        assert await client.read(GUEST) == after

    async def test_a_wrong_password_is_named_and_decides_nothing(
        self, guarded: EtcdMember, opened: AsyncExitStack, tmp_path: Path
    ) -> None:
        client = witness(opened, guarded.url, user="colod", password_file=str(tmp_path / "wrong"))
        with pytest.raises(WitnessError, match="authentication failed"):
            await client.read(GUEST)
        outcome = await client.compare_and_swap(
            GUEST, Stored(None, 0), create(A, B, attempt=attempt())
        )
        assert isinstance(outcome, Unknown)

    async def test_no_user_and_no_permission_are_named_and_decide_nothing(
        self, guarded: EtcdMember, opened: AsyncExitStack, tmp_path: Path
    ) -> None:
        with pytest.raises(WitnessError, match="user name is empty"):
            await witness(opened, guarded.url).read(GUEST)
        password = str(tmp_path / "password")
        stray = witness(
            opened, guarded.url, user="colod", password_file=password, prefix="/elsewhere/"
        )
        with pytest.raises(WitnessError, match="permission denied"):
            await stray.read(GUEST)

    async def test_a_missing_password_file_is_named(
        self, guarded: EtcdMember, opened: AsyncExitStack, tmp_path: Path
    ) -> None:
        missing = str(tmp_path / "missing")
        client = witness(opened, guarded.url, user="colod", password_file=missing, timeout_s=0.5)
        with pytest.raises(WitnessUnreachable, match="No such file"):
            await client.read(GUEST)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tls]:
    """Certificates of the right authority and of a stranger."""
    return {name: _certificates(tmp_path_factory.mktemp(name)) for name in ("ours", "stranger")}


@pytest.fixture(scope="module")
def member(files: dict[str, Tls], tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    """A member that speaks TLS only, and only to clients of the right authority."""
    require_etcd()
    (one,) = start_cluster(tmp_path_factory.mktemp("tls-etcd"), 1, files["ours"])
    yield one
    one.stop()


class TestTls:
    """Members and clients with certificates."""

    async def test_members_and_clients_with_the_right_authority_meet(
        self, member: EtcdMember, files: dict[str, Tls], opened: AsyncExitStack
    ) -> None:
        client = witness(opened, member.url, **_tls_options(files["ours"], files["ours"]))
        stored = await paired(Hosts(client, client))
        assert await client.read(GUEST) == stored

    async def test_a_member_with_a_strangers_certificate_is_not_believed(
        self, member: EtcdMember, files: dict[str, Tls], opened: AsyncExitStack
    ) -> None:
        options = _tls_options(files["stranger"], files["ours"])
        client = witness(opened, member.url, timeout_s=HASTY_S, **options)
        with pytest.raises(WitnessUnreachable):
            await client.read(GUEST)

    async def test_a_client_with_a_strangers_certificate_is_not_let_in(
        self, member: EtcdMember, files: dict[str, Tls], opened: AsyncExitStack
    ) -> None:
        options = _tls_options(files["ours"], files["stranger"])
        client = witness(opened, member.url, timeout_s=HASTY_S, **options)
        with pytest.raises(WitnessUnreachable):
            await client.read(GUEST)

    async def test_renewed_certificates_are_read_without_a_restart(
        self, member: EtcdMember, files: dict[str, Tls], opened: AsyncExitStack, tmp_path: Path
    ) -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(files["stranger"].ca.read_bytes())
        options = _tls_options(replace(files["ours"], ca=ca), files["ours"])
        client = witness(opened, member.url, timeout_s=10, **options)
        reading = asyncio.ensure_future(client.read(GUEST))
        await asyncio.wait([reading], timeout=0.3)
        assert not reading.done()
        ca.write_bytes(files["ours"].ca.read_bytes())
        await reading


def _certificates(directory: Path) -> Tls:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    tls = Tls(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    authority.cert_pem.write_to_path(str(tls.ca))
    tls.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(tls.key))
    return tls


def _tls_options(trusted: Tls, own: Tls) -> dict[str, Any]:
    return {"ca_file": str(trusted.ca), "cert_file": str(own.cert), "key_file": str(own.key)}


class _Deafening:
    """Passes bytes on between client and etcd, until told to swallow etcd's answers."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._deaf = False
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def __aenter__(self) -> _Deafening:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    def swallow_answers(self) -> None:
        """Let nothing that etcd says reach the client any more."""
        self._deaf = True

    def cut(self) -> None:
        """Break all connections; new ones are passed on both ways."""
        self._deaf = False
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers += [writer, server[1]]
        self._tasks.append(asyncio.ensure_future(self._pass_on(reader, server[1], answers=False)))
        self._tasks.append(asyncio.ensure_future(self._pass_on(server[0], writer, answers=True)))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while piece := await reader.read(65536):
                if not (answers and self._deaf):
                    writer.write(piece)
                    await writer.drain()
        except (OSError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


async def test_the_status_names_what_is_wrong_with_each_endpoint(
    etcd: EtcdMember, opened: AsyncExitStack
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    good, bad = await witness(opened, etcd.url, dead, timeout_s=5).status()
    assert good.version.startswith("3.")
    assert good.problems == ()
    assert bad.version == ""
    assert len(bad.problems) == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "endpoints"),
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": ["127.0.0.1:2379"]}, "want http"),
        ({"endpoints": ["http://a:1", "https://b:1"]}, "all http"),
        ({"endpoints": ["http://a:1/path"]}, "nothing but"),
        ({"endpoints": ["http://a:1"], "ca_file": "/x"}, "need https"),
        ({"endpoints": ["https://a:1"], "cert_file": "/x"}, "belong together"),
        ({"endpoints": ["http://a:1"], "user": "u"}, "belong together"),
        ({"endpoints": ["http://a:1"], "prefix": "x"}, "prefix"),
        ({"endpoints": ["http://a:1"], "timeout_s": 0}, "timeout_s"),
        ({"endpoints": ["http://a:1"], "pasword": "x"}, "pasword"),
    ],
)
def test_a_table_that_cannot_work_is_refused_with_the_reason(
    options: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        EtcdWitness.from_config(options, host=A)
