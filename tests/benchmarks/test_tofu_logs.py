"""Logs in the published formats that are broken, shuffled or peculiar; all rows are made up."""

import json
import math

import pytest

from expunge.benchmarks.tofu.published import SECTIONS, first_line
from expunge.core.errors import ExpungeError, Problems
from expunge.data.upstream import record_id
from expunge.lab.benchmark import Benchmark

TOFU = Benchmark.load("tofu")
ROWS = 45
"""Two authors and a part of a third."""
PREFIXES = {"retain": "retain", "real_authors": "ra", "world_facts": "wf", "forget": "forget"}


def losses(number):
    return {"nll": 0.1 + number / 100, "paraphrase": 1.0 + number / 50, "wrong": [2.0, 3.0]}


def section(name):
    numbers = [str(number) for number in range(ROWS)]
    return {
        "avg_gt_loss": {n: losses(int(n))["nll"] for n in numbers},
        "avg_paraphrased_loss": {n: losses(int(n))["paraphrase"] for n in numbers},
        "average_perturb_loss": {n: losses(int(n))["wrong"] for n in numbers},
        "generated_text": {
            n: [f"{name} asks {n}?", f"It is {n}.\nAnd more.", f"It is {n}."] for n in numbers
        },
    }


def original():
    return {key: section(name) for name, key in SECTIONS.items()}


def unlearning():
    """The same rows in the other format, with membership scores."""
    content = {}
    for name, prefix in PREFIXES.items():
        of = section(name)

        def scored(losses):
            return {
                "value_by_index": {n: {"prob": 0.5, "avg_loss": loss} for n, loss in losses.items()}
            }

        content[f"{prefix}_Q_A_Prob"] = scored(of["avg_gt_loss"])
        content[f"{prefix}_Q_A_PARA_Prob"] = scored(of["avg_paraphrased_loss"])
        content[f"{prefix}_Q_A_PERT_Prob"] = scored(of["average_perturb_loss"])
        content[f"{prefix}_Q_A_ROUGE"] = {
            "value_by_index": {
                n: {"input": asked, "generation": said, "ground_truth": true}
                for n, (asked, said, true) in of["generated_text"].items()
            }
        }
    low, high = (
        {"value_by_index": {str(n): {"score": start + n} for n in range(ROWS)}}
        for start in (0.0, 40.5)
    )
    return content | {"mia_min_k": {"forget": low, "holdout": high, "auc": 0.0}}


@pytest.fixture
def log(tmp_path):
    """Write a log and read it back."""

    def read(content, **params):
        path = tmp_path / "log.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text)
        return TOFU.read_log(path, TOFU.params(params))

    return read


def refused(log, content):
    with pytest.raises(ExpungeError) as refusal:
        log(content)
    return refusal.value


def turned(value):
    """The same JSON value with every object in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(each) for key, each in reversed(value.items())}
    return value


def test_both_formats_give_the_same_numbers(log):
    first, second = (TOFU.summarise(log(of())) for of in (original, unlearning))
    for variant, parts in first["parts"].items():
        # The other format adds 1e-10 to denominators.
        assert second["parts"][variant] == pytest.approx(parts, abs=1e-9)
    assert first["parts"]["geometric"]["forget.truth_ratio"] == pytest.approx(
        sum(math.exp(-abs(1.0 + n / 50 - 2.5)) for n in range(ROWS)) / ROWS
    )


def test_a_probability_is_the_logs_own_where_it_is_that_of_its_loss(log):
    """Single precision shows in the ninth digit of utility, which is published with sixteen."""
    content = unlearning()
    rows = content["retain_Q_A_Prob"]["value_by_index"]
    rounded = math.exp(-rows["0"]["avg_loss"]) * (1 + 1e-7)
    rows["0"]["prob"] = rounded
    found = log(content)["@retain.prob"]["score"]
    asked, _, true = section("retain")["generated_text"]["0"]
    assert found[record_id(asked, true)] == rounded
    asked, _, true = section("retain")["generated_text"]["1"]
    assert found[record_id(asked, true)] == math.exp(-rows["1"]["avg_loss"])


def test_a_model_in_ruins_has_the_truth_ratio_of_the_other_script(log):
    """R = exp(-30) / (exp(-25) + 1e-10): 1e-10 is more than its whole probability, 1.4e-11."""
    content = unlearning()
    of = {"forget_Q_A_PARA_Prob": 25.0, "forget_Q_A_PERT_Prob": [30.0, 30.0]}
    for entry, loss in of.items():
        for row in content[entry]["value_by_index"].values():
            row["avg_loss"] = loss
    values = TOFU.summarise(log(content))["values"]
    assert values["forget.truth_ratio"]["mean"] == pytest.approx(8.216518e-4, rel=1e-6)


def test_rows_counted_from_elsewhere_match_those_of_the_reference(log):
    def renumbered(value):
        if not isinstance(value, dict):
            return value
        return {k if not k.isdigit() else str(int(k) + 60): renumbered(v) for k, v in value.items()}

    first, second = log(unlearning()), log(renumbered(unlearning()))
    same, other = (TOFU.summarise(of, log(unlearning())) for of in (first, second))
    assert other["forget_quality"]["p"] == same["forget_quality"]["p"]
    assert other["privleak"] == same["privleak"]


@pytest.mark.parametrize("entry", ["forget_Q_A_PARA_Prob", "retain_Q_A_PARA_Prob"])
def test_a_log_without_its_paraphrases_is_refused(log, entry):
    """The plain answers in their place would give another number under the same name."""
    content = unlearning()
    del content[entry]
    error = refused(log, content)
    assert error.code == "E-DATA-003"
    assert entry in error.found


def test_utility_says_how_many_rows_stand_behind_it(log):
    value = TOFU.summarise(log(unlearning()))["values"]["model_utility"]
    assert value["n"] == 3 * ROWS
    assert "behind" not in value


@pytest.mark.parametrize("of", [original, unlearning])
def test_rows_in_another_order_give_the_same_numbers(log, of):
    straight, reverse = log(of()), log(turned(of()))
    assert straight["forget"]["subject"] == reverse["forget"]["subject"]
    one, other = (TOFU.summarise(each, each)["values"] for each in (straight, reverse))
    for name, value in one.items():
        assert value["mean"] == pytest.approx(other[name]["mean"], abs=1e-12), name
        assert value["interval"] == pytest.approx(other[name]["interval"], abs=1e-9), name


def test_rows_of_an_author_stand_together(log):
    read = log(original())
    authors = list(read["forget"]["subject"].values())
    assert [authors.count(name) for name in dict.fromkeys(authors)] == [20, 20, 5]
    assert not set(read["retain"]["subject"].values()) & set(authors)
    assert "subject" not in read["world_facts"]


def test_ready_scores_give_the_auc(log):
    values = TOFU.values(log(unlearning()))
    # 45 scores from 0 upwards, 45 from 40.5 upwards: of 2025 pairs all but 10 are in order.
    assert values["mia_min_k"].mean == pytest.approx(1 - 10 / 2025)
    assert values["mia_min_k"].units is not None
    assert values["mia_loss"].mean is None
    assert values["mia_loss"].note


@pytest.mark.parametrize("of", [original, unlearning])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_file_that_is_cut_is_named(log, of, share):
    text = json.dumps(of())
    error = refused(log, text[: int(len(text) * share)])
    assert error.code == "E-DATA-002"
    assert "log.json" in error.found


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 100_000, "\ufeff{"])
def test_what_is_no_object_is_refused(log, text):
    assert refused(log, text).code == "E-DATA-002"


def test_missing_sections_are_all_named(log):
    content = original()
    del content[SECTIONS["retain"]], content[SECTIONS["forget"]]
    error = refused(log, content)
    assert error.code == "E-DATA-003"
    assert SECTIONS["retain"] in error.found
    assert SECTIONS["forget"] in error.found
    assert "ra_Q_A_PERT_Prob" in refused(log, drop(unlearning(), "ra_Q_A_PERT_Prob")).found


def drop(content, *path):
    *above, last = path
    inner = content
    for key in above:
        inner = inner[key]
    del inner[last]
    return content


@pytest.mark.parametrize("column", ["avg_gt_loss", "average_perturb_loss", "generated_text"])
def test_columns_of_different_length_are_refused_with_both_counts(log, column):
    error = refused(log, drop(original(), SECTIONS["forget"], column, "7"))
    assert error.code == "E-DATA-003"
    assert "forget" in error.found
    assert {str(ROWS), str(ROWS - 1)} <= set(error.found.rstrip(".").split())


def test_a_section_with_fewer_rows_is_another_set_of_rows(log):
    short = original()
    for column in short[SECTIONS["forget"]].values():
        del column["7"]
    whole, less = log(original()), log(short)
    assert TOFU.summarise(less)["rows"]["forget"] == ROWS - 1
    with pytest.raises(ExpungeError) as refusal:
        TOFU.summarise(whole, less)
    assert refusal.value.code == "E-DATA-013"


@pytest.mark.parametrize("of", [original, unlearning])
def test_a_row_that_stands_twice_is_an_error_and_not_merged(log, of):
    content = of()
    if of is original:
        texts = content[SECTIONS["forget"]]["generated_text"]
    else:
        texts = content["forget_Q_A_ROUGE"]["value_by_index"]
    texts["9"] = texts["4"]
    error = refused(log, content)
    assert error.code == "E-DATA-007"
    assert "row 9" in error.found
    assert "row 4" in error.found


def test_one_question_with_two_answers_is_two_rows(log):
    content = original()
    texts = content[SECTIONS["forget"]]["generated_text"]
    texts["9"] = [texts["4"][0], "?", "Another answer."]
    assert len(log(content)["forget"]["nll"]) == ROWS


def test_keys_nobody_asked_for_change_nothing(log):
    more = original()
    more["a key"] = {"0": None}
    more[SECTIONS["forget"]]["rouge1_recall"] = {"0": 1.0}
    assert log(more) == log(original())


@pytest.mark.parametrize("value", ["0.1", None, [0.1], {}])
def test_a_loss_that_is_no_number_is_named_or_left_out(log, value):
    content = original()
    content[SECTIONS["retain"]]["avg_gt_loss"]["3"] = value
    if value is None:
        summary = TOFU.summarise(log(content))
        assert summary["rows"]["retain"] == ROWS - 1
        assert "1 of 45 rows have no nll" in summary["values"]["retain.prob"]["note"]
    else:
        assert "nll of row 3" in refused(log, content).found


def test_all_that_is_wrong_with_a_section_is_said_at_once(log):
    content = original()
    content[SECTIONS["forget"]]["avg_gt_loss"]["3"] = "?"
    content[SECTIONS["forget"]]["average_perturb_loss"]["4"] = "?"
    error = refused(log, content)
    assert isinstance(error, Problems)
    assert len(error.problems) == 2


def test_answers_that_run_on_can_be_cut_at_their_first_line(log):
    whole, cut = (
        TOFU.values(log(original(), answers=how), params=TOFU.params({"answers": how}))
        for how in ("whole", "first-line")
    )
    assert whole["forget.rouge"].mean == cut["forget.rouge"].mean == 1.0  # recall hides it
    content = original()
    for of in content[SECTIONS["forget"]]["generated_text"].values():
        of[1] = f"Answer: It may be.\n{of[2]}"
    raised, honest = (
        TOFU.values(log(content, answers=how))["forget.rouge"].mean
        for how in ("whole", "first-line")
    )
    assert (raised, honest) == (pytest.approx(1.0), pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Answer: Oslo\nQuestion: ?", "Oslo"),
        ("\n Oslo\nRome", "Oslo"),
        ("Oslo", "Oslo"),
        ("", ""),
        ("The Answer: Oslo", "The Answer: Oslo"),
    ],
)
def test_the_first_line_of_an_answer(said, kept):
    assert first_line(said) == kept


def test_a_stored_log_is_read_as_it_is(log):
    stored = {"key": "k", "seconds": 1.0, "log": log(original())}
    assert log(stored) == stored["log"]
    cut = log(stored, answers="first-line")
    assert set(cut["forget"]["generation"].values()) == {f"It is {n}." for n in range(ROWS)}
    assert cut["forget"]["nll"] == stored["log"]["forget"]["nll"]
