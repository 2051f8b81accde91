"""The format of ``audit.json``, as a model that both checks it and gives its JSON schema."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.errors import ExpungeError
from expunge.core.results import Outcome, Verdict

Share = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[list[Share], Field(min_length=2, max_length=2)]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Model(_Part):
    label: str
    path: str | None
    digest: str


class _Models(_Part):
    model: _Model
    original: _Model | None
    reference: _Model | None


class _Request(_Part):
    rows: int
    subjects: int
    known: int
    unit: Literal["subject", "fact"]
    entities: dict[str, str | None]


class _Control(_Part):
    kind: Literal["reference", "placebo"]
    rows: int
    invented: int


class _Leak(_Part):
    original: Share | None
    model: Share | None
    control: Share | None


class _Parts(_Part):
    original: dict[str, float]
    model: dict[str, float]
    control: dict[str, float]


class _Curve(_Part):
    steps: list[int]
    original: list[Share]
    model: list[Share]
    control: list[Share]


class _PerRow(_Part):
    original: dict[str, Share]
    model: dict[str, Share]
    control: dict[str, Share]


class _Layers(_Part):
    original: dict[str, Share]
    model: dict[str, Share]
    control: dict[str, Share]


class _Beside(_Part):
    original: dict[str, dict[str, Share]]
    model: dict[str, dict[str, Share]]
    control: dict[str, dict[str, Share]]


class _Rows(_Part):
    rows: int
    digest: str


class _Made(_Part):
    kind: str
    method: str
    params: dict[str, Any]
    wrappers: list[Any]
    seed: int


class _Planned(_Part):
    id: str
    version: int
    params: dict[str, Any]
    runs: int


class _Attack(_Part):
    family: str
    level: Literal["B", "L", "W", "P", "D"]
    statistic: Literal["recovery", "difference", "cost"]
    decides: bool
    with_runtime: bool
    threshold: float
    leak: _Leak
    recovery: Share | None
    interval: Interval | None
    upper: Share | None
    gate: float
    outcome: Outcome
    p: Share | None
    n: int
    runs: int
    would_pass_at: Share | None
    would_fail_at: Share | None
    rows_to_decide: int | None
    note: str
    parts: _Parts
    curve: _Curve | None
    layers: _Layers | None
    per_row: _PerRow
    beside: _Beside


class _Value(_Part):
    n: int
    mean: float | None
    interval: Bounds | None
    units: int | None
    seed: int | None
    against: str
    parts: dict[str, float]
    intervals: dict[str, Bounds]
    note: str
    per_row: dict[str, float]
    beside: dict[str, dict[str, float]]


class _Metric(_Part):
    model: _Value | None
    original: _Value | None
    reference: _Value | None


class _Pair(_Part):
    model: Share
    original: Share


class _Stratum(_Pair):
    interval: Interval
    rows: int


class _Utility(_Part):
    value: Share
    interval: Interval
    retain: _Pair | None
    neighbour: _Pair | None
    general: _Pair | None
    strata: dict[str, _Stratum] = {}
    gibberish: _Pair
    measure: Literal["recall", "token accuracy"]
    rows: int


class _Example(_Part):
    id: str
    prompt: str
    answer: str
    attack: str
    leak: Share
    original: str
    model: str
    reference: str | None


class _Release(_Part):
    require: Verdict | None
    min_utility: Share
    met: bool
    why: list[str]


class AuditRecord(_Part):
    """The value of ``audit.json``."""

    format: Literal["unlearning-audit/1"]
    verdict: Verdict
    reasons: list[str]
    profile: str
    seed: int
    versions: dict[str, str]
    seconds: float
    models: _Models
    request: _Request
    made: _Made | None
    data: dict[str, _Rows]
    plan: list[_Planned]
    control: _Control | None
    attacks: dict[str, _Attack]
    families: dict[str, Outcome]
    metrics: dict[str, _Metric]
    utility: _Utility | None
    erasure_score: Share | None
    interval: Interval | None
    breadth: Share | None
    examples: list[_Example]
    limits: list[str]
    not_run: list[str]
    open_families: list[str]
    release: _Release | None


def schema() -> dict[str, Any]:
    """The JSON schema of ``audit.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **AuditRecord.model_json_schema(),
    }


def check_record(data: Mapping[str, Any]) -> None:
    """Check a value of ``audit.json``, one of our own or one that was read.

    Raises:
        ExpungeError: ``E-DATA-003`` with the first field that does not fit.
    """
    try:
        AuditRecord.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole value"
        raise ExpungeError(
            "E-DATA-003",
            f"audit.json does not fit its format at {place}: {first['msg']}.",
            "a record of the format unlearning-audit/1.",
            "Run the audit again with this version of expunge.",
        ) from error
