"""PCH: requests in order, the line to the reference, and the swap of the published driver."""

import json
from math import log

import pytest

from expunge.benchmarks import pch
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.testing.replicas.pch import KEPT, write

BENCHMARK = Benchmark.load("pch")


@pytest.fixture
def data(tmp_path):
    write(tmp_path, requests=30)
    return tmp_path


def params(**changed):
    return pch.Params(**{"total": 30} | changed)


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def rewrite(folder, name, records):
    (folder / name).write_text("".join(f"{json.dumps(one)}\n" for one in records))


class TestRows:
    def test_requests_come_in_the_order_of_the_file_with_their_numbers(self, data):
        roles = pch.splits(data, "12", params())
        texts = [one["text"] for one in lines(data, "PCH.jsonl")]
        assert [row.text for row in roles["forget"]] == texts[:12]
        assert [row.meta["request"] for row in roles["forget"]] == list(range(1, 13))
        assert [row.text for row in roles["retain"]] == texts[12:]

    def test_each_split_holds_the_one_before_it(self, data):
        before, after = (pch.splits(data, k, params())["forget"] for k in ("6", "18"))
        assert before == after[:6]

    def test_question_and_document_of_a_line_belong_together(self, data):
        sets = pch.sets(data, "30", params())
        documents = {row.subject: row.text for row in sets["forget_text"]}
        pairs = zip(lines(data, "PCH.jsonl"), lines(data, "PCH_QA.jsonl"), strict=True)
        true = {(pair["question"], pair["answer"]): text["text"] for text, pair in pairs}
        assert len(sets["forget"]) == 30
        for row in sets["forget"]:
            assert documents[row.subject] == true[row.prompt, row.answer]

    def test_another_order_moves_all_three_together_and_only_requests(self, data):
        plain, mixed = (pch.splits(data, "10", params(shuffle=seed)) for seed in (None, 20))
        assert [row.text for row in plain["forget"]] != [row.text for row in mixed["forget"]]
        whole = pch.splits(data, "30", params(shuffle=20))
        assert [r.text for r in whole["retain"]] == [
            r.text for r in pch.splits(data, "30", params())["retain"]
        ]
        sets = pch.sets(data, "10", params(shuffle=20))
        assert {row.subject for row in sets["forget"]} == {
            row.subject for row in sets["forget_text"]
        }
        assert pch.splits(data, "10", params(shuffle=21)) != mixed

    def test_ends_of_the_line_are_evaluated_only_where_they_are_needed(self, data):
        assert set(pch.sets(data, "30", params())) == {
            f"{role}{kind}" for role in ("forget", "retain") for kind in ("", "_text")
        }
        sets = pch.sets(data, "12", params(requests=12))
        assert len(sets["forget"]) == 12
        assert len(sets["all_forget"]) == len(sets["all_forget_text"]) == 30
        assert len(sets["all_retain"]) == KEPT

    def test_few_rows_are_the_same_documents_asked_and_read(self, data):
        sets = pch.sets(data, "30", params(rows=20))
        assert len(sets["forget"]) == 20
        assert [r.subject for r in sets["forget"]] == [r.subject for r in sets["forget_text"]]


class TestErrors:
    @pytest.mark.parametrize("split", ["0", "31", "-1", "all", "1.5", "²"])
    def test_a_split_is_a_number_of_requests(self, data, split):
        with pytest.raises(ExpungeError) as caught:
            pch.splits(data, split, params())
        assert caught.value.code == "E-USE-001"

    def test_the_line_is_refused_where_it_says_another_number_than_the_split(self, data):
        with pytest.raises(ExpungeError) as caught:
            pch.sets(data, "12", params(requests=30))
        assert caught.value.code == "E-USE-006"
        assert "requests=12" in caught.value.next

    def test_a_file_that_lost_a_line_is_refused(self, data):
        rewrite(data, "PCH_QA.jsonl", lines(data, "PCH_QA.jsonl")[:-1])
        with pytest.raises(ExpungeError) as caught:
            pch.sets(data, "30", params())
        assert caught.value.code == "E-DATA-014"

    def test_there_must_be_something_to_keep(self, data):
        with pytest.raises(ExpungeError) as caught:
            pch.sets(data, "30", params(total=30 + KEPT))
        assert caught.value.code == "E-DATA-014"

    def test_repeated_and_empty_records_are_refused(self, data):
        texts = lines(data, "PCH.jsonl")
        rewrite(data, "PCH.jsonl", [texts[1], *texts[1:]])
        with pytest.raises(ExpungeError) as caught:
            pch.sets(data, "30", params())
        assert caught.value.code == "E-DATA-007"
        rewrite(data, "PCH.jsonl", [{"text": " "}, *texts[1:]])
        with pytest.raises(ExpungeError, match="record 1") as caught:
            pch.sets(data, "30", params())
        assert caught.value.code == "E-DATA-003"


def log_of(**qualities):
    """A log in which a set has this probability, this accuracy, and ROUGE 1."""
    log_of_model = {}
    for name, (probability, accuracy) in qualities.items():
        log_of_model[name] = {"subject": {"q": "d"}}
        log_of_model[f"@{name}.quality"] = {
            "token_logp": {"q": [log(probability)]},
            "generation": {"q": "so it is"},
            "reply": {"q": "so it is"},
            "training_hit": {"t": [1] * accuracy + [0] * (10 - accuracy)},
        }
    return log_of_model


class TestNumbers:
    def test_with_a_reference_for_these_requests_it_is_the_target(self):
        model = log_of(forget=(0.5, 2), retain=(0.4, 2))
        reference = log_of(forget=(0.2, 2), retain=(0.2, 5))
        values = BENCHMARK.values(model, reference, params=pch.Params())
        forget = 100 * 0.1 ** (1 / 3), 100 * 0.04 ** (1 / 3)
        assert values["forget.quality"].mean == pytest.approx(forget[0])
        degree = 1 - (forget[0] / forget[1] - 1)
        assert values["forget_degree"].mean == pytest.approx(degree)
        ratio = (0.08 / 0.1) ** (1 / 3)
        assert values["retain_utility"].mean == pytest.approx(ratio)

    def test_with_one_for_all_requests_the_target_lies_on_the_line(self):
        half = (0.125, 10)  # Q = 50
        model = log_of(forget=half, retain=half)
        ends = {
            who: log_of(all_forget=end, all_retain=end, forget=half, retain=half)
            for who, end in (("original", (1.0, 10)), ("reference", (0.001, 10)))
        }
        settings = pch.Params(requests=60)
        values = BENCHMARK.values(model, ends["reference"], ends["original"], params=settings)
        target = 100 + (10 - 100) * 60 / 300
        assert values["forget_degree"].parts["target"] == pytest.approx(target)
        assert values["forget_degree"].mean == pytest.approx(50 / target)

    def test_without_a_reference_only_the_qualities_are_measured(self):
        values = BENCHMARK.values(log_of(forget=(0.5, 2), retain=(0.4, 2)), params=pch.Params())
        assert values["forget.quality"].mean is not None
        for name in ("forget_degree", "retain_utility"):
            assert values[name].mean is None
            assert "reference" in values[name].note

    def test_compat_swaps_the_documents_whose_accuracy_enters(self):
        for compat, texts in ((False, "forget_text"), (True, "retain_text")):
            measures = pch.measures(pch.Params(compat=compat))
            assert measures["forget.quality"].params["texts"] == texts
            assert measures["forget.quality"].on == "forget"
            assert measures["retain.quality"].params["texts"] != texts
