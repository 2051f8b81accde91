"""One JSON request to a server that is trusted with texts and with nothing else.

Whatever the server does, a call ends within its time and within its size: with a JSON value, or
with one error that holds neither what was sent nor what came back. Nothing is tried a second time
and no redirect is followed, so a text goes to the server that was named and nowhere else.
"""

import asyncio
import json
import os
from collections.abc import Coroutine, Mapping
from functools import cached_property
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from expunge.core.errors import ExpungeError
from expunge.core.extras import require
from expunge.core.limits import MIB
from expunge.data.strict_json import parse_line

TIMEOUT = 60.0
"""Seconds that a call may take as a whole."""

BODY_BYTES = MIB
"""Largest answer, in bytes."""

_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}
_LOCK = Lock()


class _Failed(Exception):
    """A call that came to nothing; the text says why and quotes nothing."""


class Poster:
    """Sends JSON to one server.

    A proxy that the environment names is used, except for an address of this machine.

    Args:
        url: Where the server's paths begin, ``http`` or ``https``, for instance with ``/v1`` at
            its end.
        token: Sent as ``Authorization: Bearer``.
        timeout: Seconds that a call may take as a whole.
        most_bytes: Largest answer, in bytes.

    Raises:
        ExpungeError: ``E-SERVE-006`` for an address, token or limit that is none, ``E-REQ-001``
            without the package httpx.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        most_bytes: int = BODY_BYTES,
    ) -> None:
        require("httpx", extra="serve")
        self.url, self._parts = url.rstrip("/"), _checked(url)
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise _unfit("A token that cannot stand in a header.", "printable ASCII characters.")
        if not 0 < timeout < 86_400 or most_bytes < 1:
            raise _unfit(f"{timeout} seconds and {most_bytes} bytes.", "limits above 0.")
        self._token, self._timeout, self._most_bytes = token, timeout, most_bytes

    def __deepcopy__(self, memo: dict[int, Any]) -> "Poster":
        return self  # a model that is copied takes its guards along, and they ask the same server

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a request.

        Args:
            path: Below the server's address, without a slash before it.
            body: A JSON value.

        Returns:
            The JSON value that came back.

        Raises:
            ExpungeError: ``E-SERVE-001`` for anything but an answer with status 200 and one JSON
                value within the limits.
        """
        content = json.dumps(body, allow_nan=False).encode()
        found = _waited(self._bounded(f"{self.url}/{path}", content))
        if isinstance(found, str):
            self.fail(found)
        try:
            return parse_line(found, "answer")
        except ExpungeError as error:
            code = error.code
        self.fail(f"It answered with what is no JSON value within the limits ({code}).")

    def fail(self, found: str) -> NoReturn:
        """End a call because of what the server did.

        Args:
            found: What; holds nothing of the texts.

        Raises:
            ExpungeError: ``E-SERVE-001``.
        """
        raise ExpungeError(
            "E-SERVE-001",
            f"The server {self.url} was asked and gave no usable answer. {found}",
            "a whole answer in the form this server is known for, in time.",
            "Check that the server runs, that its address, model and token are right, and ask it "
            "by hand.",
        )

    async def _bounded(self, url: str, content: bytes) -> bytes | str:
        """The body of the answer, or why there is none."""
        import httpx

        try:
            async with asyncio.timeout(self._timeout):
                return await self._answer(url, content)
        except (TimeoutError, httpx.TimeoutException):
            return f"It took longer than {self._timeout:g} seconds."
        except httpx.ConnectError:
            return "It cannot be reached."
        except _Failed as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return f"The connection broke ({type(error).__name__})."

    async def _answer(self, url: str, content: bytes) -> bytes:
        import httpx

        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        client = httpx.AsyncClient(
            verify=self._verify,
            timeout=self._timeout,
            follow_redirects=False,
            trust_env=not _is_here(self._parts),
        )
        async with client, client.stream("POST", url, content=content, headers=headers) as response:
            if response.status_code != 200:
                raise _Failed(f"It answered with status {response.status_code}.")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise _Failed("It answered in an encoding that was not asked for.")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._most_bytes:
                    raise _Failed(f"Its answer is longer than {self._most_bytes} bytes.")
            return bytes(body)

    @cached_property
    def _verify(self) -> Any:
        """Certificates are read once and not for every call."""
        import httpx

        return httpx.create_ssl_context() if self._parts.scheme == "https" else False


def _waited(job: "Coroutine[Any, Any, bytes | str]") -> bytes | str:
    """Run a job to its end beside this thread, which may have a loop of its own."""
    with _LOCK:
        loop = _LOOPS.get(os.getpid())
        if loop is None:
            loop = _LOOPS[os.getpid()] = asyncio.new_event_loop()
            Thread(target=loop.run_forever, name="expunge-posting", daemon=True).start()
    future = asyncio.run_coroutine_threadsafe(job, loop)
    try:
        return future.result()
    finally:
        future.cancel()


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fit = False
    # What stands beside host and path could be a secret, and addresses stand in messages.
    if not is_fit or parts.username or parts.password or parts.query or parts.fragment:
        raise _unfit(
            "The address of a language model that is none, or that has more than a host, a port "
            "and a path.",
            "an address like http://127.0.0.1:8000/v1.",
        )
    return parts


def _is_here(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unfit(found: str, expected: str) -> ExpungeError:
    return ExpungeError(
        "E-SERVE-006", found, expected, "Correct it; a token comes from the environment."
    )
