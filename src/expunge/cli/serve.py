"""``expunge serve``: one door in front of any model, with guards behind it."""

import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from expunge.cli.options import Chats, DeciderPlace, RetainRows, Seed, Settings, names, settings
from expunge.cli.output import Answer, command

Model = Annotated[
    str | None,
    Option("--model", metavar="DIR", help="Model folder, hub id or change folder, served here."),
]
Upstream = Annotated[
    str | None,
    Option(
        "--upstream",
        metavar="URL",
        help="OpenAI-compatible server instead; its token: EXPUNGE_UPSTREAM_TOKEN.",
    ),
]
UpstreamModel = Annotated[
    str | None,
    Option("--upstream-model", metavar="NAME", help="Send every request to this model of it."),
]
Host = Annotated[
    str,
    Option(
        "--host",
        metavar="ADDRESS",
        help="Address to listen at; one that others reach needs tokens, and TLS or --behind-proxy.",
    ),
]
Port = Annotated[
    int, Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
]
StoreFolder = Annotated[
    Path | None,
    Option(
        "--store",
        metavar="DIR",
        help="Keeps the targets, sealed, over restarts; without it they are kept in memory. Its "
        "key: EXPUNGE_STORE_KEY, or a file in it.",
    ),
]
Guards = Annotated[
    str,
    Option("--guards", metavar="A,B", help="Ids of the guards; 'expunge guards' lists them."),
]
Latency = Annotated[
    float,
    Option(
        "--uniform-latency",
        metavar="MS",
        min=0,
        max=600_000,
        help="Answers leave at multiples of so many milliseconds; choose it above the slowest one.",
    ),
]
Rate = Annotated[
    float,
    Option("--rate", metavar="N", min=0, help="Requests a second with one token; 0 for any."),
]
TokenDays = Annotated[
    float | None,
    Option(
        "--token-days", metavar="N", min=0, help="Days that tokens made here hold; else for ever."
    ),
]
NewTokens = Annotated[
    bool, Option("--new-tokens", help="Make tokens anew in the place of those of the store.")
]
Unavailable = Annotated[
    bool, Option("--fail-503", help="Answer 503 where a guard breaks, instead of a refusal.")
]
Logprobs = Annotated[
    bool,
    Option(
        "--logprobs",
        help="Pass log-probabilities of untouched answers on; tells which ones are touched.",
    ),
]
TlsCert = Annotated[
    Path | None, Option("--tls-cert", metavar="FILE", help="Certificate chain (PEM).")
]
TlsKey = Annotated[Path | None, Option("--tls-key", metavar="FILE", help="Its private key (PEM).")]
BehindProxy = Annotated[
    bool, Option("--behind-proxy", help="A proxy in front of this speaks TLS with the clients.")
]


@command
def serve(
    *,
    model: Model = None,
    upstream: Upstream = None,
    upstream_model: UpstreamModel = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    store: StoreFolder = None,
    guards: Guards = "lexical",
    retain: RetainRows = None,
    chat: Chats = None,
    decider: DeciderPlace = None,
    set: Settings = None,
    uniform_latency: Latency = 0.0,
    rate: Rate = 1000.0,
    token_days: TokenDays = None,
    new_tokens: NewTokens = False,
    fail_503: Unavailable = False,
    logprobs: Logprobs = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: BehindProxy = False,
    seed: Seed = 0,
) -> Answer:
    """Serve a model behind guards: OpenAI's routes for callers, targets for the admin.

    Tokens come from EXPUNGE_TOKEN and EXPUNGE_ADMIN_TOKEN, or are made and shown once.
    """
    from expunge.cli.facts import facts
    from expunge.serve.options import Options
    from expunge.serve.server import Server, opened

    options = Options(
        model=model,
        upstream=upstream,
        upstream_model=upstream_model,
        host=host,
        port=port,
        store=store,
        guards=names(guards),
        retain=retain,
        chats=chat or (),
        decider=decider,
        settings=settings(set),
        uniform_latency=uniform_latency,
        rate=rate,
        token_days=token_days,
        new_tokens=new_tokens,
        unavailable=fail_503,
        logprobs=logprobs,
        tls_cert=tls_cert,
        tls_key=tls_key,
        behind_proxy=behind_proxy,
        seed=seed,
    )
    with opened(options) as ready:
        server = Server(ready.gateway, options)
        done: dict[str, Any] = {"url": server.url, "targets": ready.gateway.holding.store.count}
        for scope, token in ready.shown.items():
            print(f"The {scope}'s token, shown this once: {token}", file=sys.stderr)
        print(f"Serving at {server.url}; Ctrl-C stops.", file=sys.stderr, flush=True)
        if store is None:
            print("Without --store the targets are gone when it stops.", file=sys.stderr)
        server.run()
        done["targets"] = ready.gateway.holding.store.count
    return Answer(value=done, show=lambda: facts(done))
