"""Forget now, in front of somebody else's server: the gateway, one target, and the openai client.

    OPENAI_BASE=http://127.0.0.1:8000/v1
    python examples/forget_now_upstream.py --upstream $OPENAI_BASE --name "Mira Voss" \
        --ask "Where was Mira Voss born?"

Starts a gateway on a free port of this machine, asks once through it, adds the target, asks again,
takes the target out, and asks a last time. Needs the extra `serve`, and the package `openai`.
"""

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai


@contextmanager
def gateway(upstream: str, token: str, admin: str) -> Iterator[str]:
    """A gateway in a process of its own; gives its address."""
    command = [sys.executable, "-m", "expunge", "serve", "--upstream", upstream, "--port", "0"]
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
                    yield line.removeprefix("Serving at ").split(";")[0]
                    return
            raise SystemExit("The gateway did not start.")
        finally:
            process.terminate()


def main() -> None:
    """Ask, add a target, ask, revoke it, ask."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--upstream", required=True, help="address of an OpenAI-compatible server")
    given.add_argument("--model", default="default", help="its model")
    given.add_argument("--name", required=True, help="how whoever asks to be forgotten is called")
    given.add_argument("--ask", required=True, help="a question about them")
    options = given.parse_args()

    token, admin = secrets.token_hex(32), secrets.token_hex(32)
    with gateway(options.upstream, token, admin) as url:
        client = openai.OpenAI(base_url=url, api_key=token)
        office = httpx.Client(
            base_url=url.removesuffix("/v1"), headers={"Authorization": f"Bearer {admin}"}
        )

        def answer() -> str:
            said = client.chat.completions.create(
                model=options.model, messages=[{"role": "user", "content": options.ask}]
            )
            return said.choices[0].message.content or ""

        print(f"before:  {answer()}")
        added = office.post("/admin/targets", json={"aliases": [options.name]}).raise_for_status()
        print(f"target:  {added.json()['id']}")
        print(f"guarded: {answer()}")
        office.delete(f"/admin/targets/{added.json()['id']}").raise_for_status()
        print(f"revoked: {answer()}")


if __name__ == "__main__":
    main()
