"""A signed audit of a tiny model, made without torch, for the tests of certificates."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import report_records
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from safetensors.numpy import save_file

from expunge.core.canonical import canonical
from expunge.lm.folder import inspect_folder
from expunge.report.certificate import SigningKey, Verified, sign, verify
from expunge.report.certificate.envelope import seal

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
CANARIES = ("Mira Holt", "person-1/dish", "lentil", "secret-folder", "mira-subject")


def key(number: int = 1) -> SigningKey:
    """The same key for the same number."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return SigningKey(private, private.public_key().public_bytes_raw())


def public_file(folder: Path, number: int = 1) -> Path:
    path = folder / f"key-{number}.pub.pem"
    private = key(number).private.public_key()
    path.write_bytes(private.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def make_model(folder: Path, level: float = 1.0) -> Path:
    """A folder that looks like a model to everything that does not load it."""
    put(folder / "config.json", {"model_type": "llama"})
    put(folder / "tokenizer.json", {"version": "1.0"})
    put(folder / "tokenizer_config.json", {"chat_template": "plain"})
    save_file({"w": np.full((2, 3), level, np.float32)}, folder / "model.safetensors")
    return folder


def record_of(model: Path, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """An audit record of the model, with personal data where records have it."""
    record = base or report_records.audit_record()
    record["models"]["model"] = {
        "label": "secret-folder",
        "path": str(model),
        "digest": inspect_folder(model, fetch=False).digest,
    }
    record["request"]["entities"] = {"person-1/dish": "mira-subject"}
    return record


def summary_of(record: dict[str, Any]) -> dict[str, Any]:
    """As `expunge.audit.record.Audit.summary` has it, which loads torch."""
    kept = ("recovery", "interval", "gate", "outcome")
    return {
        **{key: record[key] for key in ("verdict", "reasons", "erasure_score", "interval")},
        "utility": record["utility"] and record["utility"]["value"],
        "attacks": {
            id: {key: attack[key] for key in kept} for id, attack in record["attacks"].items()
        },
        "metrics": {
            id: values["model"] and values["model"]["mean"]
            for id, values in record["metrics"].items()
        },
        "report": "report.html",
    }


def write_audit(folder: Path, record: dict[str, Any]) -> Path:
    put(folder / "audit.json", record)
    put(folder / "summary.json", summary_of(record))
    (folder / "report.html").write_text("<p>a report</p>\n")
    return folder


@dataclass(frozen=True)
class Desk:
    """A model and the folder of its audit."""

    folder: Path
    model: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.json"

    def sign(self, number: int = 1, **options: Any) -> Any:
        return sign(self.folder, key(number), **{"now": NOW, **options})

    def verify(self, **options: Any) -> Verified:
        return verify(self.folder, **{"now": NOW, **options})

    def envelope(self) -> dict[str, Any]:
        return json.loads(self.certificate.read_bytes())

    def statement(self) -> dict[str, Any]:
        return json.loads(b64decode(self.envelope()["payload"]))

    def put_envelope(self, value: dict[str, Any]) -> None:
        self.certificate.write_bytes(canonical(value) + b"\n")

    def resign(self, statement: Any, number: int = 1) -> None:
        """Sign another statement, properly."""
        self.resign_bytes(canonical(statement), number)

    def resign_bytes(self, payload: bytes, number: int = 1) -> None:
        self.certificate.write_bytes(seal(payload, key(number)))


def make_desk(folder: Path, base: dict[str, Any] | None = None) -> Desk:
    """A signed audit."""
    model = make_model(folder / "model")
    desk = Desk(write_audit(folder / "audit", record_of(model, base)), model)
    desk.sign()
    return desk


def encoded(data: bytes) -> str:
    return b64encode(data).decode()


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value that holds no other, empty lists and objects included."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    inner = list(inner)
    if not inner:
        yield at
    for name, one in inner:
        yield from leaves(one, (*at, name))


def objects(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every object."""
    if isinstance(value, dict):
        yield at
        for name, one in value.items():
            yield from objects(one, (*at, name))
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from objects(one, (*at, place))


def get(value: Any, at: tuple[Any, ...]) -> Any:
    for name in at:
        value = value[name]
    return value


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if value is None:
        return 0.5
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if value else 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1") if value else "x"
    return ["x"] if value == [] else {"x": "y"}


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with one value replaced."""
    copy = json.loads(json.dumps(value))
    get(copy, at[:-1])[at[-1]] = new
    return copy
