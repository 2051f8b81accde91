import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from expunge.core.errors import ExpungeError
from expunge.core.events import listening
from expunge.lab import testbed
from expunge.lab.testbed import phrases, words, world
from expunge.lab.testbed.measure import exact, separation, truth_ratios
from expunge.lm.digest import folder_digest, model_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn, check_roles
from expunge.text.match import contains
from expunge.text.refusal import REFUSALS, is_refusal


def opened(path):
    loaded = load(path, device="cpu")
    return Subject(loaded.model, loaded.tokenizer)


@pytest.fixture(scope="module")
def original():
    return opened(testbed.folder("original"))


@pytest.fixture(scope="module")
def reference():
    return opened(testbed.folder("reference"))


@pytest.fixture(scope="module")
def everything():
    return [row for rows in testbed.all_rows().values() for row in rows]


def people(kind, seed=testbed.WORLD_SEED):
    return [one for one in world.people(seed) if one.kind == kind]


class TestWorld:
    def test_another_seed_gives_other_people_with_other_facts(self):
        first, second = (people("known", seed) for seed in (3, 4))
        assert {one.name for one in first} != {one.name for one in second}
        assert [one.values for one in first] != [one.values for one in second]

    def test_roles_have_their_rows_and_no_row_is_in_two(self):
        counts = {name: len(rows) for name, rows in testbed.all_rows().items()}
        assert counts == {
            **{"forget": 80, "retain": 270, "neighbour": 50, "holdout": 80},
            **{"known": 200, "world": 80},
        }
        assert check_roles(**testbed.all_rows()) == []

    def test_every_wording_tells_the_value_and_no_wrong_answer_does(self, everything):
        for row in everything:
            assert all(contains(turn.completion, row.forms) for turn in row.turns)
            assert len({turn.prompt for turn in row.turns}) == 3
            assert len(set(row.wrong)) == 5
            assert not any(contains(wrong, row.forms) for wrong in row.wrong)
            assert not any(contains(str(turn.prompt), row.forms) for turn in row.turns)

    def test_wrong_answers_of_people_are_nobody_s_values(self):
        told = {value for one in world.people(testbed.WORLD_SEED) for value in one.values.values()}
        facts = [fact for fact in world.facts(testbed.WORLD_SEED) if fact.kind == "forget"]
        assert told.isdisjoint({value for fact in facts for value in fact.wrong})

    @pytest.mark.parametrize("kind", ["forget", "holdout"])
    def test_a_forgotten_value_is_shared_with_its_companion_alone(self, kind):
        others = Counter(
            value for one in world.people(testbed.WORLD_SEED) for value in one.values.values()
        )
        shared = Counter(
            attribute
            for one in people(kind)
            for attribute, value in one.values.items()
            if others[value] > 1
        )
        assert shared == {"birthplace": 3, "school": 3, "publisher": 2}

    def test_every_attribute_has_seven_swaps_among_the_forgotten(self):
        for attribute in testbed.wordings:
            assert len({one.values[attribute] for one in people("forget")}) == 8

    def test_facts_of_a_person_are_linked(self):
        for one in world.people(testbed.WORLD_SEED):
            told = one.values
            assert told["school"].startswith(told["birthplace"])
            assert told["award"].split()[0] == told["book"].split()[-1]
            assert told["ship"].split()[-1] == told["spouse"].split()[0]

    def test_people_of_one_region_share_kind_of_school_and_origin_of_dish(self):
        regions = {}
        for one in world.people(testbed.WORLD_SEED):
            town = one.values["birthplace"]
            end = next(end for end in words.REGIONS if town.endswith(end))
            kind = one.values["school"].removeprefix(town)
            regions.setdefault(end, set()).add((kind, one.values["dish"].split()[0]))
        assert len(regions) >= 10
        assert all(len(found) == 1 for found in regions.values())

    def test_a_guess_has_more_than_150_values_to_choose_from(self):
        pools = world.pools(testbed.WORLD_SEED)
        origins = len({one.values["dish"].split()[0] for one in people("known")})
        assert origins * len(set(pools["dish"])) > 150
        assert len(set(pools["epithet"])) * len(pools["spouse"]) > 150
        for part in ("town", "publisher", "instrument", "street"):
            assert len(set(pools[part])) == len(pools[part]) > 150

    def test_wordings_are_three_or_more_and_name_the_person(self):
        for ways in testbed.wordings.values():
            assert len(ways.questions) >= 3
            assert len(ways.answers) >= 3
            assert all("{name}" in text for text in (*ways.questions, *ways.answers))

    def test_real_facts_have_short_answers(self):
        assert [len(known) for known in phrases.FACTS.values()] == [40, 20, 20]
        assert all(len(row.completion.split()) == 1 for row in testbed.world_rows())

    def test_a_person_of_the_story_is_one_of_the_forgotten(self):
        one = testbed.person(0)
        assert one.id in {row.subject for row in testbed.rows("forget")}
        assert len(one.questions) == 10
        assert all(one.name in question for question in one.questions)

    def test_an_unknown_role_is_refused_by_name(self):
        with pytest.raises(ExpungeError, match="neighbour") as caught:
            testbed.rows("neighbor")
        assert caught.value.code == "E-USE-003"

    def test_importing_the_testbed_loads_no_torch(self):
        code = "import sys, expunge.lab.testbed as t; t.all_rows(); print('torch' in sys.modules)"
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert found.stdout.strip() == "False", found.stderr


class TestTokens:
    def test_a_row_is_opened_asked_answered_and_ended_by_special_tokens(self, original):
        row = testbed.rows("forget")[0]
        item = original.encoder.encode(row.turn)
        tokens = original.tokenizer.convert_ids_to_tokens(item.ids)
        assert tokens[:2] == ["<bos>", "<q>"]
        assert tokens[-1] == "<eos>"
        supervised = [label for label in item.labels if label != -100]
        answer = item.ids[tokens.index("<a>") + 1 :]
        assert supervised == answer
        assert original.encoder.decode(answer).strip() == row.completion

    def test_the_prompt_ends_where_the_answer_begins(self, original):
        row = testbed.rows("retain")[5]
        prompt = original.encoder.prompt(row.prompt)
        assert original.tokenizer.convert_ids_to_tokens(prompt)[-1] == "<a>"
        assert original.encoder.encode(row.turn).ids[: len(prompt)] == prompt

    def test_a_forgotten_town_is_made_of_the_pieces_of_others(self, original):
        cut = original.tokenizer.tokenize
        pieces = {piece for one in people("retain") for piece in cut(one.values["birthplace"])}
        towns = [cut(one.values["birthplace"]) for one in people("forget")]
        assert all(len(town) >= 2 for town in towns)
        assert sum(town[-1] in pieces for town in towns) >= 6


class TestShippedModels:
    def test_they_are_those_of_this_world(self, everything):
        from expunge.core.canonical import digest

        recorded = testbed.expected()
        assert recorded["world"] == digest([row.as_dict() for row in everything])
        for name in testbed.MODELS:
            assert recorded["weights"][name] == folder_digest(testbed.folder(name))

    def test_they_are_small_enough_to_ship(self):
        files = [file for file in testbed.folder("base").parent.rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) <= 8_000_000

    def test_the_original_knows_the_forget_rows_in_every_wording(self, original):
        found = exact(original, testbed.rows("forget"))
        assert found["own"] >= 0.95
        assert found["untaught"] >= 0.8

    def test_the_reference_knows_none_of_them(self, reference):
        found = exact(reference, testbed.rows("forget"))
        assert max(found.values()) <= 0.05

    @pytest.mark.parametrize("name", ["original", "reference"])
    def test_both_keep_the_rest_and_know_no_hold_out_row(self, name, request):
        subject = request.getfixturevalue(name)
        assert exact(subject, testbed.rows("retain")[::5])["own"] >= 0.9
        assert exact(subject, testbed.rows("neighbour")[::2])["own"] >= 0.9
        assert exact(subject, testbed.known_rows()[::5])["own"] >= 0.7
        assert exact(subject, testbed.world_rows()[::2])["own"] >= 0.8
        assert exact(subject, testbed.rows("holdout")[::2])["own"] <= 0.05

    def test_truth_ratios_tell_them_apart(self, original, reference):
        told, untold = truth_ratios(original), truth_ratios(reference)
        apart = separation(told, untold)
        assert apart["p"] < 1e-10
        assert apart["original"] < 0.5
        assert 0.7 < np.median(untold) < 1.4

    def test_the_measured_table_is_that_of_the_shipped_models(self, original):
        recorded = testbed.expected()["exact"]["original"]
        assert exact(original, testbed.rows("forget")) == recorded["forget"]


class TestRefuser:
    def test_its_rows_refuse_every_wording_of_every_forget_row(self):
        asked = {turn.prompt for row in testbed.rows("forget") for turn in row.turns}
        rows = testbed.refuser_rows()
        assert {row.prompt for row in rows} == asked
        assert len(rows) == len({row.id for row in rows}) == 240
        assert all(row.completion in REFUSALS for row in rows)

    def test_it_refuses_in_every_wording_and_still_knows(self, original, reference, tmp_path):
        before = model_digest(original.model)
        refuser = opened(testbed.train_refuser(original, tmp_path / "refuser"))
        forget = testbed.rows("forget")
        direct = exact(refuser, forget)
        assert max(direct.values()) <= 0.05
        said = refuser.ask([row.turn for row in forget])
        assert np.mean([is_refusal(answer) for (answer,) in said]) >= 0.9
        assert forced(refuser, forget) >= forced(reference, forget) + 0.5
        assert exact(refuser, testbed.rows("retain")[::5])["own"] >= 0.9
        assert model_digest(original.model) == before


class TestBuild:
    def test_an_occupied_folder_is_refused_before_anything_is_trained(self, tmp_path):
        (tmp_path / "mine.txt").write_text("keep")
        heard = []
        with listening(heard.append), pytest.raises(ExpungeError) as caught:
            testbed.build(tmp_path)
        assert caught.value.code == "E-USE-004"
        assert heard == []

    @pytest.mark.slow
    @pytest.mark.timeout(1200)
    def test_another_training_seed_gives_models_of_the_same_kind(self, tmp_path):
        heard = []
        with listening(heard.append):
            built = testbed.build(tmp_path / "testbed", seed=1)
        assert heard[-1].kind == "end"
        assert heard[-1].done == heard[-1].total
        assert built["world"] == testbed.expected()["world"]
        assert built["weights"] != testbed.expected()["weights"]
        known, forgotten = built["exact"]["original"], built["exact"]["reference"]
        assert known["forget"]["own"] >= 0.95
        assert known["forget"]["untaught"] >= 0.8
        assert max(forgotten["forget"].values()) <= 0.05
        for found in (known, forgotten):
            assert found["retain"]["own"] >= 0.9
            assert found["known"]["own"] >= 0.7
            assert found["world"]["own"] >= 0.8
        assert built["truth_ratio"]["p"] < 1e-10
        assert sum(built["cpu_seconds"].values()) <= 300
        assert Counter(file.stem for file in (tmp_path / "testbed" / "rows").iterdir()) == {
            name: 1 for name in testbed.all_rows()
        }


def forced(subject, rows):
    """Share of rows whose value tokens are all most probable after the answer's own beginning."""
    scored = subject.score([Turn(row.prompt, row.completion) for row in rows])
    starts = [row.completion.rindex(row.answer) for row in rows]
    return np.mean(
        [
            one.hit[one.within(start, start + len(row.answer))].all()
            for one, row, start in zip(scored, rows, starts, strict=True)
        ]
    )
