"""The witness `etcd`: each record under one key of an existing etcd cluster.

A change is one transaction: if the key still has the revision *and* the content that were read,
put the new record, else return what is there. Deleting writes a mark in the record's place, because
a compare on an absent key cannot see that a record came and went in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from colod.errors import WitnessError
from colod.failover.record import OwnershipRecord, check_transition
from colod.model import GuestName, HostName
from colod.options import parse_options
from colod.witness.base import Outcome, Stored, Unknown, Won
from colod.witness.content import after_write, outcome_of_mismatch, pack, unpack
from colod.witness.etcdclient import Cluster, EtcdClient, MemberStatus
from colod.witness.etcdpb import rpc_pb2 as pb

DEFAULT_PREFIX = "/colod/v1/protections/"


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port is None:
        raise ValueError(f"{url!r}: want http://HOST:PORT or https://HOST:PORT")
    if parts.path not in {"", "/"} or parts.query or parts.username is not None:
        raise ValueError(f"{url!r}: want nothing but scheme, host and port")
    return url


class EtcdOptions(BaseModel):
    """The table `[witness]` of kind `etcd`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoints: tuple[Annotated[str, AfterValidator(_endpoint)], ...] = Field(
        min_length=1,
        max_length=9,
        description="Members of one cluster, all http:// or all https://. With one only, its "
        "death makes the witness unreachable.",
    )
    prefix: str = Field(
        default=DEFAULT_PREFIX,
        pattern=r"^/.*/$",
        description="Where the records lie. Both hosts must name the same one.",
    )
    timeout_s: float = Field(
        default=3.0,
        ge=0.1,
        le=60,
        description="Longest wait for an answer from any endpoint. Shorter than the cluster's "
        "election time-out (1 s by default): a change of its leader looks like its loss. Longer: "
        "a failover waits that long before it is known to be open.",
    )
    ca_file: Path | None = Field(default=None, description="PEM; else the system's authorities.")
    cert_file: Path | None = Field(default=None, description="PEM; where members ask for one.")
    key_file: Path | None = Field(default=None, description="PEM; with cert_file.")
    user: str | None = Field(default=None, min_length=1, description="etcd user.")
    password_file: Path | None = Field(default=None, description="With user; its first line.")

    @property
    def scheme(self) -> Literal["http", "https"]:
        """How the endpoints are spoken to."""
        return "https" if self.endpoints[0].startswith("https:") else "http"

    @model_validator(mode="after")
    def _check(self) -> Self:
        files = (self.ca_file, self.cert_file, self.key_file)
        problems = {
            "endpoints must be all http:// or all https://": any(
                urlsplit(url).scheme != self.scheme for url in self.endpoints
            ),
            "ca_file, cert_file and key_file need https:// endpoints": self.scheme == "http"
            and any(files),
            "cert_file and key_file belong together": bool(self.cert_file) != bool(self.key_file),
            "user and password_file belong together": bool(self.user) != bool(self.password_file),
        }
        if any(problems.values()):
            raise ValueError("; ".join(text for text, is_so in problems.items() if is_so))
        return self

    def cluster(self) -> Cluster:
        """Return these options as the client wants them."""
        return Cluster(
            endpoints=[urlsplit(url).netloc for url in self.endpoints],
            secure=self.scheme == "https",
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            user=self.user,
            password_file=self.password_file,
        )


class EtcdWitness:
    """Keeps each record under one key of an etcd cluster; revisions are its `mod_revision`s."""

    def __init__(self, options: EtcdOptions, *, host: HostName) -> None:
        """Prepare to talk to the cluster in the name of `host`; nothing is sent yet."""
        self._host = host
        self._prefix = options.prefix
        self._client = EtcdClient(options.cluster(), timeout_s=options.timeout_s)

    @classmethod
    def from_config(cls, options: Mapping[str, object], *, host: HostName) -> Self:
        """Make the witness from its table; see `EtcdOptions`."""
        return cls(parse_options(EtcdOptions, options, "witness"), host=host)

    async def read(self, guest: GuestName) -> Stored:
        """Return what is held for `guest`; see `Witness.read`."""
        return _stored(await self._client.range(self._key(guest)))

    async def compare_and_swap(
        self, guest: GuestName, expected: Stored, new: OwnershipRecord | None
    ) -> Outcome:
        """Replace `expected` by `new`; see `Witness.compare_and_swap`.

        Within the time bound the same transaction may go to several endpoints. That is one write,
        not several: each copy is conditional on the same revision, so one of them at most takes
        effect, and one that finds an earlier copy in place answers Won.
        """
        check_transition(expected.record, new, by=self._host, after=expected.last_generation)
        request = _transaction(self._key(guest), expected, new)
        try:
            answer = await self._client.txn(request)
        except WitnessError as error:
            return Unknown(str(error))
        if answer.succeeded:
            return Won(after_write(expected, new, answer.header.revision))
        if len(answer.responses) != 1:
            raise WitnessError(f"etcd answered a failed compare with {len(answer.responses)} parts")
        return outcome_of_mismatch(expected, _stored(answer.responses[0].response_range), new)

    async def status(self) -> tuple[MemberStatus, ...]:
        """Return what each endpoint says of itself, for `colodctl doctor`."""
        return await self._client.status()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _key(self, guest: GuestName) -> bytes:
        return f"{self._prefix}{guest}".encode()


def _transaction(key: bytes, expected: Stored, new: OwnershipRecord | None) -> pb.TxnRequest:
    # mod_revision 0 stands for an absent key. The content is compared too: a cluster that was
    # restored from a backup gives out the same revisions again, for other changes.
    compare = [
        pb.Compare(
            key=key,
            target=pb.Compare.MOD,
            result=pb.Compare.EQUAL,
            mod_revision=expected.revision,
        )
    ]
    if expected.revision:
        compare.append(
            pb.Compare(
                key=key,
                target=pb.Compare.VALUE,
                result=pb.Compare.EQUAL,
                value=pack(expected),
            )
        )
    put = pb.PutRequest(key=key, value=pack(after_write(expected, new, 0)))
    return pb.TxnRequest(
        compare=compare,
        success=[pb.RequestOp(request_put=put)],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
    )


def _stored(answer: pb.RangeResponse) -> Stored:
    if not answer.kvs:
        return Stored(None, 0)
    held = answer.kvs[0]
    try:
        return unpack(held.value, held.mod_revision)
    except WitnessError as error:
        raise WitnessError(f"etcd key {held.key.decode(errors='replace')}: {error}") from error
