"""An audit of rows that give only a prompt and a completion, on the shipped models."""

import pytest

import expunge
from expunge.lab import testbed
from expunge.requests.rows import Row


def bare(role: str) -> list[Row]:
    """The rows of a role with prompt and completion alone."""
    return [
        Row(id=row.id, role=row.role, prompt=row.prompt, completion=row.completion)
        for row in testbed.rows(role)
    ]


@pytest.mark.parametrize("holdout", [True, False], ids=["holdout", "placebo"])
def test_attacks_can_decide_on_rows_that_give_no_answer(holdout):
    roles = {role: bare(role) for role in testbed.ROLES}
    done = expunge.audit(
        testbed.folder("reference"),
        original=testbed.folder("original"),
        only=["direct", "prob", "prefix"],
        **(roles if holdout else {**roles, "holdout": []}),
    )
    attacks = done.data["attacks"]
    assert {attacks[id]["outcome"] for id in ("direct", "prefix")} == {"pass"}
    assert attacks["prob"]["outcome"] in {"pass", "inconclusive"}
    assert attacks["prob"]["upper"] < 0.12
    assert attacks["direct"]["leak"]["original"] > 0.95
    assert attacks["direct"]["leak"]["control"] < 0.05
    assert attacks["prob"]["leak"]["original"] > 0.8
    assert "which gave none" in " ".join(done.data["limits"])
    assert done.data["request"]["rows"] == 80


def test_what_the_original_knows_is_not_forgotten_on_bare_rows():
    roles = {role: bare(role) for role in testbed.ROLES}
    original = testbed.folder("original")
    done = expunge.audit(original, original=original, only=["direct"], **roles)
    assert done.verdict == "not-forgotten"
