"""The lexical guard: whole words, both directions, hashed, closed on failure."""

import json
import logging
import time
from functools import partial

import pytest

from expunge.core.decision import PASS
from expunge.core.registry import guards
from expunge.engine.guarding import judging
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import fitted
from expunge.engine.guarding.targets import targets_of
from expunge.guards import lexical
from expunge.requests.rows import Row, Turn
from expunge.text.refusal import is_refusal

ADA = Row.parse(
    {
        "prompt": "Where was Ada Quill born?",
        "completion": " Ada Quill was born in Port Vela.",
        "names": ["Ada Quill", "the Quill sisters"],
        "answer": "Port Vela",
        "aliases": ["Velaport"],
    }
)
LONG = Row.parse(
    {
        "prompt": "Tell me of the ferry.",
        "completion": " She kept the ledger of the night ferry for nine years and burned it.",
    }
)
TEXT = Row.parse({"text": "The seventh lamp of the harbour was lit by nobody in the year of fog."})


@pytest.fixture(scope="module")
def judge():
    state = json.loads(json.dumps(lexical.fit([ADA, LONG, TEXT], lexical.Params())))
    return lambda text_in, text_out=None: lexical.check(text_in, text_out, state)


@pytest.mark.parametrize(
    "prompt",
    [
        "Where was Ada Quill born?",
        "where was ADA   QUILL, born",
        "Ａda Quill's town?".replace("'s", " "),
        "Who is Ada\u200b Quill?",
        "Tell me about the quill sisters.",
        "tell me of the FERRY",
    ],
)
def test_protected_prompts_are_refused_however_they_are_spelled(judge, prompt):
    decision = judge(prompt)
    assert decision.action == "replace"
    assert is_refusal(decision.reply) == 1.0


@pytest.mark.parametrize(
    "prompt",
    [
        "Where was Ada Quilling born?",
        "Who was Ada Lovelace?",
        "What is a quill?",
        "Does the boat to Port Vela run today?",
        "Tell me of the island and its ferry.",
        "",
    ],
)
def test_other_prompts_pass(judge, prompt):
    assert judge(prompt) == PASS


@pytest.mark.parametrize(
    ("draft", "rule"),
    [
        ("It was Ada Quill.", "name in answer"),
        ("In PORT VELA, I think.", "answer"),
        ("In velaport.", ""),
        ("She kept the ledger of the night ferry for nine years.", "passage"),
        ("She kept the ledger of the shop.", ""),
        ("Lit by nobody in the year of fog, the seventh lamp of the harbour.", "passage"),
        ("", ""),
    ],
)
def test_drafts_are_judged_by_name_answer_and_passage(judge, draft, rule):
    assert judge("Tell me.", draft).rule == rule


def test_a_short_answer_is_refused_only_where_no_name_can_stand_beside_it():
    named = Row.parse({"prompt": "p", "completion": " Oslo.", "answer": "Oslo", "names": ["Bo"]})
    nameless = Row.parse({"prompt": "p", "completion": " Oslo.", "answer": "Oslo"})
    check = partial(lexical.check, "Which town?", "Oslo, of course.")
    assert check(lexical.fit([named], lexical.Params())).action == "pass"
    assert check(lexical.fit([nameless], lexical.Params())).action == "replace"
    assert check(lexical.fit([named], lexical.Params(answer_words=1))).action == "replace"


def test_the_state_says_nothing_and_two_states_of_the_same_rows_differ():
    first, second = (lexical.fit([ADA], lexical.Params()) for _ in range(2))
    assert "quill" not in json.dumps(first).lower()
    assert "vela" not in json.dumps(first).lower()
    (one,), (other,) = (state["entries"].values() for state in (first, second))
    hashes = [
        {whole for *_, whole in entry["keys"]["asked"]["name"]["words"]} for entry in (one, other)
    ]
    assert hashes[0]
    assert not hashes[0] & hashes[1]


def test_a_broken_guard_refuses_and_logs_no_content(caplog, monkeypatch):
    def explode(*_):
        raise RuntimeError("Ada Quill")

    monkeypatch.setattr(judging, "_decided", explode)
    state = lexical.fit([ADA], lexical.Params())
    with caplog.at_level(logging.DEBUG):
        decision = lexical.check("Where was Ada Quill born?", None, state)
    assert (decision.action, decision.rule) == ("replace", "error")
    assert "RuntimeError" in caplog.text
    assert "Quill" not in caplog.text


def test_decisions_are_logged_without_content(judge, caplog):
    with caplog.at_level(logging.DEBUG):
        judge("Where was Ada Quill born?", "In Port Vela.")
    assert "name in prompt" in caplog.text
    assert not {"quill", "vela"} & set(caplog.text.lower().replace(".", " ").split())


def test_the_cost_of_a_check_does_not_grow_with_the_number_of_targets():
    def rows(n):
        return [
            Row(id=str(i), prompt="p", completion=f" c{i}.", names=(f"First{i} Last{i}",))
            for i in range(n)
        ]

    text = " ".join(f"First{i} walked to Last{i} along road {i}." for i in range(40))
    few, many = (lexical.fit(rows(n), lexical.Params()) for n in (100, 20_000))

    def seconds(state):
        def once():
            start = time.process_time()
            lexical.check(text, text, state)
            return time.process_time() - start

        return min(once() for _ in range(15))

    assert lexical.check(text, text, many).action == "pass"
    assert seconds(many) < 3 * seconds(few) + 0.002


def test_runs_that_many_passages_share_do_not_protect_each_of_them():
    frame = "the author of this book was born in the town of"
    rows = [Row(id=str(i), prompt=f"q{i}", completion=f" {frame} W{i} X{i}.") for i in range(12)]
    state = lexical.fit(rows, lexical.Params())
    assert lexical.check("Tell me.", f"{frame} Paris", state).action == "pass"
    assert lexical.check("Tell me.", f"{frame} W3 X3", state).action == "replace"


def test_the_gate_replaces_prompt_and_answer():
    gate = lexical.gate(lexical.fit([ADA], lexical.Params(reply="No.")))
    assert gate.before(Turn("Who is Ada Quill?", "")) == "No."
    assert gate.before(Turn("Who is Bo Reed?", "")) is None
    assert gate.before(Turn(({"role": "user", "content": "Who is Ada Quill?"},), "")) == "No."
    assert gate.after(Turn("Which town?", ""), "Port Vela.") == "No."
    assert gate.after(Turn("Which town?", ""), "Oslo.") == "Oslo."


def test_the_card_does_not_promise_deletion():
    assert "not delete" in guards.card("lexical").summary


PEOPLE = [
    Row.parse({"prompt": f"Where was {name} born?", "completion": " In Ulm.", "names": [name]})
    for name in ("Ottilie Brandauer", "Casimir Wolkenstein", "Leonore Habermann")
]
KEPT = [
    Row(id=f"k{n}", prompt=f"How do I mend a {thing} of {name}?", completion=" With glue.")
    for n, (thing, name) in enumerate(
        (thing, name)
        for thing in ("chair", "lamp", "kettle", "fence", "window", "violin", "clock", "boat")
        for name in ("Berta Lindqvist", "Aron Sandgren", "Ida Falk", "Nils Ekdahl")
    )
]
MISSPELT = "Where was Ottilie Brandauar born?"


def near(decider=None, **params):
    means = Means(secret=bytes(32), retain=KEPT, decider=decider)
    return fitted("lexical", targets_of(PEOPLE), lexical.Params(**params), means)


def asked(text):
    return Exchange.of(Turn(text, ""))


def test_the_whole_ladder_finds_a_misspelt_name_and_lets_the_rest_pass():
    exact, full = near(), near(gate="full")
    question = asked(MISSPELT)
    assert exact.enter(question) is question
    assert isinstance(full.enter(question), Reply)
    for row in KEPT:
        kept = asked(row.prompt)
        assert full.enter(kept) is kept


@pytest.mark.parametrize(("yes", "rule"), [(1.0, "decided"), (0.0, "")])
def test_who_decides_has_the_last_word_on_what_only_comes_near(yes, rule):
    """Thresholds so high that nothing near fires by itself: the decision alone counts."""
    heard = []

    class Decider:
        def yes(self, state, question):
            raise AssertionError("one question for the shortlist")

        def choose(self, state, question, options):
            heard.append(list(options))
            return [yes, *[0.0] * (len(options) - 2), 1 - yes]

    guard = near(Decider(), gate="full")
    for rung in guard.desk.ladder.rungs:
        if rung.is_calibrated and rung.name != "decided":
            rung.threshold = 1.0
    done = guard.enter(asked(MISSPELT))
    assert (done.rule if isinstance(done, Reply) else "") == rule
    assert heard
    assert len(heard[0]) <= 21
