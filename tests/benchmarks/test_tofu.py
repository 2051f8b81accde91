"""TOFU: its files with all their traps, and the numbers of a log."""

import json
import math
from itertools import product
from pathlib import Path
from statistics import harmonic_mean

import pytest

from expunge.benchmarks import tofu
from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.testing.replicas.tofu import SAME_QUESTION
from expunge.testing.replicas.tofu import write as write_tofu

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "tofu"
PARAMS = tofu.Params()
TOFU = Benchmark.load("tofu")
ROWS_OF = {"forget01": (40, 3960), "forget05": (200, 3800), "forget10": (400, 3600)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tofu")
    write_tofu(folder)
    return folder


@pytest.fixture
def broken(tmp_path):
    """A folder of files to break."""
    write_tofu(tmp_path)
    return tmp_path


def change(path, edit):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(record) + "\n" for record in edit(records)))


def refused(folder, split="forget10"):
    with pytest.raises(ExpungeError) as refusal:
        tofu.sets(folder, split, PARAMS)
    return refusal.value


def log_of(data, *, nll=0.1, paraphrase=1.0, wrong=2.0, hits=True, real=True):
    """The log of a made-up model on the stand-in's rows."""
    sets = tofu.sets(data, "forget10", PARAMS)
    return {
        name: {
            "nll": {row.id: nll for row in rows},
            "paraphrase_nll": {row.id: paraphrase for row in rows if row.paraphrases},
            "wrong_nll": {row.id: [wrong] * len(row.wrong) for row in rows},
            "token_hit": {row.id: [hits] * 3 for row in rows},
            "generation": {
                row.id: row.reply if real or name in ("forget", "retain") else "" for row in rows
            },
            "reply": {row.id: row.reply for row in rows},
        }
        for name, rows in sets.items()
    }


def test_one_question_asked_of_two_authors_makes_two_rows(data):
    rows = tofu.splits(data, "forget10", PARAMS)["retain"]
    same = [row for row in rows if SAME_QUESTION in row.prompt]
    assert len(same) == 2
    assert same[0].id != same[1].id
    assert len({row.id for row in rows}) == len(rows) == 180


def test_subjects_are_authors_numbered_through_kept_and_forgotten(data):
    roles = tofu.splits(data, "forget10", PARAMS)
    assert [roles["retain"][i].subject for i in (0, 19, 20)] == ["author-0", "author-0", "author-1"]
    assert {row.subject for row in roles["forget"]} == {"author-9"}
    sets = tofu.sets(data, "forget10", PARAMS)
    assert {row.id: row.subject for row in sets["retain"]}.items() <= {
        row.id: row.subject for row in roles["retain"]
    }.items()
    assert {row.subject for row in sets["world_facts"]} == {None}


def test_methods_never_see_the_answers_they_are_measured_by(data):
    for rows in tofu.splits(data, "forget10", PARAMS).values():
        assert not any(row.paraphrases or row.wrong or row.meta for row in rows)


def test_evaluated_rows_carry_paraphrase_and_wrong_answers(data):
    sets = tofu.sets(data, "forget10", PARAMS)
    assert {len(row.wrong) for row in sets["forget"]} == {5}
    assert {len(row.wrong) for row in sets["real_authors"]} == {3}
    assert all(row.paraphrases for row in (*sets["forget"], *sets["retain"]))
    assert not any(row.paraphrases for row in (*sets["real_authors"], *sets["world_facts"]))


def test_forgotten_rows_are_the_same_with_and_without_their_answers(data):
    bare = tofu.splits(data, "forget10", PARAMS)["forget"]
    full = tofu.sets(data, "forget10", PARAMS)["forget"]
    assert [row.id for row in bare] == [row.id for row in full]


def test_plain_style_puts_the_space_before_the_answer(data):
    plain = tofu.splits(data, "forget10", PARAMS)["forget"][0]
    assert plain.prompt.startswith("Question: ")
    assert plain.prompt.endswith("\nAnswer:")
    assert plain.completion.startswith(" It is about")
    chat = tofu.splits(data, "forget10", tofu.Params(**tofu.fitting(True)))["forget"][0]
    assert (chat.prompt, chat.completion) == (plain.prompt[10:-8], plain.completion[1:])


def test_rows_of_a_set_can_be_limited_as_the_original_protocol_does(data):
    sets = tofu.sets(data, "forget10", tofu.Params(rows=30))
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget": 20, "retain": 30, "real_authors": 10, "world_facts": 10,
    }  # fmt: skip


def test_an_author_cut_in_two_is_refused(broken):
    change(broken / "retain90.json", lambda records: records[:-1])
    assert refused(broken).code == "E-DATA-014"


def test_a_row_both_kept_and_forgotten_is_refused(broken):
    forgotten = json.loads((broken / "forget10.json").read_text().splitlines()[0])
    change(broken / "retain90.json", lambda records: [*records[:-1], forgotten])
    error = refused(broken)
    assert error.code == "E-DATA-014"
    assert "occurs twice" in str(error)


def test_evaluated_files_of_another_split_are_refused(broken):
    change(
        broken / "forget10_perturbed.json",
        lambda records: [{**record, "answer": record["answer"] + "!"} for record in records],
    )
    assert "20 rows that are not in the split and lacks 20" in str(refused(broken))


def test_a_missing_file_column_or_split_is_named(broken):
    change(
        broken / "world_facts_perturbed.json",
        lambda records: [{k: v for k, v in r.items() if k != "perturbed_answer"} for r in records],
    )
    error = refused(broken)
    assert (error.code, "world_facts_perturbed.json:1" in str(error)) == ("E-DATA-003", True)
    (broken / "retain_perturbed.json").unlink()
    assert refused(broken).code == "E-DATA-001"
    assert refused(broken, "forget11").code == "E-USE-001"


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")
@pytest.mark.parametrize("split", ROWS_OF)
def test_upstream_files_have_the_published_counts(split):
    roles = tofu.splits(UPSTREAM, split, PARAMS)
    forget, retain = ROWS_OF[split]
    assert {role: len(rows) for role, rows in roles.items()} == {"forget": forget, "retain": retain}
    assert len({row.subject for rows in roles.values() for row in rows}) == 200
    sets = tofu.sets(UPSTREAM, split, PARAMS)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget": forget, "retain": 400, "real_authors": 100, "world_facts": 117,
    }  # fmt: skip
    assert {len(row.wrong) for row in (*sets["forget"], *sets["retain"])} == {5}


def test_numbers_of_a_log_are_those_of_the_formulas(data):
    log = log_of(data)
    parts = TOFU.summarise(log)["parts"]["geometric"]
    assert parts["forget.prob"] == pytest.approx(math.exp(-0.1))
    assert parts["forget.truth_ratio"] == pytest.approx(math.exp(-1.0))
    assert parts["retain.truth_ratio"] == pytest.approx(1 - math.exp(-1.0))
    assert parts["world_facts.truth_ratio"] == pytest.approx(1 - math.exp(0.1 - 2.0))
    among_four = math.exp(-0.1) / (math.exp(-0.1) + 3 * math.exp(-2.0))
    assert parts["real_authors.prob"] == pytest.approx(among_four)


def test_utility_is_the_harmonic_mean_of_its_nine_parts(data):
    summary = TOFU.summarise(log_of(data))
    parts = tofu.details(summary).values()
    assert len(parts) == 9
    expected = 9 / sum(1 / part for part in parts)
    assert summary["model_utility"]["geometric"] == pytest.approx(expected)


def test_utility_the_original_never_had_is_not_measured(data):
    tiny = log_of(data, real=False)
    summary = TOFU.summarise(tiny, None, tiny)
    assert summary["model_utility"] == {"geometric": None, "arithmetic": None}
    note = summary["notes"]["model_utility"]
    assert note.startswith("not measurable on this model")
    assert "real_authors.rouge is 0" in note


def test_utility_lost_by_forgetting_is_zero_and_says_why(data):
    summary = TOFU.summarise(log_of(data, real=False), None, log_of(data))
    assert summary["model_utility"]["geometric"] == 0
    assert summary["notes"]["model_utility"].startswith("0 because real_authors.rouge")


def test_forget_quality_needs_a_reference_with_the_same_rows(data):
    log = log_of(data)
    assert TOFU.summarise(log)["forget_quality"] is None
    assert TOFU.summarise(log, log)["forget_quality"]["p"] == 1.0
    assert TOFU.summarise(log, log_of(data, paraphrase=3.0))["forget_quality"]["d"] == 1.0
    del log["forget"]["wrong_nll"][next(iter(log["forget"]["wrong_nll"]))]
    with pytest.raises(ExpungeError) as refusal:
        TOFU.summarise(log, log_of(data))
    assert refusal.value.code == "E-DATA-013"


@pytest.fixture
def with_holdout(broken):
    """A folder that has rows of authors whom no model was trained on."""
    forgotten = [json.loads(line) for line in (broken / "forget10.json").read_text().splitlines()]
    unseen = [{**record, "answer": f"{record['answer']} So they say."} for record in forgotten]
    lines = "".join(json.dumps(record) + "\n" for record in unseen)
    (broken / "holdout10.json").write_text(lines)
    return broken


def test_rows_of_unseen_authors_make_the_holdout(with_holdout, data):
    assert "holdout" not in tofu.splits(data, "forget10", PARAMS)
    assert "holdout" not in tofu.sets(data, "forget10", PARAMS)
    for rows in (f(with_holdout, "forget10", PARAMS)["holdout"] for f in (tofu.splits, tofu.sets)):
        assert len(rows) == 20
        assert {(row.role, row.subject) for row in rows} == {("holdout", "author-10")}


def test_an_unseen_author_must_not_be_in_the_split(with_holdout):
    text = (with_holdout / "forget10.json").read_text()
    (with_holdout / "holdout10.json").write_text(text)
    assert refused(with_holdout).code == "E-DATA-014"


def test_membership_is_measured_where_there_is_a_holdout(with_holdout):
    log = log_of(with_holdout)
    for name, level in (("forget", 0.1), ("holdout", 2.0)):
        ids = log[name]["nll"]
        log[name]["training_logp"] = {row: [-level, -level] for row in ids}
    values = TOFU.values(log, log)
    assert values["mia_loss"].mean == 1.0
    assert values["mia_min_k"].mean == 1.0
    assert values["privleak"].note
    without = {name: of for name, of in log.items() if name != "holdout"}
    assert TOFU.values(without)["mia_loss"].mean is None


def test_the_aggregate_scores_are_made_of_the_numbers_beside_them(with_holdout):
    log, reference = log_of(with_holdout), log_of(with_holdout, nll=2.0)
    for (name, level), of in product((("forget", 0.1), ("holdout", 2.0)), (log, reference)):
        of[name]["training_logp"] = {row: [-level, -level] for row in of[name]["nll"]}
        of[name]["text"] = dict.fromkeys(of[name]["nll"], "as long as any other")
    for of in (log, reference):
        of["@mia_min_k_plus_plus"] = {
            "standardised_logp": of["forget"]["training_logp"],
            "holdout.standardised_logp": of["holdout"]["training_logp"],
        }
    values = TOFU.values(log, reference, log)
    assert values["utility_score"].mean == pytest.approx(1.0)
    assert values["privacy_score"].mean == pytest.approx(1.0)
    assert values["memorisation_score"].mean == 0.0  # every token of the answers is a hit
    assert values["unlearning_score"].mean == 0.0
    forgot = TOFU.values(log_of(with_holdout, hits=False), None, log)
    c, w = math.exp(-1.0), math.exp(-2.0)
    parts = [1.0, 1.0, 1 - c, 1 - c / (c + w)]
    assert forgot["memorisation_score"].mean == pytest.approx(4 / sum(1 / p for p in parts))
    assert forgot["unlearning_score"].mean is None
    both = forgot["memorisation_score"].mean, forgot["utility_score"].mean
    assert forgot["unlearning_score.without_privacy"].mean == pytest.approx(harmonic_mean(both))


def test_a_row_that_is_evaluated_twice_is_refused(broken):
    for name in ("retain_perturbed", "world_facts_perturbed", "forget10_perturbed"):
        path = broken / f"{name}.json"
        before = path.read_text()
        change(path, lambda records: [*records, records[0]])
        error = refused(broken)
        assert error.code == "E-DATA-007", name
        assert name in str(error)
        path.write_text(before)


def test_answers_end_at_their_first_line_where_asked_for():
    whole, cut = (tofu.asking(tofu.Params(answers=how)) for how in ("whole", "first-line"))
    assert {asking.cut("In Oslo.\nOr not.") for asking in whole.values()} == {"In Oslo.\nOr not."}
    assert {asking.cut("In Oslo.\nOr not.") for asking in cut.values()} == {"In Oslo."}
    assert {asking.new_tokens for asking in cut.values()} == {200}


def test_named_metrics_exist():
    named = {measure.metric for measure in tofu.measures(PARAMS).values()}
    assert named <= set(registry.metrics.ids())


@pytest.mark.parametrize("split", ROWS_OF)
def test_every_split_says_how_its_reference_is_made(split):
    assert f"retain{100 - int(split[-2:])}.json" in tofu.references(split)
