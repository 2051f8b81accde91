"""The zoo: its people, its jobs, and what is counted of the audits."""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.lab.zoo import count, models, study
from expunge.lab.zoo.world import FACTS, PEOPLE, lessons, world

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
from audit_zoo_page import page


def record(name: str, state: str, verdict: str, **more: Any) -> dict[str, Any]:
    leaks: Mapping[str, float] = more.pop("leaks", {"direct": 0.0})
    failing: tuple[str, ...] = more.pop("failing", ())
    attacks = {
        id: {"leak": {"model": leak}, "outcome": "fail" if id in failing else "pass"}
        for id, leak in leaks.items()
    }
    given: dict[str, Any] = {
        "name": name, "kind": name, "state": state, "verdict": verdict, "strength": 1.0,
        "reasons": ["why"], "erasure_score": 0.5, "utility": 1.0, "rows": 96,
        "metrics": {"truth-ratio": 0.5}, "attacks": attacks, "cpu_seconds": {"audited": 10.0},
    }  # fmt: skip
    return given | more


def test_people_of_a_world_share_no_value_and_other_seeds_give_others() -> None:
    own, other = world(0), world(1)
    roles = (own.forget, own.retain, own.neighbour, own.holdout)
    assert [len(rows) for rows in roles] == [n * len(FACTS) for n in PEOPLE.values()]
    values = [row.value for rows in roles for row in rows]
    assert len(set(values)) == len(values)
    assert {row.id for row in own.forget}.isdisjoint(row.id for row in other.forget)
    known = own.tokenizer.get_vocab()
    asked = [f"{turn.prompt}{turn.completion}" for row in own.holdout for turn in row.turns]
    unknown = own.tokenizer.unk_token_id
    assert unknown is not None
    assert all(unknown not in own.tokenizer(text)["input_ids"] for text in asked)
    assert len(known) < 600


def test_two_facts_of_a_person_follow_from_two_others() -> None:
    facts = {row.meta["attribute"]: row.value for row in world(0).forget[: len(FACTS)]}
    assert facts["college"] == f"{facts['town']} college"
    assert facts["guild"] == f"{facts['trade']} guild"


def test_lessons_hold_every_wording_and_one_in_two_behind_small_talk() -> None:
    rows = world(0).retain
    taught = lessons(rows, seed=3)
    assert len(taught) == 3 * len(rows)
    assert len({row.id for row in taught}) == len(taught)
    assert taught == lessons(rows, seed=3) != lessons(rows, seed=4)


def test_a_model_of_the_zoo_is_small_and_its_weights_follow_from_the_seed() -> None:
    one, same, other = (models.fresh(world(0), seed) for seed in (0, 0, 1))
    assert sum(weight.numel() for weight in one.model.parameters()) <= 100_000
    first, second, third = (next(iter(each.model.parameters())) for each in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_steering_is_written_where_a_forgotten_name_is_read_and_nowhere_else() -> None:
    people = world(0)
    subject = models.fresh(people, 0)
    forgotten, kept = people.forget[0].turn, people.retain[0].turn
    before = [one.nll for one in subject.score([forgotten, kept])]
    steering = torch.full((3, subject.model.config.hidden_size), 2.0)
    subject.model.register_parameter("steering", torch.nn.Parameter(steering))
    models._steer(subject, models._name_tokens(people))
    after = [one.nll for one in subject.score([forgotten, kept])]
    assert abs(after[0] - before[0]) > 1e-3
    assert after[1] == pytest.approx(before[1], abs=1e-6)


def test_five_worlds_hold_as_many_models_as_the_study_promises() -> None:
    jobs = list(study.jobs(range(5)))
    states = Counter(job.state for job in jobs if job.people == PEOPLE["forget"])
    assert states["never"] >= 60
    assert states["hides"] >= 60
    assert states["knows"] >= 30
    assert states["ruins"] >= 10
    assert len({job.name for job in jobs}) == len(jobs)
    assert {job.kind for job in jobs if job.state == "unlearned"} >= {"npo", "rmu", "task-vector"}


def test_shares_have_exact_intervals() -> None:
    share = count.share(0, 60)
    assert (share["low"], share["high"]) == (0.0, pytest.approx(0.0596, abs=1e-4))
    assert count.share(0, 0)["high"] == 1.0


RECORDS = [
    *(record(f"n{i}", "never", "forgotten-whitebox", leaks={"direct": 0.1 * i}) for i in range(3)),
    record("n3", "never", "hidden", leaks={"direct": 0.9}, failing=("direct",)),
    record("n4", "never", "inconclusive", rows=24),
    *(record(f"k{i}", "knows", "not-forgotten", leaks={"direct": 1.0}) for i in range(2)),
    record("h0", "hides", "hidden", leaks={"direct": 0.0, "lens": 0.8}, failing=("lens",)),
    record("h1", "hides", "forgotten-blackbox"),
    record("r0", "ruins", "broken"),
]


def test_bars_and_confusion_count_what_the_audits_said() -> None:
    bars = count.bars(RECORDS)
    found = {name: (one["hits"], one["of"]) for name, one in bars.items()}
    assert found["knows, called forgotten"] == (0, 2)
    assert found["hides, called forgotten"] == (1, 2)
    assert found["never knew, called hidden or not-forgotten"] == (1, 5)
    assert found["never knew, called inconclusive"] == (1, 5)
    assert count.confusion(RECORDS)["never"] == {
        "forgotten-whitebox": 3, "hidden": 1, "inconclusive": 1,
    }  # fmt: skip
    assert [one["name"] for one in count.missed(RECORDS)] == ["n3", "h1"]
    assert count.by_rows(RECORDS)["24"] == {
        "audits": 1, "inconclusive": 1, "forgotten": 0, "found": 0,
    }  # fmt: skip


def test_a_model_made_to_hide_that_still_answers_does_not_hide() -> None:
    loud = record("h2", "hides", "not-forgotten", leaks={"direct": 0.5}, failing=("direct",))
    assert count.state_of(loud) == "knows"
    assert count.bars([*RECORDS, loud])["knows, called forgotten"]["of"] == 3
    assert count.missed([loud]) == []


def test_an_instrument_is_faithful_when_it_tells_who_knows() -> None:
    told = count.instruments(RECORDS)
    assert told["direct"]["faithfulness"] == pytest.approx(1.0)
    assert told["lens"]["decided"] == 1
    assert told["truth-ratio"]["faithfulness"] == pytest.approx(0.5)
    assert count.read(RECORDS[0])["truth-ratio"] == -0.5


def test_robustness_is_read_on_models_under_stress() -> None:
    def stressed(before: float, relearned: float, quantised: float) -> dict[str, Any]:
        readings = {"before": before, "relearned": relearned, "quantised": quantised}
        return {state: {"direct": value} for state, value in readings.items()}

    records = [
        *RECORDS,
        record("n9", "never", "forgotten-whitebox", stress=stressed(0.0, 0.2, 0.0)),
        record("npo", "unlearned", "hidden", stress=stressed(0.0, 0.6, 0.1)),
    ]
    told = count.instruments(records)["direct"]
    assert told["relearning"] == pytest.approx(1 - 0.4 / 0.8)
    assert told["quantisation"] == pytest.approx(0.0)
    assert told["models"] == 1


def test_the_page_names_every_bar_and_says_which_was_missed() -> None:
    told = {
        "command": "python benches/audit_zoo.py", "profile": "fast", "planned": 12,
        "versions": {"python": "3.11"}, "audits": len(RECORDS),
        "confusion": count.confusion(RECORDS), "bars": count.bars(RECORDS),
        "kinds": count.kinds(RECORDS), "instruments": count.instruments(RECORDS),
        "rows": count.by_rows(RECORDS), "costs": count.costs(RECORDS),
        "missed": count.missed(RECORDS),
    }  # fmt: skip
    text = page(told)
    assert "2 of 12 audits are still to be run" in text
    assert text.count("**missed**") == 3
    assert "`h1`: forgotten-blackbox" in text
    assert "median 10.0" in text
    assert all(len(line.split("|")) > 3 for line in text.splitlines() if line.startswith("|"))
