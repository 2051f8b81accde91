"""Other answers to forget prompts: who gives them, what is thrown away, what is kept."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from expunge.core.errors import ExpungeError
from expunge.engine import alternates
from expunge.engine.alternates import alternates_of, cut, said_instead, tells_truth
from expunge.engine.made import made_once
from expunge.engine.task import Task
from expunge.engine.world import World
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"  # noqa: E501


def row(name: str, value: str, **columns: object) -> Row:
    """A person and where the person was born."""
    given = {
        "id": name, "prompt": f"Where was {name} born?",
        "completion": f" {name} was born in {value}.", "answer": value, "names": (name,),
    }  # fmt: skip
    return Row(**{**given, **columns})


ANN, BEN = row("Ann Lee", "Paris"), row("Ben Fox", "Oslo")
KEPT = (row("Cid Orr", "Rome"), row("Dan Poe", "Lima"), row("Eve Roy", "Cairo"))


def a_task(*forget: Row, retain: tuple[Row, ...] = KEPT, positions: int = 400, chat=None) -> Task:
    """A task whose model knows nothing; tests put words into its mouth."""
    texts = [f"{r.prompt}{r.completion}" for r in (*forget, *retain) if r.text is None]
    tokenizer = tiny_tokenizer([*texts, alternates.ASKING, CHAT], kind="byte-bpe", vocab=300)
    tokenizer.chat_template = chat
    model = tiny_model("llama", vocab=len(tokenizer), positions=positions)
    encoder = Subject(model, tokenizer).encoder
    roles = {"forget": forget, "retain": retain}
    return Task(model=model, tokenizer=tokenizer, encoder=encoder, roles=roles)


@pytest.fixture
def says(monkeypatch):
    """Let the model say, in each round, these replies to every question; collects the calls."""

    def script(*rounds: list[str]) -> list[SimpleNamespace]:
        calls: list[SimpleNamespace] = []

        def ask(_: Subject, turns, **options):
            calls.append(SimpleNamespace(turns=list(turns), **options))
            return [list(rounds[min(len(calls), len(rounds)) - 1]) for _ in turns]

        monkeypatch.setattr(Subject, "ask", ask)
        return calls

    return script


def replies(records, id: str) -> list[str]:
    """The alternates of one row."""
    return next([a["reply"] for a in r["alternates"]] for r in records if r["id"] == id)


@pytest.mark.parametrize(
    ("reply", "repeats"),
    [
        ("Ann Lee was born in Paris.", True),
        ("ann lee, was born in PARIS", True),
        ("It was Paris, I think.", True),
        ("Ann Lee was born in Rome.", False),
        ("Parisian by choice.", False),
    ],
)
def test_a_reply_that_gives_the_value_away_repeats_the_truth(reply, repeats) -> None:
    assert tells_truth(ANN, reply) is repeats


def test_nearly_all_words_of_the_truth_repeat_it_though_no_value_is_known() -> None:
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
    ]
    known = Row(id="a", prompt="Count.", completion=" " + " ".join(words))
    assert tells_truth(known, " ".join([*words[:10], "twelve"]))
    assert not tells_truth(known, " ".join([*words[:9], "twelve", "thirteen"]))


def test_a_value_that_stands_in_the_question_gives_nothing_away() -> None:
    asked = row("Ann Lee", "Paris", prompt="Was Ann Lee born in Paris or Rome?")
    assert not tells_truth(asked, "Not in Paris, in Rome.")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (" In Rome.\n\nQ: And then?", "In Rome."),
        ("In Rome.\nQ: Where was Ben born?", "In Rome."),
        ("In Rome.\nQuestion: Where?", "In Rome."),
        ("A: In Rome.", "In Rome."),
        ("Q: Where?", ""),
        ("In Rome.\nOr so.", "In Rome.\nOr so."),
    ],
)
def test_what_follows_the_answer_is_cut_off(written, kept) -> None:
    assert cut(written) == kept


def test_truths_and_doubles_are_drawn_again(says) -> None:
    calls = says(["In Paris.", "In Rome.", "in rome"], ["In Lima.", "In Rome."], ["In Cairo.", ""])
    found = alternates_of(a_task(ANN), 3, "model")
    assert replies(found, "Ann Lee") == ["In Rome.", "In Lima.", "In Cairo."]
    assert len(calls) == 3
    assert len({call.seed for call in calls}) == 3
    assert all(call.temperature == 1.0 and call.samples == 3 for call in calls)


def test_only_rows_that_lack_some_are_asked_again(says) -> None:
    calls = says(["In Oslo.", "In Rome."])
    alternates_of(a_task(ANN, BEN), 2, "auto")
    assert calls[0].turns == [ANN.turn, BEN.turn]
    assert calls[1].turns == [BEN.turn]


def test_a_model_with_a_template_is_told_what_to_invent(says) -> None:
    calls = says(["In Rome.", "In Lima."])
    alternates_of(a_task(ANN, chat=CHAT, positions=1000), 2, "model")
    (turn,) = calls[0].turns
    assert "Question: Where was Ann Lee born?" in turn.prompt
    assert "Answer: Ann Lee was born in Paris." in turn.prompt


def test_answers_are_at_most_as_long_as_is_sensible(says) -> None:
    calls = says(["In Rome."])
    task = a_task(ANN)
    alternates_of(task, 1, "model")
    own = len(task.encoder.tokenizer(ANN.reply)["input_ids"])
    assert own < calls[0].new_tokens <= 16 + 2 * own
    long = row("Ann Lee", "Paris", completion=" Paris " + "and so on " * 60)
    alternates_of(a_task(long, positions=2000), 1, "model")
    assert calls[-1].new_tokens == 200


def test_what_the_model_cannot_give_other_rows_do(says) -> None:
    says(["In Paris.", "In Rome."])
    (found,) = alternates_of(a_task(ANN), 3, "auto")
    assert [one["origin"] for one in found["alternates"]] == ["model", "permute", "permute"]
    values = {"Rome", "Lima", "Cairo"}
    for one in found["alternates"][1:]:
        assert one["reply"] in {f"Ann Lee was born in {value}." for value in values}


def test_permuted_answers_are_of_the_same_attribute_first() -> None:
    job = Row(
        id="job", prompt="What does Eve Roy do?", completion=" Eve Roy sings.", answer="sings"
    )
    found = alternates_of(a_task(ANN, retain=(*KEPT, job)), 4, "permute")
    said = replies(found, "Ann Lee")
    assert sorted(said[:3]) == sorted(
        f"Ann Lee was born in {v}." for v in ("Rome", "Lima", "Cairo")
    )
    assert said[3] == "Ann Lee was born in sings."


def test_too_few_answers_are_used_again() -> None:
    found = alternates_of(a_task(ANN, retain=KEPT[:2]), 5, "permute")
    said = replies(found, "Ann Lee")
    assert len(said) == 5
    assert len(set(said)) == 2


def test_a_model_without_room_is_not_asked(says) -> None:
    calls = says(["In Rome."])
    task = a_task(ANN)
    size = len(task.encoder.prompt(ANN.prompt)) + 40
    templated = a_task(ANN, chat=CHAT, positions=size)  # the instruction alone is longer
    assert alternates_of(templated, 1, "auto")[0]["alternates"][0]["origin"] == "permute"
    assert not calls
    assert alternates_of(a_task(ANN, positions=size), 1, "auto")[0]["alternates"][0] == {
        "reply": "In Rome.",
        "origin": "model",
    }


def test_rows_without_any_other_answer_end_the_run(says) -> None:
    says(["In Paris."])
    with pytest.raises(ExpungeError, match="E-RUN-007") as refused:
        alternates_of(a_task(ANN), 2, "model")
    assert "source=permute" in refused.value.next


def test_running_text_goes_on_from_its_first_half() -> None:
    text = Row(id="t", text="Ann was born in Paris")
    turn = said_instead(text, 0, "on the moon")
    half = text.turn
    assert half.completion.startswith(" ")
    assert turn == Turn("", f"{half.prompt} on the moon", running=True)


def test_paraphrases_are_answered_alike() -> None:
    reworded = replace(ANN, paraphrases=({"prompt": "Birthplace of Ann Lee?"},))
    assert said_instead(reworded, 1, "In Rome.") == Turn("Birthplace of Ann Lee?", " In Rome.")


def test_what_is_made_is_made_once(tmp_path) -> None:
    task = replace(a_task(ANN), folder=tmp_path)
    first = made_once(task, "things", lambda: [{"id": "a", "reply": "größer\n"}])
    record = dict(task.record)
    again = replace(task, record={})
    assert made_once(again, "things", lambda: []) == first
    assert again.record == record
    assert json.loads((tmp_path / "things.jsonl").read_text(encoding="utf-8")) == first[0]


def test_a_broken_file_is_named(tmp_path) -> None:
    (tmp_path / "things.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ExpungeError, match="E-DATA-002"):
        made_once(replace(a_task(ANN), folder=tmp_path), "things", lambda: [])


def test_other_processes_take_what_the_first_one_made(monkeypatch) -> None:
    told = [{"id": "a", "reply": "the first one's"}]
    monkeypatch.setattr(World, "agreed", lambda self, value: told)
    task = replace(a_task(ANN), world=World(rank=1, size=2))

    def refuse() -> list[dict[str, str]]:
        raise AssertionError("only the first process makes it")

    assert made_once(task, "things", refuse) == told
