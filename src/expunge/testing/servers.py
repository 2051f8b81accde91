"""Servers of this machine whose answers a test writes: what goes over the wire is real."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from expunge.engine.guarding.chat import Chat


@dataclass(frozen=True, slots=True)
class Heard:
    """One request that came in.

    Attributes:
        path: Its path.
        headers: Its headers, names in lower case.
        body: Its JSON value.
    """

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer that is not simply a JSON value with status 200.

    Attributes:
        body: Its bytes.
        status: Its status.
        headers: Its further headers.
        drips: Seconds between one byte and the next.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drips: float = 0.0


Answering = Callable[[Heard], Any]
"""Makes a JSON value, or a `Raw`, of a request."""


@dataclass(slots=True)
class Loopback:
    """A server of this machine.

    Attributes:
        url: Where it is, with ``/v1`` at its end.
        heard: What came in, in order.
    """

    url: str
    heard: list[Heard] = field(default_factory=list)


@contextmanager
def loopback(answering: Answering) -> Iterator[Loopback]:
    """A server that answers as a test wants, as long as the context lasts.

    Args:
        answering: What it answers; called in a thread of the server.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    here = Loopback(f"http://127.0.0.1:{server.server_port}/v1")
    server.RequestHandlerClass = _handler(answering, here.heard)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chatting(chat: Chat) -> Iterator[Loopback]:
    """A server with OpenAI's chat completions, behind which a chat answers.

    Args:
        chat: Who answers, for instance `expunge.testing.chats.Scripted`.
    """

    def answering(heard: Heard) -> Any:
        asked = heard.body
        if heard.path != "/v1/chat/completions":
            return Raw(b"{}", status=404)
        said = chat.say(
            asked["messages"],
            samples=asked.get("n", 1),
            temperature=asked.get("temperature", 0.0),
            new_tokens=asked.get("max_tokens", 256),
            seed=asked.get("seed", 0),
        )
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
            for index, text in enumerate(said)
        ]
        return {"object": "chat.completion", "model": asked.get("model", ""), "choices": choices}

    with loopback(answering) as here:
        yield here


def _handler(answering: Answering, kept: list[Heard]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            length = int(self.headers.get("Content-Length", 0))
            names = {name.lower(): value for name, value in self.headers.items()}
            heard = Heard(self.path, names, json.loads(self.rfile.read(length)))
            kept.append(heard)
            answer = answering(heard)
            raw = answer if isinstance(answer, Raw) else Raw(json.dumps(answer).encode())
            self.send_response(raw.status)
            self.send_header("Content-Length", str(len(raw.body)))
            for name, value in raw.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self._write(raw)

        def _write(self, raw: Raw) -> None:
            import time

            try:
                for at in range(len(raw.body)) if raw.drips else ():
                    self.wfile.write(raw.body[at : at + 1])
                    self.wfile.flush()
                    time.sleep(raw.drips)
                self.wfile.write(b"" if raw.drips else raw.body)
            except OSError:  # the client has gone, as it should
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
