"""What stands before each request of operators: who asks, whether it may, the record, errors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol, TypeAlias

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict

from colod.errors import ColodError, NotPermitted
from colod.rpc import status, versions
from colod.rpc.operators import Operator
from colod.rpc.peer_server import OnDefect
from colod.rpc.permissions import changes_something, check_permitted, is_act
from colod.v1 import admin_pb2

SERVICE: Final = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name

BEGUN: Final = "begun"
DONE: Final = "done"
DENIED: Final = "denied"
FAILED: Final = "failed"
BROKEN_OFF: Final = "broken off"

_TEXT_MAX_CHARS: Final = 1000
_ITEMS_MAX: Final = 16

Identify: TypeAlias = Callable[[Any], Operator]
"""Returns who makes the call of a context. Raises NotPermitted if that is nobody who may."""

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One request that would change something.

    Attributes:
        number: Of this server's; the same at the begin and the end.
        name: Who asks; "" if that is nobody.
        role: What it may do; "" for nothing.
        address: Where it asks from; `unix` on this host, where nothing proves the name.
        call: What for.
        request: Its fields that are set; texts and lists cut to a bound.
    """

    number: int
    name: str
    role: str
    address: str
    call: str
    request: Mapping[str, object]


class Audit(Protocol):
    """Keeps what operators did."""

    def note(self, act: Act, outcome: str, error: ColodError | None = None) -> None:
        """Note that `act` has BEGUN, or how it ended; returns at once and raises nothing.

        Args:
            act: What was asked.
            outcome: BEGUN; DONE; DENIED: the role does not allow it, nothing was begun; FAILED,
                with `error`; BROKEN_OFF: the caller went away, or the daemon ends.
            error: Why.
        """


class Guard(grpc.aio.ServerInterceptor):
    """Admits operators, and maps errors, for single replies and for streams."""

    def __init__(
        self,
        identify: Identify,
        audit: Audit | None,
        on_defect: OnDefect | None,
        *,
        calls_each: int | None = None,
        denial_s: float = 0.0,
    ) -> None:
        """Guard one server.

        Args:
            identify: Says who asks.
            audit: Told of each request that would change something.
            on_defect: Given each `IllegalTransition` or `InvariantBroken`; must end the process.
            calls_each: Most calls of one name at once; None for any number.
            denial_s: How long who may not do what it asks waits to hear so: nobody is to push older
                entries out of the audit log by asking again and again.
        """
        self._identify = identify
        self._audit = audit
        self._on_defect = on_defect
        self._calls_each = calls_each
        self._denial_s = denial_s
        self._running: Counter[str] = Counter()
        self._numbers = count(1)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Put itself before a call of the service Admin."""
        handler = await continuation(handler_call_details)
        service, _, call = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service != SERVICE:
            return handler
        forms = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_stream is not None:
            stream = self._stream(call, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(stream, *forms)
        assert handler.unary_unary is not None
        single = self._single(call, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(single, *forms)

    def _single(self, call: str, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                async with self._admitted(call, request, context):
                    return await answer(request, context)
            except ColodError as error:
                await self._abort(error, context)

        return guarded

    def _stream(self, call: str, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with (
                    self._admitted(call, request, context),
                    aclosing(answer(request, context)) as replies,
                ):
                    async for reply in replies:
                        yield reply
            except ColodError as error:
                await self._abort(error, context)

        return guarded

    @asynccontextmanager
    async def _admitted(self, call: str, request: Any, context: Any) -> AsyncIterator[None]:
        """Let a request through if it may be, and note what becomes of it."""
        operator, trouble = self._who(context)
        with self._counted(operator.name if operator else ""):
            act = self._act(operator, call, request, context)
            try:
                if operator is None:
                    raise trouble
                check_permitted(operator, call, request)
            except NotPermitted as error:
                if is_act(call):
                    self._note(act, DENIED, error)
                await asyncio.sleep(self._denial_s)
                raise
            _check_version(context)
            if operator.is_remote and hasattr(request, "operator"):
                request.operator = str(operator)  # nobody signs with another's name
            with self._noted(act) if changes_something(call, request) else nullcontext():
                yield

    def _who(self, context: Any) -> tuple[Operator | None, NotPermitted]:
        try:
            return self._identify(context), NotPermitted("")
        except NotPermitted as error:
            return None, error

    def _act(self, operator: Operator | None, call: str, request: Any, context: Any) -> Act:
        # Who uses the socket and does not say who it is may say so in the request.
        said = str(getattr(request, "operator", "")) if operator and not operator.is_remote else ""
        return Act(
            number=next(self._numbers),
            name=(operator.name if operator else "") or str(_bounded(said)),
            role=operator.role.word if operator else "",
            address=operator.address if operator else str(context.peer()),
            call=call,
            request=_fields(request),
        )

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Bound the calls of one name; that is no denial, and nobody fills the audit log by it."""
        if self._calls_each is None:
            yield
            return
        if self._running[name] >= self._calls_each:
            raise NotPermitted(
                f"{name or 'nobody'} has {self._calls_each} calls under way on this host",
                advice="end some of them: status --watch, top, events --follow",
            )
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1

    @contextmanager
    def _noted(self, act: Act) -> Iterator[None]:
        self._note(act, BEGUN)
        try:
            yield
        except ColodError as error:
            self._note(act, FAILED, error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._note(act, BROKEN_OFF)
            raise
        except Exception as error:
            self._note(act, FAILED, ColodError(f"{type(error).__name__}: {error}"))
            raise
        self._note(act, DONE)

    def _note(self, act: Act, outcome: str, error: ColodError | None = None) -> None:
        if self._audit is not None:
            self._audit.note(act, outcome, error)

    async def _abort(self, error: ColodError, context: Any) -> None:
        if isinstance(error, status.DEFECTS):
            if self._on_defect is not None:
                self._on_defect(error)
            raise error
        await context.abort(
            status.status_of(error), status.text_of(error), status.trailers_of(error)
        )


def _check_version(context: Any) -> None:
    ours = (versions.ADMIN_VERSION_MIN, versions.ADMIN_VERSION_MAX)
    versions.check_version(context.invocation_metadata() or (), ours, required=False)


def _fields(request: Any) -> Mapping[str, object]:
    told = MessageToDict(request, preserving_proto_field_name=True)
    return {name: _bounded(value) for name, value in told.items() if name != "operator"}


def _bounded(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _TEXT_MAX_CHARS else f"{value[: _TEXT_MAX_CHARS - 1]}…"
    if isinstance(value, list):
        return [_bounded(each) for each in value[:_ITEMS_MAX]]
    if isinstance(value, dict):
        return {name: _bounded(each) for name, each in value.items()}
    return value
