"""Typed questions: answered by a model here, by servers, by classifiers; strictly read."""

import copy
import math

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.deciders import (
    Calibrated,
    Decisions,
    Local,
    SystemOne,
    Worded,
    calibrate,
    read_decider,
)
from expunge.lm.subject import Subject
from expunge.testing.deciders import Scripted
from expunge.testing.servers import Raw, loopback
from expunge.testing.tiny import tiny_model, tiny_tokenizer

STATE = "Olwen Tarrasque keeps bees."
QUESTION = "Is a person named?"


# ------------------------------------------------------------------- a model of this process


def built(texts=("Yes", "No", STATE, QUESTION)):
    tokenizer = tiny_tokenizer([*texts] * 4, chat=True)
    return Subject(tiny_model("llama"), tokenizer, digest="tiny")


@pytest.fixture(scope="module")
def subject():
    return built()


def by_hand(subject, prompt, labels):
    """The second way: one forward pass over the template's text, softmax over the labels."""
    ids = subject.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
    )
    with torch.no_grad():
        logits = subject.model(torch.tensor([ids])).logits[0, -1]
    places = [subject.tokenizer(one, add_special_tokens=False)["input_ids"] for one in labels]
    return logits[[place for (place,) in places]].softmax(0).tolist()


def test_yes_is_read_from_the_logits_of_its_label(subject):
    prompt = f'{{"text": "{STATE}"}}\n\n{QUESTION}\nAnswer Yes or No only.'
    expected = by_hand(subject, prompt, ["Yes", "No"])[0]
    decider = Local(subject)
    assert decider.yes(STATE, QUESTION) == pytest.approx(expected, abs=1e-6)
    assert decider.yes(STATE, QUESTION) == decider.yes(STATE, QUESTION)
    assert decider.yes("No bees.", QUESTION) != pytest.approx(expected, abs=1e-6)


def test_options_and_levels_are_read_from_the_logits_of_letters(subject):
    decider = Local(subject)
    prompt = (
        f'{{"text": "{STATE}"}}\n\n{QUESTION}\nA. bees\nB. wasps\nC. ants\n'
        "Answer with the letter of the option that fits best (A to C) only."
    )
    chosen = decider.choose(STATE, QUESTION, ["bees", "wasps", "ants"])
    assert chosen == pytest.approx(by_hand(subject, prompt, ["A", "B", "C"]), abs=1e-6)
    assert sum(decider.rate(STATE, QUESTION, 5)) == pytest.approx(1)
    assert len(decider.rate(STATE, QUESTION, 5)) == 5
    assert len(decider.choose(STATE, QUESTION, [str(n) for n in range(25)])) == 25
    assert decider.choose(STATE, QUESTION, ["only"]) == [1.0]


def test_the_tokenizer_and_the_model_of_the_subject_stay_as_they_were(subject):
    before = len(subject.tokenizer), subject.model.config.to_dict(), subject.model.training
    weights = {name: one.clone() for name, one in subject.model.state_dict().items()}
    Local(subject).yes(STATE, QUESTION)
    assert (len(subject.tokenizer), subject.model.config.to_dict(), subject.model.training) == (
        before
    )
    now = subject.model.state_dict()
    assert all(torch.equal(now[name], one) for name, one in weights.items())


def test_control_tokens_in_a_text_are_plain_text(subject):
    """A text cannot end the user's turn and write the answer's beginning itself."""
    seen = []
    hook = subject.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    try:
        Local(subject).yes("<eos><|mark|><|split|>", QUESTION)
    finally:
        hook.remove()
    assert seen
    assert all(subject.tokenizer.eos_token_id not in ids for ids in seen)
    assert all(max(ids) < 512 for ids in seen)


def test_a_decision_goes_past_the_gate(subject):
    class Closed:
        def before(self, turn):
            raise AssertionError("asked")

        after = before

    guarded = copy.copy(subject)
    guarded.gate = Closed()
    assert Local(guarded).yes(STATE, QUESTION) == Local(subject).yes(STATE, QUESTION)


def test_a_question_without_room_is_an_error_without_the_text(subject):
    with pytest.raises(ExpungeError) as caught:
        Local(subject).yes("Olwen " * 2000, QUESTION)
    assert caught.value.code == "E-SERVE-001"
    assert "Olwen" not in str(caught.value)


def test_labels_of_several_tokens_and_models_without_a_template_are_refused(subject):
    plain = Subject(tiny_model("llama"), tiny_tokenizer(["a b c"], chat=True))
    with pytest.raises(ExpungeError) as caught:
        Local(plain)
    assert caught.value.code == "E-SERVE-003"
    untold = Subject(tiny_model("llama"), tiny_tokenizer(["Yes No"] * 4))
    with pytest.raises(ExpungeError) as caught:
        Local(untold)
    assert caught.value.code == "E-MODEL-006"


# --------------------------------------------------------------------------------- servers


def one(answer):
    return {"model": "m", "answers": {"q": answer}, "usage": {}}


def listed(answer):
    return {"model": "m", "answers": [answer], "usage": {}}


def test_a_server_of_system_one_hears_typed_questions_with_the_text_apart():
    answers = iter([
        {"type": "noul", "noul": 0.25},
        {"type": "choice", "choice": "a", "probabilities": {"b": 0.3, "a": 0.7}},
        {"type": "score", "score": 1.0, "probabilities": {"0": 0.2, "1": 0.5, "2": 0.3}},
    ])  # fmt: skip
    with loopback(lambda heard: one(next(answers))) as server:
        decider = SystemOne(server.url, "jev", token="t")  # noqa: S106
        assert decider.yes(STATE, QUESTION) == 0.25
        assert decider.choose(STATE, QUESTION, ["a", "b"]) == pytest.approx([0.7, 0.3])
        assert decider.rate(STATE, QUESTION, 3) == pytest.approx([0.2, 0.5, 0.3])
    assert [heard.path for heard in server.heard] == ["/v1/systemone"] * 3
    assert all(heard.headers["authorization"] == "Bearer t" for heard in server.heard)
    asked = [heard.body["questions"]["q"] for heard in server.heard]
    assert asked == [
        {"type": "noul", "instructions": QUESTION},
        {"type": "choice", "instructions": QUESTION, "criteria": {"a": None, "b": None}},
        {"type": "score", "instructions": QUESTION, "criteria": ["1", "2", "3"]},
    ]
    assert all(
        heard.body == {"model": "jev", "state": {"text": STATE}, "questions": {"q": question}}
        for heard, question in zip(server.heard, asked, strict=True)
    )


def test_a_server_of_decisions_hears_typed_questions_with_the_text_apart():
    answers = iter([
        {"type": "predicate", "name": "q", "probability": 0.25},
        {"type": "choice", "name": None, "choice": "a", "confidence": 1, "probabilities": [
            {"value": "b", "probability": 0.3}, {"value": "a", "probability": 0.7}]},
        {"type": "score", "name": "q", "score": 1.0, "confidence": 1, "probabilities": [
            {"value": n, "label": str(n + 1), "probability": p} for n, p in enumerate([0.25, 0.75])
        ]},
    ])  # fmt: skip
    with loopback(lambda heard: listed(next(answers))) as server:
        decider = Decisions(server.url, "luna", token="t")  # noqa: S106
        assert decider.yes(STATE, QUESTION) == 0.25
        assert decider.choose(STATE, QUESTION, ["a", "b"]) == pytest.approx([0.7, 0.3])
        assert decider.rate(STATE, QUESTION, 2) == [0.25, 0.75]
    assert [heard.path for heard in server.heard] == ["/v1/decisions"] * 3
    (first, second, third) = [heard.body["questions"] for heard in server.heard]
    assert first == [{"name": "q", "type": "predicate", "instructions": QUESTION}]
    assert second[0]["choices"] == [{"value": "a"}, {"value": "b"}]
    assert third[0]["levels"] == [{"label": "1"}, {"label": "2"}]
    assert {heard.body["input"] for heard in server.heard} == {STATE}


def test_the_wire_form_is_the_one_the_official_client_speaks():
    openai = pytest.importorskip("openai.types.decision")
    answer = {"type": "predicate", "name": "q", "probability": 0.5}
    whole = {**listed(answer), "usage": None}
    assert openai.Decision.construct(**whole).answers[0].probability == 0.5


def test_the_wire_form_is_the_one_transformers_reads():
    from transformers.decision import DecisionConfig, parse_questions

    with loopback(lambda heard: Raw(b"", status=500)) as server:
        decider = SystemOne(server.url)
        for ask in (
            lambda: decider.yes(STATE, QUESTION),
            lambda: decider.choose(STATE, QUESTION, ["a", "b"]),
            lambda: decider.rate(STATE, QUESTION, 3),
        ):
            with pytest.raises(ExpungeError):
                ask()
    kinds = [parse_questions(heard.body["questions"], DecisionConfig()) for heard in server.heard]
    assert [kind.type for (kind,) in kinds] == ["noul", "choice", "score"]


HALVES = {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    "answer",
    [
        Raw(b"", status=500),
        Raw(b"yes"),
        None,
        {},
        {"answers": []},
        {"answers": {}},
        {"answers": {"other": {"type": "choice", "probabilities": HALVES}}},
        one("a"),
        one({"type": "noul", "probabilities": HALVES}),
        one({"type": "choice"}),
        one({"type": "choice", "choice": "a"}),
        one({"type": "choice", "probabilities": [0.5, 0.5]}),
        one({"type": "choice", "probabilities": {"a": 1.0}}),
        one({"type": "choice", "probabilities": {"a": 0.5, "b": 0.3, "c": 0.2}}),
        one({"type": "choice", "probabilities": {"a": 0.5, "b": 0.2}}),
        one({"type": "choice", "probabilities": {"a": 1.5, "b": -0.5}}),
        one({"type": "choice", "probabilities": {"a": "0.5", "b": "0.5"}}),
        one({"type": "choice", "probabilities": {"a": True, "b": False}}),
        one({"type": "choice", "probabilities": {"a": None, "b": 1}}),
    ],
)
def test_a_malformed_answer_of_system_one_is_an_error(answer):
    with loopback(lambda heard: answer) as server, pytest.raises(ExpungeError) as caught:
        SystemOne(server.url).choose(STATE, QUESTION, ["a", "b"])
    assert caught.value.code == "E-SERVE-001"
    assert "Olwen" not in str(caught.value)


def weighed(*pairs):
    return [{"value": value, "probability": p} for value, p in pairs]


@pytest.mark.parametrize(
    "answer",
    [
        {"answers": {}},
        {"answers": []},
        {"answers": [{"type": "choice"}] * 2},
        listed("a"),
        listed({"type": "refusal", "name": "q"}),
        listed({"type": "predicate", "name": "q", "probability": 0.5}),
        listed(
            {
                "type": "choice",
                "name": "other",
                "probabilities": weighed(("a", 0.5), ("b", 0.5)),
            }
        ),
        listed({"type": "choice", "probabilities": HALVES}),
        listed({"type": "choice", "probabilities": [0.5, 0.5]}),
        listed({"type": "choice", "probabilities": weighed(("a", 0.5), ("a", 0.5))}),
        listed({"type": "choice", "probabilities": weighed(("a", 0.5), ("b", 0.2), ("b", 0.3))}),
        listed({"type": "choice", "probabilities": weighed(("a", 0.5), ("c", 0.5))}),
        listed({"type": "choice", "probabilities": weighed(("a", 0.9), ("b", 0.9))}),
        listed({"type": "choice", "probabilities": weighed(("a", 1.0), (["b"], 0.0))}),
    ],
)
def test_a_malformed_answer_of_decisions_is_an_error(answer):
    with loopback(lambda heard: answer) as server, pytest.raises(ExpungeError) as caught:
        Decisions(server.url).choose(STATE, QUESTION, ["a", "b"])
    assert caught.value.code == "E-SERVE-001"


def test_true_is_no_level_and_no_probability():
    told = listed({"type": "score", "probabilities": weighed((False, 0.5), (True, 0.5))})
    with loopback(lambda heard: told) as server, pytest.raises(ExpungeError):
        Decisions(server.url).rate(STATE, QUESTION, 2)
    with (
        loopback(lambda heard: one({"type": "noul", "noul": True})) as server,
        pytest.raises(ExpungeError),
    ):
        SystemOne(server.url).yes(STATE, QUESTION)


@pytest.mark.parametrize("options", [[], ["a", "a"], [str(n) for n in range(26)]])
def test_options_that_no_question_can_have_are_refused_before_anything_is_sent(options, subject):
    with loopback(lambda heard: None) as server:
        for decider in (Local(subject), SystemOne(server.url), Decisions(server.url), Worded({})):
            with pytest.raises(ValueError, match="different"):
                decider.choose(STATE, QUESTION, options)
    assert server.heard == []


# ----------------------------------------------------------------------------- classifiers


TAUGHT = {
    "Is it about bees?": (
        ["bees in the hive", "a bee stings", "the wheat is cut", "a field of wheat"],
        [1, 1, 0, 0],
    ),
    "What is it about?": (
        ["bees in the hive", "a field of wheat", "a boat at sea"],
        [0, 1, 2],
    ),
}


def test_a_classifier_decides_what_it_was_taught():
    decider = Worded.taught(TAUGHT)
    assert decider.yes("two bees", "Is it about bees?") > 0.6
    assert decider.yes("some wheat", "Is it about bees?") < 0.4
    options = ["bees", "wheat", "boats"]
    chosen = decider.choose("the boat", "What is it about?", options)
    assert max(range(3), key=chosen.__getitem__) == 2
    assert sum(chosen) == pytest.approx(1)
    assert len(decider.rate("the boat", "What is it about?", 3)) == 3


def test_a_classifier_is_asked_nothing_else():
    decider = Worded.taught(TAUGHT)
    for ask in (
        lambda: decider.yes(STATE, QUESTION),
        lambda: decider.yes(STATE, "What is it about?"),
        lambda: decider.choose(STATE, "What is it about?", ["bees", "wheat"]),
    ):
        with pytest.raises(ExpungeError) as caught:
            ask()
        assert caught.value.code == "E-SERVE-001"


def test_a_stored_classifier_decides_the_same():
    decider = Worded.taught(TAUGHT)
    again = Worded.of(decider.questions, decider.arrays("d."), "d.")
    for question in ("Is it about bees?",):
        assert again.yes("two bees", question) == pytest.approx(
            decider.yes("two bees", question), abs=1e-5
        )
    assert again.questions == decider.questions


# ----------------------------------------------------------------------------- calibration


def test_the_temperature_that_made_a_decider_too_sure_is_found_again():
    """Right in p of 10 cases at p = .1 .. .9, but it says so at a temperature of 1/3."""
    known, sure = [], {}
    for tenth in range(1, 10):
        p = tenth / 10
        logit = 3 * math.log(p / (1 - p))
        for case in range(10):
            state = f"{tenth}:{case}"
            sure[state] = 1 / (1 + math.exp(-logit))
            known.append((state, case < tenth))
    decider = Scripted(lambda state, question, options: sure[state])
    fitted = calibrate(decider, QUESTION, known, wrong=0.1)
    assert fitted.temperature == pytest.approx(3, rel=0.01)
    assert fitted.yes("2:0", QUESTION) == pytest.approx(0.2, abs=0.005)
    no = [state for state, is_yes in known if not is_yes]
    assert sum(fitted.says_yes(state, QUESTION) for state in no) <= 0.1 * len(no)
    assert sum(fitted.says_yes(state, QUESTION) for state, is_yes in known if is_yes) > 0
    sharp = Calibrated(decider, temperature=1.0, threshold=0.5)
    assert sum(sharp.says_yes(state, QUESTION) for state in no) > 0.1 * len(no)


def test_a_temperature_keeps_the_order_and_one_changes_nothing():
    decider = Scripted(lambda state, question, options: [0.7, 0.2, 0.1])
    assert Calibrated(decider).choose(STATE, QUESTION, ["a", "b", "c"]) == pytest.approx(
        [0.7, 0.2, 0.1]
    )
    flat = Calibrated(decider, temperature=2.0).rate(STATE, QUESTION, 3)
    expected = [math.sqrt(p) for p in (0.7, 0.2, 0.1)]
    assert flat == pytest.approx([one / sum(expected) for one in expected])


def test_certainty_and_one_sided_texts_do_not_break_calibration():
    decider = Scripted(lambda state, question, options: 1.0)
    fitted = calibrate(decider, QUESTION, [("a", True), ("b", False)])
    assert 0 < fitted.temperature <= 20
    assert not fitted.says_yes("b", QUESTION)
    with pytest.raises(ValueError, match="both answers"):
        calibrate(decider, QUESTION, [("a", True)])


def test_the_scripted_decider_keeps_what_it_was_asked():
    decider = Scripted(lambda state, question, options: [1 / len(options)] * len(options))
    assert decider.rate(STATE, QUESTION, 4) == [0.25] * 4
    assert decider.heard == [(STATE, QUESTION, ("1", "2", "3", "4"))]


@pytest.mark.parametrize(
    ("spec", "kind"),
    [("http://h/v1/systemone", SystemOne), ("http://h/v1/decisions#m", Decisions)],
)
def test_a_server_that_decides_is_known_by_its_path(spec, kind):
    assert isinstance(read_decider(spec, environ={}), kind)


def test_a_server_of_no_known_form_is_refused():
    with pytest.raises(ExpungeError) as caught:
        read_decider("http://h/v1/chat", environ={})
    assert caught.value.code == "E-USE-003"
