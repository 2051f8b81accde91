"""Rows without an answer in an audit: told for all roles alike, or for none."""

from dataclasses import replace
from typing import Any

import pytest
from scripted_audit import FORGET, HOLDOUT, KEPT, NEIGHBOUR, RETAIN, FakeAttacks, model, run

from expunge.audit import run as module
from expunge.audit.evidence import Setting
from expunge.audit.telling import comparable, tell
from expunge.requests.rows import Row


def bare(rows: list[Row]) -> list[Row]:
    """Prompt and completion alone, as sentences too long to be answers themselves."""
    return [
        replace(
            row,
            answer=None,
            names=(),
            paraphrases=(),
            completion=f"{row.reply[:-1]}, as everybody knew.",
        )
        for row in rows
    ]


def roles(**given: list[Row]) -> dict[str, list[Row]]:
    return {"forget": [], "retain": [], "neighbour": [], "holdout": [], **given}


def free(rows: list[Row]) -> list[Row]:
    """Rows whose completions have no wording in common."""
    return [
        replace(row, completion=" ".join(f"w{number}{place}" for place in range(12)))
        for number, row in enumerate(bare(rows))
    ]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """What the audits of a test were about."""
    seen: list[Setting] = []
    investigate = module._investigate

    def watched(setting: Setting, cache: Any) -> Any:
        seen.append(setting)
        return investigate(setting, cache)

    monkeypatch.setattr(module, "_investigate", watched)
    return seen


def test_an_audit_of_bare_rows_attacks_the_answers_that_were_told(
    settings: list[Setting], monkeypatch: pytest.MonkeyPatch, attacks: FakeAttacks
) -> None:
    mounted: list[Row] = []
    mount = attacks._mount

    def watched(id: str, who: Any, rows: Any, *more: Any) -> Any:
        mounted.extend(rows)
        return mount(id, who, rows, *more)

    monkeypatch.setattr(attacks, "_mount", watched)
    sets = {"forget": FORGET, "retain": RETAIN, "neighbour": NEIGHBOUR, "holdout": HOLDOUT}
    done = run(model(), **{role: bare(rows) for role, rows in sets.items()}, reference=None)
    (setting,) = settings
    for role, rows in sets.items():
        used = getattr(setting, role)
        assert [row.id for row in used] == [row.id for row in rows]
        assert [row.answer for row in used] == [row.answer for row in rows]
    assert {row.id: row.answer for row in mounted} == {
        row.id: row.answer for row in FORGET + HOLDOUT
    }
    limit = "The answer was told from the wording of 80 of 80 forget rows, which gave none."
    assert limit in done.data["limits"]


def test_rows_that_give_their_answers_are_used_as_they_are(settings: list[Setting]) -> None:
    done = run(model(), holdout=HOLDOUT)
    assert settings[0].forget == tuple(FORGET)
    assert settings[0].holdout == tuple(HOLDOUT)
    assert not any("told" in limit for limit in done.data["limits"])


def test_answers_are_told_for_all_roles_or_for_none() -> None:
    few, many = bare(FORGET[:20]) + free(FORGET[20:]), bare(FORGET[:60]) + free(FORGET[60:])
    for forget, told in ((few, 0), (many, 60)):
        telling = tell(roles(forget=forget, retain=bare(RETAIN)))
        assert telling.told == told
        assert all((row.answer is not None) == bool(told) for row in telling.roles["retain"])
        assert sum(row.answer is not None for row in telling.roles["forget"]) == told


def test_the_holdout_is_told_where_the_forget_rows_gave_theirs() -> None:
    telling = tell(roles(forget=FORGET, holdout=bare(HOLDOUT)))
    assert [row.answer for row in telling.roles["holdout"]] == [row.answer for row in HOLDOUT]
    assert (telling.told, telling.left_out) == (0, 0)


def test_holdout_rows_that_are_judged_otherwise_are_left_out() -> None:
    mixed = bare(HOLDOUT[:30]) + free(HOLDOUT[30:])
    telling = tell(roles(forget=bare(FORGET), holdout=mixed))
    assert [row.id for row in telling.roles["holdout"]] == [row.id for row in HOLDOUT[:30]]
    assert telling.left_out == 60
    data = run(model(knows=KEPT), forget=bare(FORGET), holdout=mixed, reference=None).data
    assert any(limit.startswith("60 hold-out rows were left out") for limit in data["limits"])
    assert data["control"] == {"kind": "placebo", "rows": 80, "invented": 50}


@pytest.mark.parametrize(
    ("literal", "kept"),
    [(80, (60, 0)), (54, (60, 30)), (40, (30, 30)), (8, (3, 30)), (0, (0, 30))],
)
def test_the_holdout_has_as_large_a_share_judged_by_overlap(
    literal: int, kept: tuple[int, int]
) -> None:
    """Sixty of ninety hold-out rows are judged literally, ``literal`` of eighty forget rows."""
    forget = FORGET[:literal] + free(FORGET[literal:])
    control = comparable(HOLDOUT[:60] + free(HOLDOUT[60:]), forget)
    answers = [row.answer is not None for row in control]
    assert (sum(answers), len(answers) - sum(answers)) == kept
    assert len({row.id for row in control}) == len(control)


def test_the_attribute_is_told_by_all_roles_together() -> None:
    def asked(row: Row, prompt: str) -> Row:
        return replace(row, prompt=prompt.format(row.reply.split()[0]))

    first = [asked(row, "Where was {} born?") for row in bare(FORGET)]
    second = [asked(row, "Which town saw the birth of {}?") for row in bare(HOLDOUT)]
    telling = tell(roles(forget=first, holdout=second))
    groups = {row.meta["attribute"] for rows in telling.roles.values() for row in rows}
    assert len(groups) == 1
