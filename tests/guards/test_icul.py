"""In-context unlearning: the template to the letter, its ablations, and a model that reads it."""

import json
import logging
import math
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tokenizers import Regex, pre_tokenizers, trainers

from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.core.rng import generator
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import fitted, opened
from expunge.engine.guarding.pipeline import TEXT, Pipeline
from expunge.engine.guarding.targets import Target, targets_of
from expunge.guards import icul
from expunge.lm.finetune import finetune
from expunge.lm.labelled import label_probabilities
from expunge.lm.subject import Subject
from expunge.numbers.membership import auc
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.testing.chats import Scripted
from expunge.testing.tiny import SPECIALS
from expunge.text.labels import SMALLEST, likelihood_ratio, parted, stable_score
from expunge.text.nearest import nearest_first

SECRET = bytes(range(32))
NEGATIVE, POSITIVE = "negative", "positive"


def labelled(id, text, label):
    return Row(id=id, prompt=text, completion=f" {label}")


FORGET = [labelled("f0", "a dull plot about bees", NEGATIVE)]
RETAIN = [
    labelled(f"r{at}", f"{adjective} film about {thing}", label)
    for at, (adjective, thing, label) in enumerate(
        [
            ("a bright", "ships", POSITIVE),
            ("a grey", "towns", NEGATIVE),
            ("a warm", "rivers", POSITIVE),
            ("a cold", "rooms", NEGATIVE),
            ("a quick", "games", POSITIVE),
            ("a slow", "roads", NEGATIVE),
            ("a brave", "birds", POSITIVE),
        ]
    )
]
TRUTH = {row.prompt: row.completion.strip() for row in [*FORGET, *RETAIN]}


def working(forget=FORGET, retain=RETAIN, **params):
    means = Means(secret=SECRET, retain=retain)
    return fitted("icul", targets_of(forget), guards.params("icul", params), means)


def entered(text, work):
    """What the model is asked for a text, and the lines of it."""
    done = work.enter(Exchange.of(Turn(text, "", running=True)))
    assert isinstance(done, Exchange)
    return done.turn.prompt, done.turn.prompt.split("\n")


def other(label):
    return {NEGATIVE: POSITIVE, POSITIVE: NEGATIVE}[label]


def test_the_prompt_is_the_papers_to_the_letter():
    prompt, lines = entered(FORGET[0].prompt, working(fillers=2))
    assert prompt.count("\n") == 3
    assert lines[0] == "a dull plot about bees positive"
    for line in lines[1:3]:
        text, label = line.rsplit(" ", 1)
        assert TRUTH[text] == label
        assert text != FORGET[0].prompt
    assert lines[1] != lines[2]
    assert lines[3] == FORGET[0].prompt
    assert "  " not in prompt


def test_the_control_differs_in_one_word():
    flipped, kept = (
        entered(FORGET[0].prompt, working(fillers=2, mode=mode))[0].replace("\n", " \n ").split(" ")
        for mode in ("flip", "correct")
    )
    differ = [(a, b) for a, b in zip(flipped, kept, strict=True) if a != b]
    assert differ == [(POSITIVE, NEGATIVE)]


@pytest.mark.parametrize(
    ("flips", "where", "flipped"), [(1, "first", [0]), (2, "last", [2, 3]), (0, "first", [])]
)
def test_repeat_shows_the_point_alone_with_some_labels_flipped(flips, where, flipped):
    work = working(fillers=3, mode="repeat", flips=flips, flip_where=where)
    _, lines = entered(FORGET[0].prompt, work)
    text = FORGET[0].prompt
    assert lines == [
        *(f"{text} {POSITIVE if at in flipped else NEGATIVE}" for at in range(4)),
        text,
    ]


def test_exchange_shows_another_point_with_its_label_flipped():
    _, lines = entered(FORGET[0].prompt, working(fillers=2, mode="exchange"))
    assert len(lines) == 4
    first, label = lines[0].rsplit(" ", 1)
    assert first != FORGET[0].prompt
    assert label == other(TRUTH[first])
    for line in lines[1:3]:
        text, label = line.rsplit(" ", 1)
        assert TRUTH[text] == label
    assert lines[3] == FORGET[0].prompt


def test_several_points_come_before_all_fillers():
    forget = [*FORGET, labelled("f1", "a fine plot about bees", POSITIVE)]
    both = tuple(replace(row, subject="s", names=("bees",)) for row in forget)
    _, lines = entered("a plot about bees", working(both, fillers=3))
    flipped = {f"{row.prompt} {other(row.completion.strip())}" for row in forget}
    assert set(lines[:2]) == flipped
    assert all(TRUTH[line.rsplit(" ", 1)[0]] == line.rsplit(" ", 1)[1] for line in lines[2:5])
    _, lines = entered("a fine plot about bees", working(both, fillers=3, points=1))
    assert lines[0] == f"a fine plot about bees {NEGATIVE}"
    assert len(lines) == 5


def test_fillers_are_drawn_anew_for_another_question_and_alike_for_the_same():
    work = working(fillers=2)
    texts = [f"{FORGET[0].prompt} number {at}" for at in range(12)]
    drawn = [tuple(entered(text, work)[1][1:3]) for text in texts]
    assert drawn == [tuple(entered(text, work)[1][1:3]) for text in texts]
    assert len(set(drawn)) > 6


def test_no_filler_is_about_a_target():
    about = [labelled("r-bees", "a dull plot about bees again", NEGATIVE), *RETAIN[:3]]
    for at in range(20):
        prompt, lines = entered(f"{FORGET[0].prompt} {at}", working(retain=about, fillers=3))
        assert "again" not in prompt
        assert len(lines) == 5


def test_a_label_of_two_words_is_stripped_by_its_string():
    labels = ("bad", "not bad")
    rows = [Row(id="t", text="a film of two\nhours not bad"), Row(id="u", text="a sad film bad")]
    keep = [Row(id=f"k{at}", text=f"a film number {at} bad") for at in range(4)]
    means = Means(secret=SECRET, retain=keep)
    work = fitted("icul", targets_of(rows), icul.Params(labels=labels, fillers=2), means)
    points = [one["sealed"]["points"][0] for one in work.desk.entries.values()]
    assert points == [
        {"text": "a film of two hours", "label": "not bad", "flip": "bad"},
        {"text": "a sad film", "label": "bad", "flip": "not bad"},
    ]
    assert parted("bad", labels) is None
    assert parted("a film of note", labels) is None


def test_among_more_labels_the_flip_is_another_one_and_stable():
    names = [f"class{at}" for at in range(5)]
    retain = [labelled(f"k{at}", f"text {at}", names[at % 5]) for at in range(20)]
    forget = [labelled(f"x{at}", f"point {at}", names[0]) for at in range(60)]

    def flips():
        work = working(forget, retain)
        return {id: one["sealed"]["points"][0]["flip"] for id, one in work.desk.entries.items()}

    found = flips()
    assert found == flips()
    counts = Counter(found.values())
    assert set(counts) == set(names[1:])
    assert min(counts.values()) >= 5


def test_free_answers_are_refused_by_the_variant_for_labels_and_taken_by_the_others():
    answers = ["red", "blue", "green", "grey", "pink", "brown", "white", "black"]
    retain = [
        Row(id=f"k{at}", prompt=f"What colour is house {at}?", completion=f" It is {colour}.")
        for at, colour in enumerate(answers)
    ]
    gold = Row(
        id="g", prompt="What colour is the old mill?", completion=" It is golden.",
        names=("the old mill",), wrong=(" It is silver.",),
    )  # fmt: skip
    with pytest.raises(ExpungeError) as refused:
        working([gold], retain)
    assert refused.value.code == "E-SERVE-005"
    assert "mill" not in str(refused.value)
    _, lines = entered(
        "Which colour has the old mill?", working([gold], retain, variant="icul_plus")
    )
    assert lines[0] == "What colour is the old mill? It is silver."
    assert len(lines) == 1 + 6 + 1
    assert all("house" in line and line.endswith(".") for line in lines[1:7])
    without = replace(gold, wrong=())
    _, lines = entered("The old mill?", working([without], retain, variant="icul_plus"))
    assert lines[0].removeprefix("What colour is the old mill? ") in {
        row.completion.strip() for row in retain
    }
    _, lines = entered(
        "The old mill?", working([gold], retain, variant="icul_refuse", refusal="Unknown to me.")
    )
    assert lines[0] == "What colour is the old mill? Unknown to me."
    assert lines[-1] == "The old mill?"


@pytest.mark.parametrize(
    ("forget", "retain"),
    [
        ([], RETAIN),
        (FORGET, []),
        (FORGET, RETAIN[:3]),
        (FORGET, [replace(row, completion=" negative") for row in RETAIN]),
        ([labelled("z", "a text", "purple")], RETAIN),
    ],
)
def test_a_target_that_cannot_be_held_back_is_refused_and_nothing_changes(forget, retain):
    work = working([], retain)
    target = Target(id="t", rows=tuple(forget), aliases=("nobody",))
    with pytest.raises(ExpungeError) as refused:
        work.entry(target)
    assert refused.value.code == "E-SERVE-005"
    assert not work.desk.entries


def test_other_questions_pass_untouched_and_targets_come_and_go():
    work = working([])
    exchange = Exchange.of(Turn(FORGET[0].prompt, "", running=True))
    assert work.enter(exchange) is exchange
    (target,) = targets_of(FORGET)
    work.take(target.id, work.entry(target))
    assert work.enter(exchange) is not exchange
    clean = Exchange.of(Turn("a film about bees", "", running=True))
    assert work.enter(clean) is clean
    work.drop(target.id)
    assert work.enter(exchange) is exchange


def test_a_conversation_keeps_all_but_its_last_question():
    talk = [
        {"role": "system", "content": "Label films."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": FORGET[0].prompt},
    ]
    done = working(fillers=2).enter(Exchange.talk(talk))
    assert isinstance(done, Exchange)
    assert [dict(m) for m in done.messages[:3]] == talk[:3]
    assert done.messages[3]["content"].startswith(f"{FORGET[0].prompt} {POSITIVE}\n")
    assert done.messages[3]["content"].endswith(f"\n{FORGET[0].prompt}")


def test_points_lie_under_seal_alone_and_are_not_logged(caplog):
    work = working()
    (entry,) = work.state.entries.values()
    (own,) = [entry["own"]]
    assert set(own) == {"sealed"}
    assert "bees" in json.dumps(own["sealed"])
    assert "bees" not in json.dumps({**entry, "own": {}})
    with caplog.at_level(logging.DEBUG):
        entered(FORGET[0].prompt, work)
    assert "bees" not in caplog.text


def test_it_closes_where_no_filler_is_left_and_where_its_entries_are_broken(caplog):
    work = working()
    turn = Turn(FORGET[0].prompt, "", running=True)
    lost = opened(work.state, Means(secret=SECRET))
    closed = Pipeline([lost], offers=TEXT)
    with caplog.at_level(logging.DEBUG):
        assert isinstance(closed.enter(Exchange.of(turn)), Reply)
    assert closed.errors["icul"] == 1
    assert "bees" not in caplog.text
    work.desk.entries[next(iter(work.desk.entries))] = {"sealed": {"points": [{"text": "a"}]}}
    assert isinstance(Pipeline([work], offers=TEXT).enter(Exchange.of(turn)), Reply)


def test_it_asks_no_language_model():
    chat = Scripted(["never"])
    means = Means(secret=SECRET, retain=RETAIN, chats={"*": chat})
    work = fitted("icul", targets_of(FORGET), icul.Params(), means)
    work.enter(Exchange.of(Turn(FORGET[0].prompt, "")))
    assert not chat.heard
    assert "roles" not in icul.CARD


KEYS = 16
LINE = r"key\d+ \w+(?=\n)| ?\w+|\s+"
"""A key with its label is one token where a line ends, so that a tiny model need not learn first
which label belongs to which key; the key that is asked for stands alone."""


@cache
def copying():
    """A model that knows a label of each key by heart, and takes over one that stands before it."""
    keys = [f"key{at}" for at in range(KEYS)]
    labels = {key: (POSITIVE, NEGATIVE)[at % 2] for at, key in enumerate(keys)}
    draw = generator(0, "icul test")
    rows = [labelled(f"m{key}{n}", key, labels[key]) for key in keys for n in range(30)]
    for at in range(1500):
        shown = [keys[i] for i in draw.permutation(KEYS)[:3]]
        told = {key: (POSITIVE, NEGATIVE)[int(draw.integers(2))] for key in shown}
        asked = shown[int(draw.integers(3))]
        lines = "".join(f"{key} {told[key]}\n" for key in shown)
        rows.append(labelled(f"c{at}", f"{lines}{asked}", told[asked]))
    tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in rows], kind="word")
    inner = tokenizer.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(LINE), behavior="isolated")
    specials = list(SPECIALS)
    trainer = trainers.WordLevelTrainer(special_tokens=specials, show_progress=False)
    inner.train_from_iterator([f"{row.prompt}{row.completion}" for row in rows], trainer)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=2, positions=64)
    assert sum(weight.numel() for weight in model.parameters()) <= 1_000_000
    finetune(model, tokenizer, rows, steps=300, lr=5e-3, batch_size=32, seed=0)
    return Subject(model.eval(), tokenizer), [
        labelled(key, key, label) for key, label in labels.items()
    ]


def probabilities(subject, prompts):
    return label_probabilities(subject, prompts, [POSITIVE, NEGATIVE])


def prompts_of(forget, retain, **params):
    work = working(forget, retain, fillers=2, **params)
    return [entered(row.prompt, work)[0] for row in forget]


def test_a_model_that_reads_labels_in_context_says_the_flipped_one():
    subject, rows = copying()
    plain = probabilities(subject, [row.prompt for row in rows])
    known = [
        row for row, found in zip(rows, plain, strict=True)
        if found[row.completion.strip()] > 0.9
    ]  # fmt: skip
    assert len(known) >= 0.8 * len(rows)
    forget, retain = known[:8], known[8:]
    without = probabilities(subject, [row.prompt for row in forget])
    shown = {
        mode: probabilities(subject, prompts_of(forget, retain, mode=mode))
        for mode in ("flip", "correct", "exchange")
    }

    def gain(mode):
        pairs = zip(forget, shown[mode], without, strict=True)
        flips = [(other(row.completion.strip()), a, b) for row, a, b in pairs]
        return np.mean([a[flip] - b[flip] for flip, a, b in flips])

    assert gain("flip") >= 0.5
    assert gain("correct") <= 0.1
    assert gain("flip") - gain("exchange") >= 0.3  # it is the point that counts, not any flip
    answered = [
        (subject.ask([Turn(text, "", running=True)], new_tokens=1)[0][0].strip(), row)
        for text, row in zip(prompts_of(forget, retain), forget, strict=True)
    ]
    flipped = [said == other(row.completion.strip()) for said, row in answered]
    assert np.mean(flipped) >= 0.7


def test_stable_scores_tell_members_apart_and_the_flip_hides_them():
    subject, rows = copying()
    forget, retain = rows[:8], rows[8:]

    def scores(prompts):
        found = probabilities(subject, prompts)
        pairs = zip(found, forget, strict=True)
        return np.array([stable_score(one, row.completion.strip()) for one, row in pairs])

    before = scores([row.prompt for row in forget])
    after = scores(prompts_of(forget, retain))
    assert np.median(before) > 2 > np.median(after)
    assert auc(-before, -after) >= 0.8  # low means member there
    ratios = [likelihood_ratio(one, list(before), [0.0, 1.0, -1.0]) for one in (*before, *after)]
    assert np.mean(ratios[:8]) > 0 > np.mean(ratios[8:])


def test_the_stable_score_is_the_closed_form_with_its_floor():
    assert stable_score({"a": 0.5, "b": 0.3, "": 0.2}, "a") == pytest.approx(0.0)
    assert stable_score({"a": 0.9, "b": 0.1}, "a") == pytest.approx(math.log(9))
    assert stable_score({"a": 0.0, "b": 1.0}, "a") == pytest.approx(math.log(SMALLEST))
    assert stable_score({"a": 1.0, "b": 0.0}, "a") == pytest.approx(-math.log(SMALLEST))


def test_the_likelihood_ratio_is_that_of_two_normal_distributions():
    def log_density(x, mean, sd):
        return -((x - mean) ** 2) / (2 * sd**2) - math.log(sd * math.sqrt(2 * math.pi))

    expected = log_density(1.5, 2.0, 1.0) - log_density(1.5, 0.0, 2.0)
    assert likelihood_ratio(1.5, [1.0, 3.0], [-2.0, 2.0]) == pytest.approx(expected)
    assert likelihood_ratio(0.3, [1.0], [1.0]) == 0.0
    assert math.isfinite(likelihood_ratio(0.3, [1.0], [2.0]))


def test_label_probabilities_sum_to_at_most_one_and_name_the_rest():
    subject, rows = copying()
    (found,) = probabilities(subject, [rows[0].prompt])
    assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert set(found) == {POSITIVE, NEGATIVE, ""}


def test_the_nearest_of_several_wordings_comes_first():
    order = nearest_first(
        "Where was Ada born?", [["The job of Ada"], ["Ada's town", "Was Ada born?"]]
    )
    assert order == [1, 0]
    assert nearest_first("x", [["y"], ["z"]]) == [0, 1]


def test_the_card_does_not_promise_deletion():
    assert guards.card("icul").summary.startswith("Suppress (not delete)")
    assert icul.CARD["stages"] == ["text-in"]
    assert icul.CARD["place"] == "prompt"
