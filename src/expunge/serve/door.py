"""The door every request comes through: its token, its rate, its size, its time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from json import dumps
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.limits import MIB
from expunge.serve.access import ADMIN, CALLER, Access
from expunge.serve.faults import Fault, broken, fault_of

BODY_BYTES = 10 * MIB
"""Longest body of a request."""

BODY_SECONDS = 30.0
"""Within so many seconds all of it must have come."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)


class Door:
    """Stands around the whole application, so that no route can be reached past it.

    Args:
        app: What is behind.
        access: Who may come in.
        most_bytes: Longest body.
        seconds: Time for a body to come.
    """

    def __init__(
        self,
        app: App,
        access: Access,
        *,
        most_bytes: int = BODY_BYTES,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self._app, self._access = app, access
        self._most_bytes, self._seconds = most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError("only HTTP is served here")
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            role = self._access.admit(_header(scope, b"authorization"), scope_of(scope["path"]))
            scope["state"] = {**scope.get("state", {}), "caller": role}
            body = await self._body(scope, receive)
            await self._app(scope, _replayed(body, receive), sending)
        except Exception as error:
            if begun:
                _log.error("an answer broke off: %s", type(error).__name__)
                raise ConnectionError from None  # nothing of the error may reach the server's log
            await _refuse(told(error), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length[:20]) > self._most_bytes:
            raise self._too_long()
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Fault(400, "disconnected", "The client left.")
                    body += message.get("body", b"")
                    if len(body) > self._most_bytes:
                        raise self._too_long()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            late = Fault(408, "too_slow", f"No whole body within {self._seconds:g} seconds.")
        late.headers = {"Connection": "close"}
        raise late

    def _too_long(self) -> Fault:
        return Fault(
            413, "body_too_long", f"A body of more than {self._most_bytes} bytes.",
            headers={"Connection": "close"},
        )  # fmt: skip


def scope_of(path: str) -> str:
    """Whose token a path takes; there is no path that takes none."""
    return ADMIN if path == "/admin" or path.startswith("/admin/") else CALLER


def told(error: Exception) -> Fault:
    """What a client hears of an error; of one nobody expected, nothing but that there was one."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, ExpungeError):
        return fault_of(error)
    _log.error("a request failed: %s", type(error).__name__)  # its message could quote a target
    return broken()


def _header(scope: Scope, name: bytes) -> str:
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(fault: Fault, send: Send) -> None:
    content = dumps(fault.body).encode()
    said = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "cache-control": "no-store",
        **fault.headers,
    }
    headers = [(name.lower().encode(), value.encode()) for name, value in said.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
