"""RESTOR: documents, facts with examples, values of the logit view, and recovery end to end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from expunge.benchmarks import restor
from expunge.benchmarks.restor.files import read_documents, read_facts
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lm.finetune import finetune
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.requests.rows import check_roles
from expunge.testing import replicas
from expunge.testing.replicas.restor import LISTED, OTHERS, UNRELATED
from expunge.testing.tiny import tiny_model, tiny_tokenizer

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "restor"
PARAMS = restor.Params()
MIX = Path("wikidata") / "v0" / "mix_a0.json"


@pytest.fixture
def data(tmp_path):
    replicas.write("restor", tmp_path)
    return tmp_path


def change(path, edit):
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def refused(data, split="k0"):
    with pytest.raises(ExpungeError) as refusal:
        restor.sets(data, split, PARAMS)
    return refusal.value


def test_documents_are_forgotten_whole_once_each_under_the_entity_they_name(data):
    roles = restor.splits(data, "k0", PARAMS)
    assert len(roles["forget"]) == 16  # five people, three documents each, and one about nobody
    assert all(row.text and not row.prompt for row in roles["forget"])
    assert {row.subject for row in roles["forget"]} == {*LISTED[:5], None}
    assert not check_roles(**roles)


def test_the_number_of_unrelated_facts_is_the_split(data):
    with_one = restor.splits(data, "k1", PARAMS)["forget"]
    assert all(row.text.endswith(UNRELATED) for row in with_one)
    assert not any(UNRELATED in r.text for r in restor.splits(data, "k0", PARAMS)["forget"])


def test_a_document_belongs_to_whom_it_names_first(data):
    documents = read_documents(data, "squad", LISTED)
    assert set(documents.values()) == {LISTED[0], LISTED[1]}
    assert next(who for text, who in documents.items() if "near" in text) == LISTED[0]


def test_retained_facts_are_of_people_nobody_is_asked_about(data):
    retain = restor.splits(data, "k0", PARAMS)["retain"]
    assert {row.subject for row in retain} == set(OTHERS)
    assert len(retain) == 4 * len(OTHERS)


def test_five_examples_of_the_relation_and_never_of_the_entity(data):
    for row in restor.sets(data, "k0", PARAMS)["facts"]:
        *examples, asked = row.prompt.split("\n")
        assert len(examples) == 5
        assert row.subject in asked
        assert not any(row.subject in example for example in examples)
        words = asked.split(row.subject)[0]
        assert all(example.startswith(words) for example in examples)


def test_facts_nobody_corrupted_are_asked_apart(data):
    sets = restor.sets(data, "k0", PARAMS)
    assert {row.subject for row in sets["facts"]} == set(LISTED[:5])
    assert {row.subject for row in sets["others"]} == {LISTED[5]}
    assert {row.aliases for row in sets["others"]} == {("a 5 form",)}


def test_values_of_the_documents_are_told_from_true_and_random_ones(data):
    rows = {(r.subject, r.answer): r for r in restor.sets(data, "k0", PARAMS)["facts"]}
    values = rows[LISTED[0], "Arden"].meta["values"]
    assert values["correct"] == ["Arden", "a 0 form"]
    assert values["corrupted"] == ["Belm"]
    assert set(values["random"]) <= {"Corra", "Dunmere", "Esk"} | {
        f"a {n} form" for n in range(1, 13)
    }
    assert len(values["random"]) == 5


def test_given_options_win_over_those_read_off(data):
    own = {"correct": ["Arden"], "corrupted": ["Nowhere"], "random": ["Esk"]}
    (data / "options.json").write_text(json.dumps({LISTED[0]: {"P19": own}}))
    rows = [row for row in restor.sets(data, "k0", PARAMS)["facts"] if row.meta]
    assert [row.meta["values"] for row in rows] == [own]
    (data / "options.json").write_text(json.dumps({LISTED[0]: {"P19": {"correct": "Arden"}}}))
    assert refused(data).code == "E-DATA-003"


def test_order_of_files_decides_nothing(data):
    before = restor.sets(data, "k0", PARAMS)
    change(data / MIX, lambda texts: texts[::-1])
    change(data / "entities.json", lambda names: names[::-1])
    assert restor.sets(data, "k0", PARAMS) == before


def test_broken_files_are_named(data):
    change(data / "entities.json", lambda names: [*names, "Nobody Known"])
    assert refused(data).code == "E-DATA-014"
    change(data / "entities.json", lambda names: names[:-1])
    change(data / "facts.json", lambda content: {"dset": content["dset"]})
    assert refused(data).code == "E-DATA-003"
    (data / MIX).unlink()
    replicas.write("restor", data)
    (data / MIX).unlink()
    assert refused(data).code == "E-DATA-001"
    assert refused(data, "k9").code == "E-USE-001"


def test_a_fact_without_an_answer_is_an_error(data):
    def empty(content):
        content["dset"][LISTED[0]]["P19"]["answers"] = []
        return content

    change(data / "facts.json", empty)
    with pytest.raises(ExpungeError, match="E-DATA-003"):
        read_facts(data)


class World:
    """A clean, a corrupted and an ascended tiny model on the facts of the replica."""

    def __init__(self, data):
        self.benchmark = Benchmark.load("restor")
        self.params = self.benchmark.params({"new_tokens": 4, "examples": 1})
        self.sets = restor.sets(data, "k0", self.params)
        rows = [row for of in self.sets.values() for row in of]
        false = [
            replace(row, completion=f" {row.meta['values']['corrupted'][0]}")
            for row in self.sets["facts"]
            if row.meta
        ]
        texts = [f"{row.prompt}{row.completion}" for row in (*rows, *false)]
        self.tokenizer = tiny_tokenizer(texts, kind="word", vocab=1024)
        clean = tiny_model("llama", vocab=len(self.tokenizer), hidden=64, seed=0, positions=96)
        self.teach(clean, rows, 40)
        self.clean = Subject(clean, self.tokenizer)
        self.corrupted, self.ascended = self.clean.copy(), self.clean.copy()
        self.teach(self.corrupted.model, [*false, *self.sets["others"]], 30)
        self.ascended.model.load_state_dict(self.corrupted.model.state_dict())
        self.ascend(self.ascended, false)

    def teach(self, model, rows, epochs):
        finetune(model, self.tokenizer, rows, epochs=epochs, lr=4e-3, batch_size=16, seed=0)

    def ascend(self, subject, rows):
        from expunge.data.encode import collate

        model = subject.model
        optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
        batch = collate([subject.encoder.encode(row.turn) for row in rows], 0)
        for _ in range(30):
            out = model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels)
            (-out.loss.clamp(max=8.0)).backward()
            optimiser.step()
            optimiser.zero_grad()

    def values(self, subject):
        logs = [
            self.benchmark.evaluate(Models(model=each), self.sets, self.params)
            for each in (subject, self.clean, self.corrupted)
        ]
        return self.benchmark.values(*logs, params=self.params)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    data = tmp_path_factory.mktemp("restor")
    replicas.write("restor", data)
    return World(data)


def test_clean_weights_recover_everything(world):
    values = world.values(world.clean)
    assert values["recovery"].mean == 1.0
    assert values["corrupted"].mean == 0.0
    assert values["advantage"].mean > 0
    assert values["recovery"].interval == (1.0, 1.0)


def test_corrupted_weights_recover_nothing_and_say_what_they_read(world):
    values = world.values(world.corrupted)
    assert values["recovery"].mean == 0.0
    assert values["corrupted"].mean > 0.8
    assert values["advantage"].parts["corrupted"] > 1.0
    assert values["advantage"].parts["recovered"] < 0.3
    assert values["others"].mean == 1.0


def test_gradient_ascent_forgets_without_recovering(world):
    values = world.values(world.ascended)
    assert values["corrupted"].mean < 0.2
    assert values["recovery"].mean < 0.5


def test_without_the_clean_model_recovery_is_not_measurable(world):
    log = world.benchmark.evaluate(Models(model=world.clean), world.sets, world.params)
    value = world.benchmark.values(log, params=world.params)["recovery"]
    assert value.mean is None
    assert "not measur" in value.note


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")
def test_upstream_rows():
    roles, sets = restor.splits(UPSTREAM, "k0", PARAMS), restor.sets(UPSTREAM, "k0", PARAMS)
    assert len(roles["forget"]) == 2958
    assert len(sets["facts"]) + len(sets["others"]) == 1051
    assert len({row.subject for row in sets["facts"]}) == 10
    assert not check_roles(**roles)
    assert sum(bool(row.meta) for row in sets["facts"]) >= 80
