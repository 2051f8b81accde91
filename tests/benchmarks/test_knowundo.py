"""KnowUnDo: two domains, two parts, prefixes, and the score of a log."""

import json
import math
from pathlib import Path

import pytest

from expunge.benchmarks import knowundo
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.requests.rows import check_roles
from expunge.testing import replicas

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "knowundo"
PARAMS = knowundo.Params()


@pytest.fixture
def data(tmp_path):
    replicas.write("knowundo", tmp_path)
    return tmp_path


@pytest.mark.parametrize("domain", ["privacy", "copyright"])
def test_methods_get_train_and_models_are_compared_on_val(data, domain):
    roles, sets = knowundo.splits(data, domain, PARAMS), knowundo.sets(data, domain, PARAMS)
    assert {name: len(rows) for name, rows in roles.items()} == {"forget": 6, "retain": 6}
    assert {name: len(rows) for name, rows in sets.items()} == {"forget": 6, "retain": 6}
    seen = {row.id for rows in roles.values() for row in rows}
    assert not seen & {row.id for rows in sets.values() for row in rows}
    assert not check_roles(**roles)


def test_what_was_trained_on_can_be_evaluated_instead(data):
    sets = knowundo.sets(data, "privacy", knowundo.Params(part="train"))
    roles = knowundo.splits(data, "privacy", PARAMS)
    assert {row.id for row in sets["forget"]} == {row.id for row in roles["forget"]}


def test_the_break_before_the_answer_is_scored_as_in_the_published_script(data):
    row = knowundo.splits(data, "privacy", PARAMS)["forget"][0]
    assert row.completion.startswith("\n\n")
    assert not row.prompt.endswith("\n")
    chat = knowundo.splits(data, "privacy", knowundo.Params(**knowundo.fitting(True)))["forget"][0]
    assert chat.completion == row.completion[2:]


def test_a_prefix_stands_before_evaluated_questions_only(data):
    prefixed = knowundo.Params(prefix="direct")
    sets = knowundo.sets(data, "copyright", prefixed)
    assert all(r.prompt.startswith(knowundo.DIRECT["copyright"]) for r in sets["forget"])
    own = knowundo.sets(data, "privacy", knowundo.Params(prefix="Mind:\n"))["retain"][0]
    plain = knowundo.sets(data, "privacy", PARAMS)["retain"][0]
    assert (own.id, own.prompt) == (plain.id, f"Mind:\n{plain.prompt}")
    bare = knowundo.splits(data, "privacy", PARAMS)
    assert knowundo.splits(data, "privacy", prefixed) == bare


def test_rows_belong_to_the_person_somebody_asked_for(data):
    sets = knowundo.sets(data, "privacy", PARAMS)
    assert len({row.subject for row in sets["forget"]}) == 6
    assert None not in {row.subject for rows in sets.values() for row in rows}


def test_successes_and_perplexity_of_a_log(data):
    sets = knowundo.sets(data, "privacy", PARAMS)
    hits = {"forget": ([1, 1, 0, 1], [1, 0]), "retain": ([1, 1, 1, 1], [1, 1])}
    log = {
        name: {
            "token_hit": {row.id: hits[name][at % 2] for at, row in enumerate(rows)},
            "token_logp": {
                row.id: ([-math.log(2)], [-math.log(8)] * 3)[at % 2] for at, row in enumerate(rows)
            },
            "subject": {row.id: row.subject for row in rows},
        }
        for name, rows in sets.items()
    }
    values = Benchmark.load("knowundo").values(log, params=PARAMS)
    assert values["forget.accuracy"].mean == pytest.approx(0.625)
    assert values["score"].parts == {"unlearn_success": 37.5, "retention_success": 100.0}
    assert values["score"].mean == 68.75
    assert values["forget.perplexity"].mean == pytest.approx(4.0)
    low, high = values["score"].interval
    assert low < 68.75 < high


def test_files_that_are_missing_doubled_or_of_another_domain_are_errors(data):
    path = data / "privacy_unlearn_val.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([*records, records[0]]))
    with pytest.raises(ExpungeError, match="E-DATA-007"):
        knowundo.sets(data, "privacy", PARAMS)
    path.unlink()
    with pytest.raises(ExpungeError, match="E-DATA-001"):
        knowundo.sets(data, "privacy", PARAMS)
    with pytest.raises(ExpungeError, match="E-USE-001"):
        knowundo.sets(data, "general", PARAMS)


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")
def test_upstream_rows():
    roles, sets = (
        knowundo.splits(UPSTREAM, "privacy", PARAMS),
        knowundo.sets(UPSTREAM, "privacy", PARAMS),
    )
    assert {name: len(rows) for name, rows in roles.items()} == {"forget": 400, "retain": 441}
    assert {name: len(rows) for name, rows in sets.items()} == {"forget": 110, "retain": 108}
    assert not check_roles(**roles)
    assert None not in {row.subject for rows in sets.values() for row in rows}
    assert len({row.subject for row in sets["forget"]}) >= 50
