"""A real audit folder is signed and verified by the real command: offline, and without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "report"))
import report_records
from certificates import make_model, record_of

from expunge.audit.record import Audit

ALONE = """
import socket, sys

def refuse(*_):
    raise AssertionError("a connection was opened")

socket.socket.connect = refuse
from expunge.cli import main

code = main(sys.argv[1:])
heavy = sorted({"torch", "transformers", "huggingface_hub"} & set(sys.modules))
if heavy:
    print("loads", *heavy, file=sys.stderr)
    code = 99
sys.exit(code)
"""


def command(*arguments: str) -> tuple[int, Any]:
    """A process of its own; exit code and the one JSON value it printed."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 99, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """A folder as `expunge audit` saves it."""
    model = make_model(tmp_path / "model")
    Audit(record_of(model, report_records.audit_record())).save(tmp_path / "audit")
    return tmp_path / "audit"


def test_sign_and_verify_work_offline_and_without_torch(audit: Path, tmp_path: Path) -> None:
    log, private = str(tmp_path / "log.jsonl"), str(tmp_path / "k.pem")
    code, signed = command("sign", str(audit), "--new-key", private, "--days", "365", "--log", log)
    assert (code, signed["verdict"]) == (0, "hidden")
    options = ("--key", signed["public_key"], "--log", log, "--head", signed["log"]["head"])
    code, found = command("verify", str(audit), *options, "--require-model")
    assert (code, found["signer"], found["model"]) == (0, "verified", "weights and files verified")

    weights = tmp_path / "model" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, refused = command("verify", str(audit), *options)
    assert (code, refused["error"]["code"]) == (3, "E-CERT-009")
    weights.write_bytes(data)

    summary = json.loads((audit / "summary.json").read_bytes())
    (audit / "summary.json").write_text(json.dumps(summary | {"verdict": "forgotten-blackbox"}))
    code, refused = command("verify", str(audit), *options)
    assert (code, refused["error"]["code"]) == (3, "E-CERT-007")
