"""From the options of ``expunge serve`` to a server that listens."""

import contextlib
import gc
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.errors import raise_all
from expunge.core.registry import guards
from expunge.data.jsonl import read_rows
from expunge.engine.guarding.deciders import read_decider
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.pipeline import Pipeline
from expunge.engine.guarding.roles import Chats, cast, needed
from expunge.engine.guarding.talking import read_chats
from expunge.serve.access import CALLER, SCOPES, Access, Token, new_token
from expunge.serve.app import Gateway, build
from expunge.serve.backends import Backend
from expunge.serve.dialogue import Dialogue
from expunge.serve.holding import Holding
from expunge.serve.live import Live
from expunge.serve.options import (
    UPSTREAM_TOKEN,
    VARIABLES,
    Options,
    callers_of,
    check,
    params_of,
    unsafe,
)
from expunge.serve.store import Store
from expunge.serve.upstream import Upstream

if TYPE_CHECKING:
    import uvicorn

    from expunge.serve.local import Local

HEADER_SECONDS = 10.0
"""Within so many seconds a client must have sent its headers."""

DAY = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A gateway that is ready to listen.

    Attributes:
        gateway: The gateway.
        shown: Scope -> a token that was made just now; shown once and never again.
    """

    gateway: Gateway
    shown: Mapping[str, str]


@contextmanager
def opened(options: Options) -> Iterator[Opened]:
    """Open store, model and guards.

    Raises:
        ExpungeError: For anything wrong with the options, all of it at once and before any
            weights load.
    """
    raise_all(check(options))
    params = {id: guards.params(id, told) for id, told in params_of(options).items()}
    decider = read_decider(options.decider, environ=options.environ) if options.decider else None
    every, must = _roles(params, decider)
    chats: Chats = read_chats(options.chats, known=every, environ=options.environ)
    if options.upstream is not None:
        chats = cast(must, chats)
    retain = read_rows(options.retain, "retain") if options.retain is not None else []
    with ExitStack() as held:
        store = Store(options.store, environ=options.environ)
        held.callback(store.close)
        tokens, shown = _tokens(options, store)
        backend, local = _backend(options)
        bare = local.bare if local else None
        means = Means(
            secret=store.secret,
            seed=options.seed,
            retain=retain,
            chats=cast(must, chats, bare),
            decider=decider,
            subject=bare,
        )
        working = [Live(id, params[id], means) for id in params]
        pipeline = Pipeline(working, offers=backend.offers)
        dialogue = Dialogue(
            pipeline,
            backend,
            unavailable=options.unavailable,
            logprobs=options.logprobs,
            uniform=options.uniform_latency / 1000,
        )
        holding = Holding(store, working)
        if local:
            local.attach(pipeline.guards)
        access = Access(tokens, rate=options.rate)
        settings = {
            "uniform_latency": float(options.uniform_latency),
            "logprobs": options.logprobs,
            "on_error": "503" if options.unavailable else "refusal",
            "seed": options.seed,
            "retain_rows": len(retain),
            "callers": sorted(role for role, _ in callers_of(options)),
        }
        gateway = Gateway(dialogue=dialogue, holding=holding, access=access, settings=settings)
        yield Opened(gateway=gateway, shown=shown)


class Server:
    """A server that listens, and answers once it runs.

    Args:
        gateway: What answers.
        options: Where and how.

    Raises:
        ExpungeError: ``E-SERVE-006`` when the address is not to be had.
    """

    def __init__(self, gateway: Gateway, options: Options) -> None:
        self._socket = _listening(options.host, options.port)
        self._app, self._options = build(gateway), options

    @property
    def url(self) -> str:
        """Where clients find it."""
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._options.tls_cert else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def run(self) -> None:
        """Answer requests until a signal says to stop."""
        gc.freeze()  # what is there stays; looking through it again and again would cost answers
        with contextlib.suppress(KeyboardInterrupt):
            self.uvicorn.run(sockets=[self._socket])

    @cached_property
    def uvicorn(self) -> "uvicorn.Server":
        """The server itself."""
        import uvicorn

        options = self._options
        config = uvicorn.Config(
            self._app,
            http=_hurried(),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=10,
            limit_concurrency=2000,
            h11_max_incomplete_event_size=64 * 1024,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
        return uvicorn.Server(config)


def _hurried() -> Any:
    """Uvicorn's HTTP with a time by which headers must have come."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Hurried(H11Protocol):
        """Closes connections on which a request does not get going."""

        _deadline: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            waits = self.conn.their_state is h11.IDLE
            if not waits:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Hurried


def _roles(params: Mapping[str, Any], decider: Decider | None) -> tuple[list[str], list[str]]:
    """The roles of the guards in use: all there are, and those that somebody must play."""
    modules = {id: guards.load(id) for id in params}
    every = [role for one in modules.values() for role in one.CARD.get("roles", ())]
    must = [role for id, one in modules.items() for role in needed(one, params[id], decider)]
    return list(dict.fromkeys(every)), list(dict.fromkeys(must))


def _tokens(options: Options, store: Store) -> tuple[list[Token], dict[str, str]]:
    """The tokens that hold, and those to be shown."""
    kept = {token.scope: token for token in store.tokens()}
    now = time.time()
    found: list[Token] = []
    shown: dict[str, str] = {}
    made: list[Token] = []
    for scope in SCOPES:
        given = options.environ.get(VARIABLES[scope], "")
        old = kept.get(scope)
        if given:
            found.append(Token.of(given, scope))
        elif old and not options.new_tokens and (old.expires is None or old.expires > now):
            found.append(old)
        else:
            shown[scope] = new_token()
            days = options.token_days
            made.append(Token.of(shown[scope], scope, None if days is None else now + days * DAY))
    store.keep_tokens(made)
    found += [Token.of(text, CALLER, role=role) for role, text in callers_of(options)]
    return [*found, *made], shown


def _backend(options: Options) -> "tuple[Backend, Local | None]":
    if options.upstream is not None:
        token = options.environ.get(UPSTREAM_TOKEN, "")
        name = options.upstream_model or ""
        return Upstream(options.upstream, token=token, model=name), None
    from expunge.api import load
    from expunge.serve.local import Local

    folder = str(options.model)
    local = Local(load(folder), Path(folder).name or folder)
    return local, local


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(2048)
    except (OSError, OverflowError) as error:
        found.close()
        raise unsafe(
            f"{host}:{port} cannot be listened at: {getattr(error, 'strerror', error)}.",
            "an address of this machine and a port that is free.",
            "Name another --port or --host.",
        ) from error
    return found
