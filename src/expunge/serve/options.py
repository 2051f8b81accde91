"""What ``expunge serve`` is given, and what of it a server must not start with."""

import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from expunge.core.errors import ExpungeError
from expunge.core.extras import require
from expunge.core.registry import guards
from expunge.engine.guarding.pipeline import INSIDE, TEXT, problems_of
from expunge.serve.access import ADMIN, CALLER, RATE

VARIABLES = {CALLER: "EXPUNGE_TOKEN", ADMIN: "EXPUNGE_ADMIN_TOKEN"}
CALLERS = "EXPUNGE_CALLERS"
"""Further callers' tokens by role, for guards that tell callers apart: ``role=token``, with commas
between."""

UPSTREAM_TOKEN = "EXPUNGE_UPSTREAM_TOKEN"  # noqa: S105
STRONG = 32
"""Shortest token, in characters, that may stand at an address others can reach."""


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
        decider: Who answers typed questions, as `read_decider` takes it.
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
    decider: str | None = None
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


def callers_of(options: Options) -> list[tuple[str, str]]:
    """Roles of callers with their tokens, as `CALLERS` has them."""
    pairs = (one.partition("=") for one in options.environ.get(CALLERS, "").split(","))
    return [(role.strip(), text.strip()) for role, _, text in pairs if role.strip() or text.strip()]


def params_of(options: Options) -> dict[str, dict[str, str]]:
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
        for id, told in params_of(options).items():
            guards.params(id, told)
    except ExpungeError as error:
        return [error]
    return problems_of(cards, TEXT if options.upstream is not None else TEXT | INSIDE)


def _closed_by_default(options: Options) -> Iterator[ExpungeError]:
    """Why a server must not start like this."""
    given = {scope: options.environ.get(name, "") for scope, name in VARIABLES.items()}
    callers = callers_of(options)
    if not all(role and text for role, text in callers):
        yield unsafe(
            f"{CALLERS} with a role or a token missing.", "role=token, with commas between.",
            f"Correct {CALLERS}.",
        )  # fmt: skip
    told = [text for text in (*given.values(), *(text for _, text in callers)) if text]
    if len(set(told)) < len(told):
        yield unsafe(
            "One token in two places.", "a token of its own for each.",
            f"Give {', '.join((*VARIABLES.values(), CALLERS))} different values.",
        )  # fmt: skip
    if (options.tls_cert is None) != (options.tls_key is None):
        yield unsafe("Half of what TLS needs.", "--tls-cert and --tls-key.", "Give both.")
    elif options.tls_cert is not None and not _is_tls(options):
        yield unsafe(
            "A certificate and a key that cannot be used.",
            "a certificate chain and its private key without a passphrase, both PEM.",
            "Check both files.",
        )
    if _is_here(options.host):
        return
    kept = options.store is not None and not options.new_tokens
    weak = [VARIABLES[scope] for scope, text in given.items() if 0 < len(text) < STRONG]
    weak += [CALLERS] if any(len(text) < STRONG for _, text in callers) else []
    missing = [VARIABLES[scope] for scope, text in given.items() if not text and not kept]
    if missing or weak:
        yield unsafe(
            f"An address that others reach, and {' and '.join(missing or weak)} "
            f"{'not set' if missing else 'too short'}.",
            f"tokens of at least {STRONG} characters, or a --store that keeps such.",
            f"Set {' and '.join(VARIABLES.values())}; openssl rand -hex 32 makes one.",
        )
    if options.tls_cert is None and not options.behind_proxy:
        yield unsafe(
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


def unsafe(found: str, expected: str, next: str) -> ExpungeError:
    """Something a server must not start with."""
    return ExpungeError("E-SERVE-006", found, expected, next)
