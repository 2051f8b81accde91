"""ConceptVectors: its file with all its traps, and what its numbers say of an edited vector."""

import json
from pathlib import Path

import pytest
import torch

from expunge.benchmarks import conceptvectors
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.lm.traces import Trace, needle, value_vector
from expunge.testing.replicas.conceptvectors import CONCEPTS, write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "conceptvectors"
real = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")

SPLIT = "llama2-7b_dev"
FILE = "llama2-7b_concepts_dev.json"
PARAMS = conceptvectors.Params(new_tokens=4)
ONE = conceptvectors.Params(concept="Drelk", new_tokens=4)


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    return tmp_path


def change(folder, edit):
    path = folder / FILE
    found = json.loads(path.read_text())
    path.write_text(json.dumps(edit(found) or found))


def ids(sets):
    return {name: [row.id for row in rows] for name, rows in sets.items()}


class TestRows:
    def test_prompts_are_those_of_upstream(self, data):
        sets = conceptvectors.sets(data, SPLIT, ONE)
        assert "Question:  What is Drelk?\n\n Answer:" in {row.prompt for row in sets["qa"]}
        (half,) = sets["completion"]
        assert half.prompt == (
            "Please complete the following paragraph: It was first described by Pau Sirin"
        )
        assert half.completion == " in 1790"
        (concept,) = sets["concepts"]
        assert concept.meta == {"layer": 1, "dim": 24}
        assert concept.subject == "Drelk"

    def test_without_the_given_place_it_is_to_be_searched_for(self, data):
        params = conceptvectors.Params(trace="search")
        assert all(not row.meta for row in conceptvectors.sets(data, SPLIT, params)["concepts"])

    def test_all_concepts_are_forgotten_at_once_unless_one_is_named(self, data):
        every = conceptvectors.splits(data, SPLIT, PARAMS)
        assert every.keys() == {"forget"}
        assert {row.subject for row in every["forget"]} == set(CONCEPTS)
        one = conceptvectors.splits(data, SPLIT, ONE)
        assert {row.subject for row in one["forget"]} == {"Drelk"}
        assert {row.subject for row in one["retain"]} == set(CONCEPTS) - {"Drelk"}

    def test_paragraphs_end_behind_a_sentence_and_hold_the_whole_article(self, data):
        rows = conceptvectors.splits(data, SPLIT, ONE)["forget"]
        article = " ".join(json.loads((data / FILE).read_text())[3]["wikipedia_content"].split())
        assert len({row.text for row in rows}) == len(rows)
        assert all(row.text in article for row in rows)
        assert all(row.text.endswith((".", "?")) for row in rows)
        assert not any(row.text.endswith("e.g.") for row in rows)
        assert all(len(row.text) > 400 for row in rows[:-1])

    def test_unrelated_questions_never_ask_about_what_is_to_be_forgotten(self, data):
        every = conceptvectors.sets(data, SPLIT, PARAMS)
        assert not {r.prompt for r in every["unrelated"]} & {r.prompt for r in every["qa"]}
        # one question of each list and the one that stands in all of them
        assert len(every["unrelated"]) == len(CONCEPTS) + 1
        alone = conceptvectors.sets(data, SPLIT, ONE)
        assert len(alone["unrelated"]) == 4

    def test_the_order_of_the_file_changes_nothing_also_where_rows_are_cut(self, data):
        few = conceptvectors.Params(rows=3)
        before = [ids(conceptvectors.sets(data, SPLIT, params)) for params in (PARAMS, few)]
        change(data, lambda found: list(reversed(found)))
        after = [ids(conceptvectors.sets(data, SPLIT, params)) for params in (PARAMS, few)]
        assert after == before
        assert all(len(rows) <= 3 for rows in before[1].values())

    def test_numbers_in_the_table_say_which_way_is_good(self):
        measures = conceptvectors.measures(PARAMS)
        better = {name: measure.direction for name, measure in measures.items()}
        assert [name for name, way in better.items() if way == "high"] == [
            "trace.distance",
            "unrelated.bleu",
            "unrelated.rouge_l",
        ]


class TestBrokenFiles:
    @pytest.mark.parametrize("column", conceptvectors.COLUMNS)
    def test_a_missing_column_is_named(self, data, column):
        change(data, lambda found: found[1].pop(column) and None)
        with pytest.raises(ExpungeError, match=f"E-DATA-003.*record 2.*{column}"):
            conceptvectors.sets(data, SPLIT, PARAMS)

    @pytest.mark.parametrize(
        "edit",
        [
            lambda found: found[2]["QA"].append(None),
            lambda found: found[2]["QA"].append(" "),
            lambda found: found[2]["unrelated_QA"].append(3),
            lambda found: found[2]["text_completion"].append("half"),
            lambda found: found[2]["text_completion"][0].pop("Second_half") and None,
        ],
    )
    def test_lists_that_hold_something_else_are_refused_by_concept(self, data, edit):
        change(data, edit)
        with pytest.raises(ExpungeError, match=r"E-DATA-003.*Sable Heron"):
            conceptvectors.sets(data, SPLIT, PARAMS)

    def test_a_concept_that_stands_twice_is_refused(self, data):
        change(data, lambda found: found.append(found[0]))
        with pytest.raises(ExpungeError, match="E-DATA-007"):
            conceptvectors.sets(data, SPLIT, PARAMS)

    def test_unknown_names_are_refused_with_the_nearest(self, data):
        with pytest.raises(ExpungeError, match=r"E-USE-001.*'Drelk'"):
            conceptvectors.sets(data, SPLIT, conceptvectors.Params(concept="Drelq"))
        with pytest.raises(ExpungeError, match="E-USE-001"):
            conceptvectors.sets(data, "dev", PARAMS)
        with pytest.raises(ExpungeError, match="E-DATA-001"):
            conceptvectors.sets(data, "olmo-7b_test", PARAMS)


def subject(sets, seed=0):
    texts = [f"{row.training.prompt} {row.training.completion}" for r in sets.values() for row in r]
    tokenizer = tiny_tokenizer(texts[:200], vocab=400)
    return Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer)


def summary(model, original, sets, params=PARAMS):
    benchmark = Benchmark.load("conceptvectors")
    log = benchmark.evaluate(Models(model=model, original=original), sets, params)
    stored = json.loads(json.dumps(log, allow_nan=False))
    return benchmark.summarise(stored, params=params)


class TestNumbers:
    def test_the_original_agrees_with_itself(self, data):
        sets = conceptvectors.sets(data, SPLIT, PARAMS)
        original = subject(sets)
        found = summary(original.copy(), original, sets)
        assert found["trace"] == pytest.approx(
            {"cosine": 1.0, "distance": 0.0, "jaccard": 1.0, "related": 1.0}
        )
        for name in ("qa", "completion", "unrelated"):
            assert found[name]["rouge_l"] == pytest.approx(1.0)

    def test_noise_in_one_vector_shows_in_the_trace_of_its_concept_alone(self, data):
        sets = conceptvectors.sets(data, SPLIT, PARAMS)
        original = subject(sets)
        changed = original.copy()
        place = Trace(1, 24)
        with needle(changed.model, place, deviation=1.0):
            noise = value_vector(changed.model, place) - value_vector(original.model, place)
            found = summary(changed, original, sets)
        (drelk,) = [row.id for row in sets["concepts"] if row.subject == "Drelk"]
        cosine = found["values"]["trace.cosine"]["per_row"]
        assert cosine.pop(drelk) < 0.9
        assert list(cosine.values()) == pytest.approx([1.0] * 4)
        distance = found["values"]["trace.distance"]["per_row"][drelk]
        assert distance == pytest.approx(float(torch.linalg.norm(noise.detach())), rel=1e-4)

    def test_without_the_original_every_number_says_so(self, data):
        sets = conceptvectors.sets(data, SPLIT, ONE)
        found = summary(subject(sets), None, sets, ONE)
        assert all(each["mean"] is None for each in found["values"].values())
        assert all("not measurable" in note for note in found["notes"].values())
        assert found["notes"].keys() == found["values"].keys()


@real
class TestUpstream:
    def test_its_rows(self):
        sets = conceptvectors.sets(UPSTREAM, SPLIT, conceptvectors.Params(rows=1000))
        assert {name: len(rows) for name, rows in sets.items()} == {
            "concepts": 10,
            "qa": 100,
            "completion": 91,
            "unrelated": 350,
        }
        assert all(row.meta.keys() == {"layer", "dim"} for row in sets["concepts"])

    def test_one_concept_at_a_time_is_the_papers_protocol(self):
        params = conceptvectors.Params(concept="Baseball")
        sets = conceptvectors.sets(UPSTREAM, SPLIT, params)
        assert [len(sets[name]) for name in ("qa", "completion", "unrelated")] == [10, 10, 50]
        roles = conceptvectors.splits(UPSTREAM, SPLIT, params)
        assert len(roles["forget"]) > 50
        assert len({row.id for row in roles["retain"]}) == len(roles["retain"])

    def test_the_places_are_those_of_another_model_and_can_be_searched_for(self):
        sets = conceptvectors.sets(UPSTREAM, SPLIT, conceptvectors.Params(rows=2, new_tokens=2))
        original = subject(sets)
        with pytest.raises(ExpungeError, match="E-USE-003"):
            summary(original.copy(), original, sets)
        params = conceptvectors.Params(rows=2, new_tokens=2, trace="search")
        found = summary(original.copy(), original, conceptvectors.sets(UPSTREAM, SPLIT, params))
        assert found["trace"]["cosine"] == pytest.approx(1.0)
        assert found["trace"]["jaccard"] == 1.0
