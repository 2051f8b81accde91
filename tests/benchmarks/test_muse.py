"""MUSE: its files, how its rows are asked, and the numbers of published logs."""

import json
import math
import shutil
from pathlib import Path

import pytest

from expunge.benchmarks import muse
from expunge.core.errors import ExpungeError
from expunge.lab.bench import run_bench
from expunge.lab.benchmark import Benchmark
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.testing.replicas.muse import write
from expunge.testing.tiny import tiny_model, tiny_tokenizer

DATA = Path(__file__).parents[3] / "shared" / "data"
LOGS = DATA / "muse_eval_logs"
TARGET, RETRAINED = (
    LOGS / f"Llama-2-7b-hf_Books_{name}" / "MUSE_EVAL_scores.json" for name in ("target", "retrain")
)
MUSE = Benchmark.load("muse")
PARAMS = muse.Params()
FOUR = ("verbmem", "knowmem_forget", "privleak", "knowmem_retain")

with_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")


@pytest.fixture
def data(tmp_path):
    write(tmp_path)
    return tmp_path


def refused(folder, split="news"):
    with pytest.raises(ExpungeError) as refusal:
        read(folder, split)
    return refusal.value


def read(folder, split):
    muse.splits(folder, split, PARAMS)
    muse.sets(folder, split, PARAMS)


def edit(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_questions_stand_after_the_worked_examples_of_their_own_side(data):
    for side in ("forget", "retain"):
        (row, *_) = muse.sets(data, "news", PARAMS)[f"knowmem_{side}"]
        shown = json.loads((data / f"news/knowmem/{side}_qa_icl.json").read_text())
        asked = json.loads((data / f"news/knowmem/{side}_qa.json").read_text())[0]
        blocks = "".join(f"Question: {e['question']}\nAnswer: {e['answer']}\n\n" for e in shown)
        assert row.prompt == f"{blocks}Question: {asked['question']}\nAnswer: "
        assert row.completion == asked["answer"]


def test_a_text_goes_on_where_its_beginning_ends(data):
    rows = muse.sets(data, "books", PARAMS)["verbmem"]
    whole = json.loads((data / "books/raw/forget.json").read_text())
    assert [row.prompt + row.completion for row in rows] == whole


def test_each_request_of_a_series_has_rows_of_its_own_and_the_same_evaluation(data):
    assert set(muse.CARD["splits"]) == set(muse.files.REQUESTS)
    asked = {
        split: {row.id for row in muse.splits(data, split, PARAMS)["forget"]}
        for split in muse.CARD["splits"]
    }
    assert len({frozenset(ids) for ids in asked.values()}) == len(asked)
    sizes = [len(asked[f"news-scal-{fold}"]) for fold in (1, 2, 3, 4)]
    assert sizes == sorted(set(sizes))
    sets = [muse.sets(data, split, PARAMS) for split in ("news", "news-scal-3", "news-sust-4")]
    assert sets[0] == sets[1] == sets[2]
    assert sets[0] != muse.sets(data, "books", PARAMS)


def test_long_texts_are_trained_on_in_pieces_that_together_are_the_text(data):
    whole = json.loads((data / "news/raw/forget.json").read_text())
    rows = muse.splits(data, "news", muse.Params(words=9))["forget"]
    assert max(len(row.text.split()) for row in rows) == 9
    assert "".join(row.text for row in rows) == "".join(whole)
    assert len({row.subject for row in rows}) == len(whole)
    assert len({row.id for row in rows}) == len(rows)
    again = muse.splits(data, "news", muse.Params(words=9))["forget"]
    assert [row.id for row in again] == [row.id for row in rows]


def test_texts_to_score_are_whole_and_plain(data):
    sets = muse.sets(data, "news", muse.Params(words=9))
    for name in ("forget", "retain", "holdout"):
        texts = json.loads((data / f"news/privleak/{name}.json").read_text())
        assert [row.training.completion for row in sets[name]] == texts
        assert all(row.training.running for row in sets[name])


def test_a_question_that_the_authors_repeat_counts_twice_and_is_one_subject(data):
    rows = muse.sets(data, "news", PARAMS)["knowmem_forget"]
    first, again = (row for row in rows if row.prompt == rows[-1].prompt)
    assert first.id != again.id
    assert first.subject == again.subject
    assert len({row.id for row in rows}) == len(rows) == 22
    edit(data / "news/knowmem/forget_qa.json", lambda pairs: pairs[::-1])
    turned = muse.sets(data, "news", PARAMS)["knowmem_forget"]
    assert {row.id for row in turned} == {row.id for row in rows}


def test_a_text_to_forget_and_to_keep_is_refused(data):
    forgotten = json.loads((data / "news/raw/forget.json").read_text())[0]
    edit(data / "news/raw/retain1.json", lambda texts: [*texts, forgotten])
    assert refused(data).code == "E-DATA-006"


@pytest.mark.parametrize(
    ("file", "change", "code"),
    [
        ("raw/forget.json", lambda texts: [*texts, texts[0]], "E-DATA-007"),
        ("raw/forget.json", lambda texts: [*texts, {"text": "?"}], "E-DATA-003"),
        ("raw/forget.json", lambda texts: [], "E-DATA-005"),
        ("privleak/holdout.json", lambda texts: {"text": texts}, "E-DATA-002"),
        ("knowmem/retain_qa.json", lambda rows: [{"question": "?"}], "E-DATA-003"),
        ("knowmem/retain_qa_icl.json", lambda rows: [*rows, rows[0]], "E-DATA-007"),
        ("verbmem/forget.json", lambda rows: [{"prompt": r["prompt"]} for r in rows], "E-DATA-003"),
    ],
)
def test_broken_files_are_named(data, file, change, code):
    edit(data / "news" / file, change)
    error = refused(data)
    assert error.code == code
    assert Path(file).name in str(error)


def test_an_unknown_split_says_which_there_are(data):
    error = refused(data, "news-scal-5")
    assert error.code == "E-USE-001"
    assert "news-scal-4" in str(error)


def made_up(**given):
    """A log whose texts are all scored alike: forget rows 1, hold-out rows 2 unless given."""
    scores = {"forget": [1.0, 3.0], "holdout": [2.0, 4.0]} | given
    forget, holdout = (
        {f"{name}-{n}": of for n, of in enumerate(scores[name])} for name in ("forget", "holdout")
    )
    return {"@privleak": {"score": forget, "holdout.score": holdout}}


def test_privacy_leakage_is_relative_to_the_reference():
    # A = P(hold-out looks more like a member): of four pairs only 2.0 < 3.0, so 1/4.
    reference = made_up(forget=[1.0, 4.0], holdout=[1.0, 4.0])
    value = MUSE.values(made_up(), reference)["privleak"]
    assert value.mean == pytest.approx(100 * (0.25 - 0.5) / 0.5)
    assert MUSE.values(made_up())["privleak"].mean is None
    assert MUSE.values(made_up(), made_up())["privleak"].mean == 0


@pytest.mark.parametrize(
    ("against", "expected"), [("news", 0.4772), ("books", 0.5393), ("half", 0.5)]
)
def test_a_published_reference_is_named_by_its_corpus_and_labelled(against, expected):
    params = muse.Params(against=against)
    value = MUSE.values(made_up(), params=params)["privleak"]
    assert value.mean == pytest.approx(100 * (0.25 - expected) / expected)
    assert f"{expected:g}" in value.note
    assert "no retrained model" in value.note


def test_the_value_of_the_card():
    """A of the model .0031, of the news reference .4772: -99.350377."""
    forget = [float(n) for n in range(100)]
    holdout = [99.5] * 69 + [98.5] * 31  # 31 of 100 x 100 pairs are out of order
    value = MUSE.values(made_up(forget=forget, holdout=holdout), params=muse.Params(against="news"))
    assert value["privleak"].mean == pytest.approx(-99.350377, abs=1e-6)


@pytest.mark.parametrize(("text", "lowest"), [("one", 1), ("a b c d e f", 2)])
def test_a_short_text_is_scored_by_at_least_one_token(text, lowest):
    from expunge.numbers.membership import min_k

    logs = [-float(n) for n in range(1, len(text.split()) + 1)]
    assert min_k(logs, 0.4) == pytest.approx(-sum(sorted(logs)[:lowest]) / lowest)
    assert math.isfinite(min_k(logs, 0.4))


def test_a_model_is_evaluated_on_all_files(data):
    params = muse.Params(rows=3, verbatim_tokens=5, answer_tokens=3)
    sets = muse.sets(data, "news", params)
    texts = [
        f"{row.training.prompt}{row.training.completion}" for of in sets.values() for row in of
    ]
    tokenizer = tiny_tokenizer(texts, vocab=320)
    models = [
        Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer) for seed in (0, 1)
    ]
    logs = [MUSE.evaluate(Models(model=model), sets, params) for model in models]
    values = MUSE.values(*logs, params=params)
    assert all(values[name].mean is not None for name in FOUR)
    assert all(value.note for value in values.values() if value.mean is None)
    cut = logs[0]["@verbmem"]["beginning"]
    row = sets["verbmem"][0]
    assert row.completion.strip().startswith(cut[row.id].strip())
    assert len(tokenizer(cut[row.id], add_special_tokens=False).input_ids) <= 5
    assert cut[row.id] != row.completion


@with_logs
@pytest.mark.parametrize("path", [TARGET, RETRAINED], ids=["target", "retrained"])
def test_published_logs_give_their_summary(path):
    summary = json.loads((path.parent / "MUSE_SUMMARY.json").read_text())
    reference = MUSE.read_log(RETRAINED) if path == TARGET else None
    params = PARAMS if path == TARGET else muse.Params(against="half")
    values = MUSE.values(MUSE.read_log(path), reference, params=params)
    named = {
        "forget_verbmem_ROUGE": values["verbmem"].mean / 100,
        "forget_knowmem_ROUGE": values["knowmem_forget"].mean / 100,
        "retain_knowmem_ROUGE": values["knowmem_retain"].mean / 100,
        "exact_memorization": values["exact_memorisation"].mean,
        "extraction_strength": values["extraction_strength"].mean,
        **{name: value.mean for name, value in values.items() if name.startswith(("mia", "priv"))},
    }
    assert {name: named[name] for name in summary} == pytest.approx(summary, rel=1e-6)


@with_logs
def test_the_published_reference_of_books_is_near_the_one_in_the_logs():
    values = MUSE.values(MUSE.read_log(RETRAINED), params=muse.Params(against="books"))
    assert abs(values["privleak"].mean) < 1
    assert 1 - values["privleak"].parts["auc"] == pytest.approx(0.5408, abs=1e-9)


@with_logs
def test_the_command_reads_logs_with_and_without_a_reference():
    alone = run_bench("muse", logs=TARGET)
    assert alone["values"]["privleak"]["mean"] is None
    assert "reference" in alone["notes"]["privleak"]
    both = run_bench("muse", logs=TARGET, reference_logs=RETRAINED)
    assert MUSE.cells(both) == {
        "VerbMem": pytest.approx(99.7015612, abs=1e-6),
        "KnowMem F": pytest.approx(47.1168137, abs=1e-6),
        "PrivLeak": pytest.approx(-57.3409763, abs=1e-6),
        "KnowMem R": pytest.approx(69.1293201, abs=1e-6),
    }
    official = run_bench("muse", logs=TARGET, params={"against": "books"})
    assert official["values"]["privleak"]["mean"] == pytest.approx(
        100 * (1 - 0.7693 - 0.5393) / 0.5393
    )


@pytest.fixture
def published(tmp_path):
    """Write a log in the published format and read it back."""

    def read(content, **params):
        path = tmp_path / "log.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return MUSE.read_log(path, muse.Params(**params))

    return read


def entry(values, **more):
    return {
        "agg_value": 0,
        "value_by_index": {
            str(n): {"rougeL_f1": value, "rougeL_recall": 1.0, **{k: f(n) for k, f in more.items()}}
            for n, value in enumerate(values)
        },
    }


def scored():
    names = ("forget_verbmem_ROUGE", "forget_knowmem_ROUGE", "retain_knowmem_ROUGE")
    return {name: entry([0.25, 0.75]) for name in names}


def test_a_log_with_texts_names_its_rows_by_them(published):
    content = scored()
    content["forget_knowmem_ROUGE"] = entry(
        [0.25, 0.75], input=lambda n: f"{n}?", ground_truth=lambda n: "yes"
    )
    (first, _) = published(content)["@knowmem_forget"]["score"]
    assert first == muse.record_id("0?", "yes")
    content["forget_knowmem_ROUGE"] = entry(
        [0.25, 0.75], input=lambda n: "?", ground_truth=lambda n: "yes"
    )
    assert MUSE.values(published(content))["knowmem_forget"].n == 2


def test_f1_is_read_unless_recall_is_asked_for(published):
    assert MUSE.values(published(scored()))["knowmem_forget"].mean == 50
    recall = MUSE.values(published(scored(), statistic="recall"))
    assert recall["knowmem_forget"].mean == 100
    assert recall["verbmem"].mean == 50


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[]", "E-DATA-002"),
        (json.dumps(scored())[:-20], "E-DATA-002"),
        ({}, "E-DATA-003"),
        ({"forget_verbmem_ROUGE": 0.5, "privleak": -1.0}, "E-DATA-003"),
        ({**scored(), "mia_min_k": {"forget": 3}}, "E-DATA-003"),
        ({**scored(), "forget_knowmem_ROUGE": entry(["?"])}, "E-DATA-003"),
    ],
)
def test_a_log_that_is_cut_or_no_log_is_refused(published, content, code):
    with pytest.raises(ExpungeError) as refusal:
        published(content)
    assert refusal.value.code == code
    assert refusal.value.next


@pytest.fixture
def real(tmp_path):
    """The questions of the authors, and texts of the public domain in place of theirs."""
    if not (DATA / "muse").is_dir():
        pytest.skip("the upstream files are not here")
    books, stand_in = tmp_path / "books", DATA / "muse_like_public_domain"
    for name in ("raw", "verbmem", "knowmem", "privleak"):
        (books / name).mkdir(parents=True)
    for side in ("forget", "retain"):
        for kind in ("qa", "qa_icl"):
            source = DATA / "muse" / f"books_knowmem_{side}_{kind}.json"
            shutil.copy(source, books / "knowmem" / f"{side}_{kind}.json")
    shutil.copy(stand_in / "verbmem_forget.json", books / "verbmem" / "forget.json")
    for side in ("forget", "retain", "holdout"):
        shutil.copy(stand_in / f"privleak_{side}.json", books / "privleak" / f"{side}.json")
    shutil.copy(stand_in / "privleak_forget.json", books / "raw" / "forget.json")
    shutil.copy(stand_in / "privleak_retain.json", books / "raw" / "retain1.json")
    return tmp_path


def test_upstream_files_have_the_published_counts(real):
    sets = muse.sets(real, "books", PARAMS)
    assert {name: len(rows) for name, rows in sets.items()} == dict.fromkeys(
        ("verbmem", "knowmem_forget", "knowmem_retain", "forget", "retain", "holdout"), 100
    )
    assert sets["knowmem_forget"][0].prompt.count("Question: ") == 11
    assert len(muse.splits(real, "books", PARAMS)["forget"]) == 100


def renumbered(value, by):
    """A log whose rows count from elsewhere."""
    if isinstance(value, dict):
        return {
            key: {str(int(n) + by): row for n, row in of.items()}
            if key == "value_by_index"
            else renumbered(of, by)
            for key, of in value.items()
        }
    return value


@with_logs
def test_a_log_that_counts_from_elsewhere_matches_the_reference(tmp_path):
    path = tmp_path / "target.json"
    path.write_text(json.dumps(renumbered(json.loads(TARGET.read_text()), 100)))
    moved, plain = (
        MUSE.values(MUSE.read_log(log), MUSE.read_log(RETRAINED)) for log in (path, TARGET)
    )
    assert moved["privleak"].mean == plain["privleak"].mean
    assert moved["verbmem"].mean == plain["verbmem"].mean
