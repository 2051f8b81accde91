"""TOFU cut to twenty authors: the files, the tokenizer, and that training learns."""

from pathlib import Path

import pytest

from expunge.benchmarks import tofu
from expunge.core.errors import ExpungeError
from expunge.lab.benchmark import Benchmark
from expunge.lab.tofu_tiny import SPLIT, build_tofu, make_tokenizer, write_cut
from expunge.lm.gather import Models
from expunge.lm.load import load
from expunge.lm.subject import Subject

UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "tofu"
PARAMS = tofu.Params()

pytestmark = pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the upstream files are not here")


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    write_cut(UPSTREAM, folder)
    return folder


def test_cut_has_the_upstream_shape_with_a_tenth_of_the_authors(cut):
    roles = tofu.splits(cut, SPLIT, PARAMS)
    assert {role: len(rows) for role, rows in roles.items()} == {"forget": 40, "retain": 360}
    assert {row.subject for row in roles["forget"]} == {"author-18", "author-19"}
    sets = tofu.sets(cut, SPLIT, PARAMS)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget": 40, "retain": 360, "real_authors": 100, "world_facts": 117,
    }  # fmt: skip


def test_forgotten_rows_are_those_of_the_smallest_upstream_split(cut):
    upstream = tofu.splits(UPSTREAM, "forget01", PARAMS)["forget"]
    here = tofu.splits(cut, SPLIT, PARAMS)["forget"]
    assert [row.id for row in here] == [row.id for row in upstream]


def test_tokenizer_restores_every_text_and_fits_the_positions(cut):
    roles = tofu.splits(cut, SPLIT, PARAMS)
    rows = [*roles["retain"], *roles["forget"]]
    tokenizer = make_tokenizer(rows)
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    assert tokenizer.batch_decode(tokenizer(texts).input_ids, skip_special_tokens=True) == texts
    assert max(map(len, tokenizer(texts).input_ids)) < 200


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_tofu(UPSTREAM, tmp_path_factory.mktemp("built") / "tofu", epochs=1)


def test_models_load_and_have_learned_their_own_rows(built):
    forget = tofu.splits(Path(built["data"]), SPLIT, PARAMS)["forget"]
    levels = {}
    for name in ("original", "reference"):
        loaded = load(built[name])
        scores = Subject(loaded.model, loaded.tokenizer).score([row.turn for row in forget])
        levels[name] = sum(score.nll for score in scores) / len(scores)
    untrained = 7.6  # log of the vocabulary
    assert levels["original"] < levels["reference"] < untrained - 0.5


def test_a_folder_in_use_is_left_alone(built):
    with pytest.raises(ExpungeError) as refusal:
        build_tofu(UPSTREAM, Path(built["data"]), epochs=1)
    assert refusal.value.code == "E-USE-004"


@pytest.mark.slow
def test_original_knows_by_heart_what_the_reference_never_saw(tmp_path):
    built = build_tofu(UPSTREAM, tmp_path / "tofu")
    rows = {"forget": tofu.sets(Path(built["data"]), SPLIT, PARAMS)["forget"]}
    strength = {}
    for name in ("original", "reference"):
        loaded = load(built[name])
        models = Models(model=Subject(loaded.model, loaded.tokenizer))
        log = Benchmark.load("tofu").evaluate(models, rows, PARAMS)
        hits = log["forget"]["token_hit"].values()
        strength[name] = sum(all(row) for row in hits) / len(hits)
    assert strength["original"] > 0.95
    assert strength["reference"] == 0
    assert sum(built["cpu_seconds"].values()) < 360
