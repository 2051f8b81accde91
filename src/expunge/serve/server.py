"""From the options of ``expunge serve`` to a server that listens."""

import contextlib
import gc
import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.extras import require
from expunge.core.registry import guards
from expunge.data.jsonl import read_rows
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline, problems_of
from expunge.engine.guarding.roles import Chats, cast, needed
from expunge.engine.guarding.talking import read_chats
from expunge.serve.access import ADMIN, CALLER, RATE, SCOPES, Access, Token, new_token
from expunge.serve.app import Gateway, build
from expunge.serve.backends import Backend
from expunge.serve.dialogue import Dialogue
from expunge.serve.holding import Holding
from expunge.serve.live import Live
from expunge.serve.store import Store
from expunge.serve.upstream import Upstream

if TYPE_CHECKING:
    import uvicorn

    from expunge.serve.local import Local

VARIABLES = {CALLER: "EXPUNGE_TOKEN", ADMIN: "EXPUNGE_ADMIN_TOKEN"}
UPSTREAM_TOKEN = "EXPUNGE_UPSTREAM_TOKEN"  # noqa: S105
STRONG = 32
"""Shortest token, in characters, that may stand at an address others can reach."""

HEADER_SECONDS = 10.0
"""Within so many seconds a client must have sent its headers."""

DAY = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What ``expunge serve`` is given.

    Attributes:
        model: A folder or hub id, for a model of this process.
        upstream: Address of a server with OpenAI's routes instead.
        upstream_model: The model that every request is sent to.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        store: Folder of the targets; None keeps them in memory.
        guards: Ids of the guards.
        retain: Rows whose questions must be let through; a file.
        chats: Who plays which role, as `read_chats` takes it.
        settings: ``guard.name`` -> value, of the guards' parameters.
        uniform_latency: Milliseconds; answers leave at multiples of it.
        rate: Requests a second that each token may make; 0 for any number.
        token_days: Days after which tokens made here are void; None for never.
        new_tokens: Whether to make tokens anew.
        unavailable: Whether a guard that breaks is answered by 503 instead of a refusal.
        logprobs: Whether log-probabilities of untouched answers are passed on.
        tls_cert: Certificate, a file.
        tls_key: Its key, a file.
        behind_proxy: Whether something in front of the gateway speaks TLS for it.
        seed: All randomness of the guards derives from it.
        environ: Where tokens and keys are looked up.
    """

    model: str | None = None
    upstream: str | None = None
    upstream_model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    store: Path | None = None
    guards: Sequence[str] = ("lexical",)
    retain: Path | None = None
    chats: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    uniform_latency: float = 0.0
    rate: float = RATE
    token_days: float | None = None
    new_tokens: bool = False
    unavailable: bool = False
    logprobs: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    seed: int = 0
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)


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
    params = {id: guards.params(id, told) for id, told in _params(options).items()}
    every, must = _roles(params)
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
        }
        gateway = Gateway(dialogue=dialogue, holding=holding, access=access, settings=settings)
        yield Opened(gateway=gateway, shown=shown)


def check(options: Options) -> list[ExpungeError]:
    """What is wrong with the options."""
    require("fastapi", extra="serve")
    require("uvicorn", extra="serve")
    problems: list[ExpungeError] = []
    if (options.model is None) == (options.upstream is None):
        problems.append(
            ExpungeError(
                "E-USE-007" if options.model is None else "E-USE-006",
                "Neither --model nor --upstream." if options.model is None
                else "Both --model and --upstream.",
                "one model to stand in front of.",
                "Give --model DIR, or --upstream URL.",
            )
        )  # fmt: skip
    if options.upstream_model and options.upstream is None:
        problems.append(
            ExpungeError(
                "E-USE-006", "--upstream-model without --upstream.", "both, or neither.",
                "Leave it out: a local model has the name of its folder.",
            )
        )  # fmt: skip
    if options.model is not None:
        from expunge.lm.folder import inspect_folder

        problems += inspect_folder(options.model).problems
    problems += _guard_problems(options)
    problems += list(_closed_by_default(options))
    return problems


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


def _params(options: Options) -> dict[str, dict[str, str]]:
    """Guard -> what ``--set`` says of it; a bare name is the one guard's.

    Raises:
        ExpungeError: ``E-USE-002`` for a guard that is not in use.
    """
    ids = list(dict.fromkeys(guards.card(name).id for name in options.guards))
    told: dict[str, dict[str, str]] = {id: {} for id in ids}
    for name, value in options.settings.items():
        id, dot, own = name.rpartition(".")
        id = id.replace("_", "-") if dot else ids[0] if len(ids) == 1 else ""
        if id not in told:
            raise ExpungeError(
                "E-USE-002", f"--set {name}: no guard in use is meant.",
                f"guard.name=value, with one of {', '.join(ids)}.",
                f"Write --set {ids[0]}.{own}={value}.",
            )  # fmt: skip
        told[id][own] = value
    return told


def _roles(params: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The roles of the guards in use: all there are, and those that somebody must play."""
    modules = {id: guards.load(id) for id in params}
    every = [role for one in modules.values() for role in one.CARD.get("roles", ())]
    must = [role for id, one in modules.items() for role in needed(one, params[id])]
    return list(dict.fromkeys(every)), list(dict.fromkeys(must))


def _guard_problems(options: Options) -> list[ExpungeError]:
    if not options.guards:
        return [
            ExpungeError(
                "E-USE-007", "No guard.", "at least one: a gateway without guards holds nothing.",
                "Leave --guards out, or name some.",
            )
        ]  # fmt: skip
    try:
        cards = [guards.load(name).CARD for name in options.guards]
        for id, told in _params(options).items():
            guards.params(id, told)
    except ExpungeError as error:
        return [error]
    return problems_of(cards, TEXT if options.upstream is not None else TEXT | INSIDE)


def _closed_by_default(options: Options) -> Iterator[ExpungeError]:
    """Why a server must not start like this."""
    given = {scope: options.environ.get(name, "") for scope, name in VARIABLES.items()}
    if given[CALLER] and given[CALLER] == given[ADMIN]:
        yield _unsafe(
            "The caller's token is the admin's.", "two tokens.",
            f"Give {VARIABLES[CALLER]} and {VARIABLES[ADMIN]} different values.",
        )  # fmt: skip
    if (options.tls_cert is None) != (options.tls_key is None):
        yield _unsafe("Half of what TLS needs.", "--tls-cert and --tls-key.", "Give both.")
    elif options.tls_cert is not None and not _is_tls(options):
        yield _unsafe(
            "A certificate and a key that cannot be used.",
            "a certificate chain and its private key without a passphrase, both PEM.",
            "Check both files.",
        )
    if _is_here(options.host):
        return
    kept = options.store is not None and not options.new_tokens
    weak = [VARIABLES[scope] for scope, text in given.items() if 0 < len(text) < STRONG]
    missing = [VARIABLES[scope] for scope, text in given.items() if not text and not kept]
    if missing or weak:
        yield _unsafe(
            f"An address that others reach, and {' and '.join(missing or weak)} "
            f"{'not set' if missing else 'too short'}.",
            f"tokens of at least {STRONG} characters, or a --store that keeps such.",
            f"Set {' and '.join(VARIABLES.values())}; openssl rand -hex 32 makes one.",
        )
    if options.tls_cert is None and not options.behind_proxy:
        yield _unsafe(
            f"The address {options.host} without TLS.",
            "a loopback address, TLS, or a proxy in front that speaks it.",
            "Give --tls-cert and --tls-key, or say --behind-proxy.",
        )


def _is_tls(options: Options) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(str(options.tls_cert), str(options.tls_key), password="")
    except (OSError, ValueError):
        return False
    return True


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
        raise _unsafe(
            f"{host}:{port} cannot be listened at: {getattr(error, 'strerror', error)}.",
            "an address of this machine and a port that is free.",
            "Name another --port or --host.",
        ) from error
    return found


def _unsafe(found: str, expected: str, next: str) -> ExpungeError:
    return ExpungeError("E-SERVE-006", found, expected, next)
