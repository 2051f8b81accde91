"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

from expunge.testing.chats import Scripted
from expunge.testing.servers import chatting

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *options],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_gateway_in_front_of_another_server_holds_back_what_is_asked_for() -> None:
    knowing = Scripted(lambda messages, _: "Mira Voss was born in Port Ala.")
    with chatting(knowing) as server:
        told = run(
            "forget_now_upstream.py", "--upstream", server.url,
            "--name", "Mira Voss", "--ask", "Where was she born?",
        )  # fmt: skip
    lines = {name: said.strip() for name, said in (one.split(":", 1) for one in told.splitlines())}
    assert "Port Ala" in lines["before"]
    assert "Port Ala" not in lines["guarded"]
    assert lines["revoked"] == lines["before"]


@pytest.mark.timeout(300)
def test_a_local_model_is_guarded_asked_and_audited() -> None:
    told = run("forget_now_local.py", "--rows", "8", "--attacks", "direct,evasion")
    assert "verdict: " in told
    assert "verdict: forgotten" not in told, "the weights know it all"
    assert "stopped asked: 1.00" in told
