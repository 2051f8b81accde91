"""The statement inside a certificate: an in-toto statement with a predicate of our own.

The predicate takes the fields of in-toto's test results (``result``, ``configuration``, the tests
that passed, warned and failed) and adds what an audit of forgetting has to say.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.canonical import canonical
from expunge.core.errors import ExpungeError
from expunge.core.results import Outcome, Verdict
from expunge.report.certificate.envelope import (
    AGAIN,
    misspelt,
    other_format,
    read_strictly,
    unfitting,
)
from expunge.report.certificate.reading import HEX, STAMP

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "unlearning-certificate/1"
WEIGHTS = "weights"
"""Name of the subject that stands for all weights of the audited model."""
WEIGHTS_DIGEST = "weightsSha256"
"""Its kind of digest: over the tensors, however they are spread over files."""

Hex = Annotated[str, Field(pattern=f"^{HEX}$")]
Stamp = Annotated[str, Field(pattern=f"^{STAMP}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[Share], Field(min_length=2, max_length=2)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class _FileDigest(_Part):
    sha256: Hex


class _WeightsDigest(_Part):
    weightsSha256: Hex


class _Subject(_Part):
    name: Annotated[str, Field(min_length=1)]
    digest: _FileDigest | _WeightsDigest


class _Named(_Part):
    name: str
    digest: _FileDigest


class _Signer(_Part):
    keyid: Hex
    version: str


class _Utility(_Part):
    value: Share
    interval: Interval


class _Attack(_Part):
    statistic: str
    decides: bool
    with_runtime: bool
    outcome: Outcome
    recovery: Share | None
    interval: Interval | None
    gate: float


class _Control(_Part):
    kind: Literal["reference", "placebo"]
    rows: Count
    invented: Count


class _Request(_Part):
    rows: Count
    subjects: Count
    known: Count
    unit: Literal["subject", "fact"]


class _Weights(_Part):
    model: Hex
    original: Hex | None
    reference: Hex | None


class _Rows(_Part):
    rows: Count
    digest: Hex


class _Planned(_Part):
    id: str
    version: int
    params: dict[str, Any]
    runs: Count


class _Release(_Part):
    require: Verdict | None
    min_utility: Share
    met: bool


_Files = dict[Literal["audit.json", "report.html", "summary.json"], Hex]


class _Predicate(_Part):
    issued: Stamp
    expires: Stamp | None
    signer: _Signer
    files: Annotated[_Files, Field(min_length=3)]
    verdict: Verdict
    reasons: list[str]
    result: Literal["PASSED", "WARNED", "FAILED"]
    passedTests: list[str]
    warnedTests: list[str]
    failedTests: list[str]
    configuration: list[_Named]
    erasure_score: Share | None
    interval: Interval | None
    breadth: Share | None
    utility: _Utility | None
    profile: str
    seed: int | str
    attacks: dict[str, _Attack]
    families: dict[str, Outcome]
    control: _Control | None
    request: _Request
    weights: _Weights
    data: dict[Literal["forget", "retain", "neighbour", "holdout"], _Rows]
    plan: list[_Planned]
    versions: dict[str, str]
    limits: list[str]
    not_run: list[str]
    open_families: list[str]
    release: _Release | None


class _Statement(_Part):
    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[list[_Subject], Field(min_length=1)]
    predicateType: Literal["unlearning-certificate/1"]
    predicate: _Predicate


def make_statement(weights: str, files: Mapping[str, str], predicate: Mapping[str, Any]) -> bytes:
    """The bytes of a statement.

    Args:
        weights: Digest of the weights of the audited model.
        files: Name -> SHA-256 of the files of its folder; empty when it was not at hand.
        predicate: What is stated of it.

    Raises:
        ExpungeError: ``E-DATA-003`` when the predicate does not fit the format, which is when the
            audit record it was made from is no record of an audit.
    """
    subject = [{"name": WEIGHTS, "digest": {WEIGHTS_DIGEST: weights}}]
    subject += [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]
    payload = canonical(
        {
            "_type": STATEMENT,
            "subject": subject,
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )
    try:
        _Statement.model_validate_json(payload)
    except ValidationError as error:
        raise unfit_record(unfitting(error, "What would be certified").found) from error
    return payload


def read_statement(payload: bytes, keyid: str) -> dict[str, Any]:
    """The statement in a signed payload.

    Args:
        payload: The bytes that were signed.
        keyid: The key that signed them.

    Raises:
        ExpungeError: ``E-CERT-001`` when it cannot be read, ``E-CERT-002`` when a field does not
            fit, ``E-CERT-003`` when its format is another, older ones included.
    """
    value = read_strictly(payload)
    formats = {"_type": STATEMENT, "predicateType": PREDICATE}
    for name, expected in formats.items():
        if isinstance(value, dict) and value.get(name, expected) != expected:
            raise other_format(value[name], expected)
    try:
        statement = _Statement.model_validate_json(payload)
    except ValidationError as error:
        raise unfitting(error, "The statement") from error
    if canonical(value) != payload:
        raise misspelt("its statement is not spelt as canonical JSON")
    first, *others = statement.subject
    stated = statement.predicate
    if first != _Subject(name=WEIGHTS, digest=_WeightsDigest(weightsSha256=stated.weights.model)):
        raise _inconsistent("the first subject is not the audited model's weights")
    names = [one.name for one in others if isinstance(one.digest, _FileDigest)]
    if len(names) < len(others) or len(set(names)) < len(names):
        raise _inconsistent("a subject after the first is no file, or stands twice")
    if stated.signer.keyid != keyid:
        raise _inconsistent("it names another signing key than the one that signed it")
    return dict(value)


def files_of(statement: Mapping[str, Any]) -> dict[str, str]:
    """Name -> SHA-256 of the files of the model that a statement certifies."""
    return {one["name"]: one["digest"]["sha256"] for one in statement["subject"][1:]}


def unfit_record(why: str) -> ExpungeError:
    """``E-DATA-003``."""
    return ExpungeError(
        "E-DATA-003",
        f"audit.json cannot be certified: {why}",
        "the record of an audit by this version of expunge.",
        "Run the audit again.",
    )


def schema() -> dict[str, Any]:
    """The JSON schema of the statement."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_Statement.model_json_schema(),
    }


def _inconsistent(why: str) -> ExpungeError:
    return ExpungeError(
        "E-CERT-002",
        f"The statement contradicts itself: {why}.",
        "a statement as expunge sign makes it.",
        AGAIN,
    )
