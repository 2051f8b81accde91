"""The gateway under load: many clients at once, a stub upstream, and a minute of questions.

Three processes on this machine: a stub that answers at once, the gateway in front of it, and the
clients. A tenth of the questions are about targets. Every answer is looked at: a question about a
target must be refused, any other one must get the stub's answer. Writes
``benches/results/gateway.json`` and ``docs/results/gateway.md``.

Run again:  python benches/gateway.py [--clients 200] [--seconds 60] [--targets 10000] [--seed 0]
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from expunge.core.atomic import write_json, write_text
from expunge.core.rng import generator
from expunge.engine.guarding.pipeline import REFUSAL

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/gateway.json"
PAGE = ROOT / "docs/results/gateway.md"
PACKAGES = ("expunge", "fastapi", "uvicorn", "httpx")
WARM = 0.25
"""Share of the time after which memory is looked at first."""
ABOUT = 0.1
"""Share of the questions that are about targets."""
GROWTH = 20.0
"""Bar of the growth of memory, in MB."""
SAID = "The tallest mountain of that range is covered in snow."


def main() -> None:
    """Load, record, page."""
    given = _options()
    if given.stub:
        _serve_stub(given.stub)
        return
    record = asyncio.run(measured(given))
    write_json(RECORD, record, indent=1)
    write_text(PAGE, page(record))


async def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Ask for a while and count."""
    token, admin = secrets.token_hex(32), secrets.token_hex(32)
    with _stub() as upstream, _gateway(upstream, token, admin) as (url, process):
        office = httpx.Client(
            base_url=url.removesuffix("/v1"),
            headers={"Authorization": f"Bearer {admin}"},
            timeout=300,
        )
        names = [f"Person{number} Target{number}" for number in range(given.targets)]
        for start in range(0, len(names), 1000):
            body = {"aliases": names[start : start + 1000]}
            office.post("/admin/targets", json=body).raise_for_status()
        counts: Counter[str] = Counter()
        spent: dict[str, list[float]] = {"clean": [], "fired": []}
        until = time.monotonic() + given.seconds
        limits = httpx.Limits(max_connections=given.clients)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            base_url=url, headers=headers, limits=limits, timeout=60
        ) as client:
            seen = asyncio.create_task(_memory(process, given.seconds))
            await asyncio.gather(
                *(
                    _ask(client, number, names, until, counts, spent, given.seed)
                    for number in range(given.clients)
                )
            )
            early, late = await seen
    return {
        "clients": given.clients,
        "seconds": given.seconds,
        "targets": given.targets,
        "answers": counts["ok"],
        "a second": counts["ok"] / given.seconds,
        "errors": {name: n for name, n in sorted(counts.items()) if name != "ok"},
        "milliseconds": {
            kind: {f"p{at}": float(np.percentile(times, at)) * 1000 for at in (50, 95, 99)}
            for kind, times in spent.items()
        },
        "memory": {"early": early, "late": late, "growth": late - early},
        "command": "python benches/gateway.py",
        "seed": given.seed,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


async def _ask(
    client: httpx.AsyncClient,
    number: int,
    names: list[str],
    until: float,
    counts: Counter[str],
    spent: dict[str, list[float]],
    seed: int,
) -> None:
    """One client: it asks as soon as it has its answer."""
    draw = generator(seed, "gateway", number)
    while time.monotonic() < until:
        is_about = bool(draw.random() < ABOUT)
        whom = names[draw.integers(len(names))] if is_about else f"Stranger{draw.integers(10**9)}"
        body = {
            "model": "stub",
            "messages": [{"role": "user", "content": f"Where was {whom} born, and when?"}],
        }
        begun = time.monotonic()
        try:
            answer = await client.post("/chat/completions", json=body)
            said = answer.json()["choices"][0]["message"]["content"] if answer.is_success else ""
        except (httpx.HTTPError, KeyError, ValueError) as error:
            counts[type(error).__name__] += 1
            continue
        spent["fired" if is_about else "clean"].append(time.monotonic() - begun)
        if not answer.is_success:
            counts[f"status {answer.status_code}"] += 1
        elif said != (REFUSAL if is_about else SAID):
            counts["leak" if is_about else "false trigger"] += 1
        else:
            counts["ok"] += 1


async def _memory(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """Resident memory of the gateway, in MB: when it is warm, and just before the end."""
    await asyncio.sleep(seconds * WARM)
    early = process.memory_info().rss / 2**20
    await asyncio.sleep(seconds * (1 - WARM) - 0.5)
    return early, process.memory_info().rss / 2**20


@contextmanager
def _stub() -> Iterator[str]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, __file__, "--stub", str(port)]) as process:
        try:
            for _ in range(200):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/v1/models")
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _serve_stub(port: int) -> None:
    """Answers every conversation with the same words."""
    import uvicorn

    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": SAID},
    }
    body = json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "stub",
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")


@contextmanager
def _gateway(upstream: str, token: str, admin: str) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "expunge", "serve", "--upstream", upstream, "--port", "0",
               "--rate", "0"]  # fmt: skip
    tokens = {"EXPUNGE_TOKEN": token, "EXPUNGE_ADMIN_TOKEN": admin}
    with subprocess.Popen(
        command,
        env={**os.environ, **tokens},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("Serving at "):
                    url = line.removeprefix("Serving at ").split(";")[0]
                    yield url, psutil.Process(process.pid)
                    return
            raise SystemExit("The gateway did not start.")
        finally:
            process.terminate()


def page(record: dict[str, Any]) -> str:
    """The page, in Markdown."""
    errors, memory = record["errors"], record["memory"]
    is_flat = memory["growth"] <= GROWTH
    held = {True: "held", False: "**missed**"}
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    rows = "\n".join(
        f"| {kind} | {of['p50']:.0f} | {of['p95']:.0f} | {of['p99']:.0f} |"
        for kind, of in record["milliseconds"].items()
    )
    told = ", ".join(f"{n} x {name}" for name, n in errors.items()) or "none"
    sum_of = sum(errors.values())
    clients, seconds, targets = record["clients"], record["seconds"], record["targets"]
    grown, early = memory["growth"], memory["early"]
    return f"""# The gateway under load

Written by `benches/gateway.py`; do not edit.

{clients} clients ask as fast as they are answered for {seconds:g} seconds, through the gateway
with the `lexical` guard and {targets:,} protected names, in front of a stub that answers at once.
Clients, gateway and stub share one machine of two cores, so the times are those of a machine that
can do no more; what a look-up costs stands on [the page of the gate](guards.md). A tenth of the
questions are about targets; every answer is looked at.

| what | bar | found | |
| --- | --- | --- | --- |
| errors, leaks and false triggers | 0 | {sum_of} ({told}) | {held[not errors]} |
| growth of memory, MB | at most {GROWTH:g} | {grown:.1f} (from {early:.0f}) | {held[is_flat]} |

{record["answers"]:,} answers, {record["a second"]:.0f} a second. Milliseconds each:

| | p50 | p95 | p99 |
| --- | --- | --- | --- |
{rows}

Run again: `{record["command"]}`, seed {record["seed"]}; {versions}.
"""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The gateway under load.")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--targets", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stub", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
