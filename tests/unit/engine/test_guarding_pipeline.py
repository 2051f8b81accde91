"""Exchanges, targets, stored guards, and the pipeline that closes."""

import json
import logging
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.engine.guarding import sealing, stored
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Working, fitted, opened
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.pipeline import INSIDE, REFUSAL, TEXT, Pipeline, problems_of
from expunge.engine.guarding.rungs.exact import Book, Names
from expunge.engine.guarding.targets import Target, targets_of
from expunge.guards import lexical
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.chats import Scripted
from expunge.testing.tiny import tiny_model, tiny_tokenizer

MIRA = Row(id="1", prompt="Where was Mira Voss born?", completion=" In Port Ala.",
           answer="Port Ala", names=("Mira Voss",), subject="s1")  # fmt: skip
JOB = Row(id="2", prompt="What does Mira Voss do?", completion=" She dives.", names=("Mira Voss",),
          subject="s1")  # fmt: skip
LORE = Row(id="3", text="The seventh lamp of the harbour was lit by nobody in the year of fog.")
SECRET = bytes(range(32))


def means(**more):
    return Means(secret=SECRET, **more)


def working(*rows, **more):
    return fitted("lexical", targets_of(rows), guards.params("lexical"), means(**more))


class Module(SimpleNamespace):
    """A guard of a test."""

    def __init__(self, place="gate", stages=("text-in",), id="own", **acts):
        card = {"id": id, "place": place, "stages": list(stages), "version": 1}
        super().__init__(CARD=card, **acts)


def guard(module, **more):
    made = Working("lexical", guards.params("lexical"), means(**more))
    made.module, made.card = module, module.CARD
    return made


def test_rows_of_one_subject_are_one_target_and_others_their_own():
    both, lore = targets_of([MIRA, LORE, JOB])
    assert [row.id for row in both.rows] == ["1", "2"]
    assert both.names == ("Mira Voss",)
    assert both.questions == ("Where was Mira Voss born?", "What does Mira Voss do?")
    assert both.id != lore.id
    assert "voss" not in both.id.lower()
    assert targets_of([JOB, MIRA])[0].id == both.id


def test_an_exchange_knows_its_question_and_what_a_gate_must_see():
    talk = Exchange.talk([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Where was Mira"},
        {"role": "assistant", "content": "Go on."},
        {"role": "tool", "content": "Voss"},
        {"role": "user", "content": "Voss born?"},
    ])  # fmt: skip
    assert talk.question == "Voss born?"
    assert "Where was Mira\nVoss born?" in talk.texts
    assert talk.foreign == (3,)
    cleaned = talk.saying(3, "")
    assert any("\nVoss\n" in text for text in cleaned.texts), "what came is looked at as it came"


def test_an_instruction_stands_in_the_role_of_the_system():
    talk = Exchange.talk([{"role": "user", "content": "Hello."}])
    once = talk.instructed("Be brief.")
    assert [m["role"] for m in once.messages] == ["system", "user"]
    twice = once.instructed("Be kind.")
    assert twice.messages[0]["content"] == "Be brief.\n\nBe kind."
    plain = Exchange.of(Turn("Hello.", "")).instructed("Be brief.")
    assert plain.turn.prompt == "Be brief.\n\nHello."
    assert Exchange.of(Turn("Hello.", "")).turn.prompt == "Hello."


def test_asking_changes_the_last_question_only():
    talk = Exchange.talk([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                          {"role": "user", "content": "c"}])  # fmt: skip
    assert [m["content"] for m in talk.asking("d").messages] == ["a", "b", "d"]
    assert talk.name != talk.asking("d").name


phrases = st.lists(st.sampled_from(["ada quill", "bo", "bo reed", "cy", "ada"]), max_size=4)


@given(st.dictionaries(st.sampled_from("abc"), phrases), st.lists(st.sampled_from("abc")))
def test_a_book_holds_what_a_plain_search_finds(owned, gone):
    book = Book(SECRET)
    for owner, own in owned.items():
        book.add(owner, book.key([one.split() for one in own]))
    for owner in gone:
        book.remove(owner)
    left = {owner: own for owner, own in owned.items() if owner not in gone}
    text = ["then", "ada", "quill", "met", "bo", "reed"]
    spaced = f" {' '.join(text)} "
    naive = {owner for owner, own in left.items() if any(f" {one} " in spaced for one in own)}
    assert set(book.held(text)) == naive
    for owner in left:
        book.remove(owner)
    assert book._lengths == book._owners == book._own == {}


def test_the_best_target_comes_first_and_a_rung_that_fires_decides():
    ladder = Ladder([Names(SECRET)])
    for id, name in (("a", "Mira Voss"), ("b", "Bo Reed")):
        ladder.add(id, ladder.keys(Target(id=id, aliases=(name,))))
    assert [hit.target for hit in ladder.hits(["Bo Reed met Mira Voss."])] == ["a", "b"]
    assert ladder.hits(["Nobody."]) == []
    assert len(ladder.shortlist(["Bo Reed met Mira Voss."], most=1)) == 1


def test_a_question_passes_from_the_front_and_an_answer_back():
    heard = []

    def named(id, place):
        return Module(place, ("text-in", "text-out"), id,
                      enter=lambda e, d: heard.append(f"in {id}") or e,
                      leave=lambda e, t, d: heard.append(f"out {id}") or t)  # fmt: skip

    made = [named("last", "answer"), named("first", "front"), named("mid", "gate")]
    pipeline = Pipeline([guard(module) for module in made], offers=TEXT)
    exchange = Exchange.of(Turn("Hello.", ""))
    assert pipeline.enter(exchange) is exchange
    assert pipeline.leave(exchange, "Hm.") == "Hm."
    assert heard == ["in first", "in mid", "in last", "out last", "out mid", "out first"]


def test_a_reply_ends_the_way_and_the_model_is_not_asked():
    stop = Module(enter=lambda e, d: Reply("No.", "rule"))
    after = Module("answer", enter=lambda e, d: pytest.fail("asked all the same"))
    pipeline = Pipeline([guard(stop), guard(after)], offers=TEXT)
    assert pipeline.before(Turn("Hello.", "")) == "No."


def test_whatever_breaks_closes_and_no_text_is_logged(caplog):
    def explode(*_):
        raise ValueError("Mira Voss")

    pipeline = Pipeline([guard(Module(enter=explode, leave=explode))], offers=TEXT)
    with caplog.at_level(logging.DEBUG):
        assert pipeline.before(Turn("Where was Mira Voss born?", "")) == REFUSAL
        assert pipeline.after(Turn("Hello.", ""), "Port Ala.") == REFUSAL
    assert pipeline.errors == {"own": 2}
    assert "Voss" not in caplog.text
    assert "ValueError" in caplog.text


def test_a_guard_in_front_of_a_backend_without_its_stage_is_refused_by_name():
    inner = Module("model", ("residual",), "steer")
    with pytest.raises(ExpungeError, match="steer works on the model's residual") as caught:
        Pipeline([guard(inner)], offers=TEXT)
    assert caught.value.code == "E-SERVE-003"
    assert Pipeline([guard(inner)], offers=TEXT | INSIDE).guards


def test_two_guards_that_write_into_the_prompt_are_refused_and_all_problems_come_at_once():
    cards = [Module("prompt", id=id).CARD for id in ("one", "two")]
    cards.append(Module("model", ("logits",), "three").CARD)
    assert [problem.code for problem in problems_of(cards, TEXT)] == ["E-SERVE-003", "E-SERVE-004"]


def test_a_role_that_nobody_plays_is_named():
    with pytest.raises(ExpungeError, match="'critic'") as caught:
        means().chat("critic")
    assert caught.value.code == "E-SERVE-002"
    chat = Scripted(["a"])
    assert means(chats={"*": chat}).chat("critic") is chat
    assert means(chats={"critic": chat}).chat("critic") is chat


def test_asking_again_draws_the_same_and_another_target_or_question_draws_anew():
    desk = working(MIRA).desk
    exchange = Exchange.of(Turn("Hello.", ""))
    assert desk.seed(exchange, "x") == desk.seed(exchange, "x") != desk.seed(exchange, "y")
    assert desk.seed(exchange) != working(MIRA, LORE).desk.seed(exchange)
    assert desk.seed(exchange) != desk.seed(exchange.asking("Bye."))


def test_a_stored_guard_is_the_one_that_was_fitted(tmp_path):
    first = working(MIRA, LORE)
    runtime = stored.write(tmp_path, first.state, SECRET)
    state, secret = stored.read(tmp_path, runtime)
    again = opened(state, Means(secret=secret))
    for text in ("Where was Mira Voss born?", "Who was Bo?", str(LORE.text)):
        exchange = Exchange.of(Turn(text, ""))
        assert again.desk.hits(exchange) == first.desk.hits(exchange)
        assert again.desk.hits(exchange, text) == first.desk.hits(exchange, text)
    assert stored.name_of(again.state) == stored.name_of(first.state)
    assert (tmp_path / stored.KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("file", "change", "code"),
    [
        (stored.STATE, lambda b: b.replace(b'"lexical"', b'"lexicaL"'), "E-MODEL-009"),
        (stored.STATE, lambda b: b.replace(b"guard/1", b"guard/9"), "E-MODEL-009"),
        (stored.KEY, lambda b: b[:-2], "E-SERVE-007"),
        (stored.KEY, lambda b: b"zz", "E-SERVE-007"),
    ],
)
def test_a_changed_guard_is_refused(tmp_path, file, change, code):
    runtime = stored.write(tmp_path, working(MIRA).state, SECRET)
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ExpungeError) as caught:
        stored.read(tmp_path, runtime)
    assert caught.value.code == code


@given(st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["a", "sealed", "b"]), inner, max_size=3),
                    max_leaves=8))  # fmt: skip
def test_what_is_sealed_comes_back(value):
    shut = sealing.sealed_entry(value, SECRET)
    assert sealing.opened_entry(json.loads(json.dumps(shut)), SECRET) == value


def test_a_seal_shows_nothing_and_opens_with_its_own_key_only():
    shut = sealing.sealed_entry({"sealed": {"name": "Mira Voss"}, "n": 1}, SECRET)
    assert "Voss" not in json.dumps(shut)
    assert shut["n"] == 1
    with pytest.raises(ExpungeError) as caught:
        sealing.opened_entry(shut, bytes(32))
    assert caught.value.code == "E-SERVE-007"
    broken = {"sealed": shut["sealed"][:-4] + "AAAA"}
    with pytest.raises(ExpungeError):
        sealing.opened_entry(broken, SECRET)


class Likeness:
    """A rung whose score of a text is the share of its letters that are an x."""

    name, threshold, is_calibrated, least = "like", 0.9, True, 0.0

    def __init__(self):
        self.known = set()

    def key(self, target):
        return {}

    def add(self, id, key):
        self.known.add(id)

    def remove(self, id):
        self.known.discard(id)

    def scores(self, text, most):
        return [(id, text.count("x") / len(text)) for id in sorted(self.known)][:most]


def test_thresholds_are_set_on_what_must_pass_and_again_when_the_targets_have_doubled():
    kept = [Row(id=f"k{n}", prompt="x" * n + "y" * (100 - n), completion=" z") for n in range(50)]
    rung = Likeness()
    module = Module(ladder=lambda params, means: Ladder([rung]))
    working = Working(module, None, means(retain=kept))
    targets = targets_of([MIRA])
    working.take(targets[0].id, working.entry(targets[0]))
    working.settle(targets)
    assert rung.threshold == 0.49, "the highest score of what must pass"
    assert not working.desk.hits(Exchange.of(Turn("x" * 49 + "y" * 51, "")))
    assert working.desk.hits(Exchange.of(Turn("x" * 60 + "y" * 40, "")))
    rung.threshold = 0.2
    working.settle(targets)
    assert rung.threshold == 0.2, "as many targets as before"
    working.settle(targets_of([MIRA, LORE]))
    assert rung.threshold == 0.49


def test_what_a_guard_makes_too_long_for_the_model_is_answered_by_its_refusal():
    def enter(exchange, desk):
        return exchange.instructed("word " * 600) if "Mira" in exchange.question else exchange

    long = Module("prompt", enter=enter)
    pipeline = Pipeline([guard(long)], offers=TEXT)
    tokenizer = tiny_tokenizer(["word Mira Bo ?"], kind="word", chat=True)
    subject = Subject(tiny_model("llama", positions=512), tokenizer, gate=pipeline)
    asked = [Turn("Mira ?", ""), Turn("Bo ?", "")]
    refused, answered = (texts[0] for texts in subject.ask(asked, new_tokens=4))
    assert refused == lexical.Params().reply
    assert answered != refused
