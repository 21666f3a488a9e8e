"""The gate before every call of FaceService: caller, scope, room and time, before the message is read.

Rule: nothing is read before the caller is authenticated and there is room. To that end a unary call is handled as a
stream of one message, which the gate asks for itself; on the wire the two are the same. No exception leaves the gate:
what is not one of ours becomes `internal`, with its kind and place in the log and nothing of it in the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import DecodeError, Message

from service.auth import Authenticator
from service.config import Settings
from service.errors import DeadlineExceeded, FacetError, Internal, MalformedBody, Overloaded, TooLarge
from service.grpc.call import Call, current, open_call
from service.grpc.errors import status_of, trailers_of
from service.recognition.admission import Admission
from service.telemetry import logging
from service.telemetry.metrics import Metrics

SERVICE: Final = "facet.v1.FaceService"
SCOPES: Final = {
    "Detect": "detect",
    "Embed": "embed",
    "Verify": "verify",
    "Enroll": "enroll",
    "Identify": "identify",
}
# Messages in flight may hold this many full-size messages together.
FULL_MESSAGES: Final = 16

if TYPE_CHECKING:  # generic in the stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Answer = Callable[[Any, Context], Awaitable[Message]]

log = logging.get(__name__)


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """At most `settings.queue_limit` calls at a time; one more is refused with `Overloaded`."""

    def __init__(
        self, *, authenticator: Authenticator, admission: Admission, settings: Settings, metrics: Metrics
    ) -> None:
        self._authenticator = authenticator
        self._admission = admission
        self._metrics = metrics
        self._settings = settings
        self._calls = 0
        self._bytes = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """FaceService's own methods go through the gate; health and reflection are open to all."""
        handler = await continuation(handler_call_details)
        service, _, verb = handler_call_details.method.lstrip("/").partition("/")
        if handler is None or service != SERVICE:
            return handler

        answer = cast("Answer", handler.unary_unary)

        async def serve(_: object, context: Context) -> Message:
            return await self._serve(verb, answer, context)

        return grpc.stream_unary_rpc_method_handler(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _serve(self, verb: str, answer: Answer, context: Context) -> Message:
        limits = self._settings
        metadata = context.invocation_metadata() or ()
        call = open_call(verb, metadata, context.time_remaining(), limits.timeout_ms, limits.max_timeout_ms)
        status = grpc.StatusCode.CANCELLED  # what it stays when the caller leaves
        try:
            answered = await self._in_time(call, answer, context)
            context.set_trailing_metadata((("x-request-id", call.request_id),))
            status = grpc.StatusCode.OK
            return answered
        except FacetError as error:
            status = status_of(error)
            return await self._refuse(error, call, context)
        finally:
            self._account(call, status)

    async def _in_time(self, call: Call, answer: Answer, context: Context) -> Message:
        try:
            async with asyncio.timeout(call.remaining_s) as limit:
                call.principal = await self._authenticator.authenticate(call.api_key, call.authorization)
                call.principal.require(SCOPES[call.verb])
                with self._room():
                    return await self._answered(call, answer, context)
        except FacetError:
            raise
        except Exception as error:
            if limit.expired():
                raise DeadlineExceeded() from None
            # A defect: its message may quote the request, so only its kind and place are logged.
            log.error("call failed", exc_info=error, request_id=call.request_id, verb=call.verb)
            raise Internal() from None

    async def _answered(self, call: Call, answer: Answer, context: Context) -> Message:
        request = await self._read(context)
        token = current.set(call)
        try:
            with self._held(request.ByteSize()):
                return await answer(request, context)
        finally:
            current.reset(token)

    async def _read(self, context: Context) -> Message:
        try:
            request = await context.read()
        except DecodeError:
            raise MalformedBody("the message cannot be decoded") from None
        if not isinstance(request, Message):  # EOF: the caller closed without a message, or left
            raise MalformedBody("the call has no message")
        return request

    @contextmanager
    def _room(self) -> Iterator[None]:
        self._admission.check()  # how full the service is, the other door's requests included
        if self._calls >= self._settings.queue_limit:  # and the calls whose messages are still arriving
            raise Overloaded("too many calls in flight", retry_after_s=1.0)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    @contextmanager
    def _held(self, size: int) -> Iterator[None]:
        limit = self._settings.max_body_bytes
        if size > limit:
            raise TooLarge(f"the message is larger than {limit} bytes", limit=limit)
        if self._bytes + size > limit * FULL_MESSAGES:
            raise Overloaded("too many bytes of calls in flight", retry_after_s=1.0)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def _refuse(self, error: FacetError, call: Call, context: Context) -> Message:
        if isinstance(error, Overloaded):
            self._metrics.refused.labels("grpc").inc()
        await context.abort(status_of(error), error.message, trailers_of(error, call.request_id))
        raise AssertionError("abort returned")

    def _account(self, call: Call, status: grpc.StatusCode) -> None:
        spent = time.monotonic() - call.started
        self._metrics.requests.labels("grpc", call.verb, status.name).inc()
        self._metrics.request_seconds.labels("grpc", call.verb).observe(spent)
        say = log.debug if status is grpc.StatusCode.OK else log.info
        say(
            "call",
            verb=call.verb,
            status=status.name,
            ms=round(spent * 1000, 1),
            request_id=call.request_id,
            caller=call.principal.key_id if call.principal else None,
        )
