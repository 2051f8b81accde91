"""Text in front of a row: the answer's tokens stay what they are."""

import pytest

from expunge.core.errors import ExpungeError
from expunge.engine.digressions import EXPERT, NOVICE
from expunge.engine.prefaces import prefaced
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.testing import tiny_model, tiny_tokenizer

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"  # noqa: E501


def an_encoder(chat: str | None = None, bos: bool = True):
    """A byte-level tokenizer, so that a seam could merge."""
    tokenizer = tiny_tokenizer([*EXPERT, "Where was Ann born? Ann was born in Paris."], vocab=300)
    tokenizer.chat_template = chat
    model = tiny_model("llama", vocab=len(tokenizer), positions=500)
    return Subject(model, tokenizer).encoder


@pytest.mark.parametrize("chat", [None, CHAT])
@pytest.mark.parametrize(
    "turn",
    [
        Turn("Where was Ann born?", " In Paris."),
        Turn("", "Ann was born in Paris.", running=True),
        Turn("", "In Paris."),
    ],
)
def test_behind_a_preface_the_very_same_tokens_are_supervised(chat, turn) -> None:
    encoder = an_encoder(chat)
    origin = encoder.encode(turn)
    item = prefaced(encoder, origin, turn, "Written by an expert on Ann.\n\n")
    assert [t for t in item.labels if t != -100] == [t for t in origin.labels if t != -100]
    assert all(label in (-100, token) for token, label in zip(item.ids, item.labels, strict=True))
    assert "expert on Ann" in encoder.decode(item.ids)
    assert len(item.ids) > len(origin.ids)
    assert item.ids[0] == origin.ids[0]
    assert item.spans == origin.spans


def test_only_chosen_parts_stay_supervised() -> None:
    encoder = an_encoder()
    turn = Turn("Where was Ann born?", " Ann was born in Paris.")
    origin = encoder.encode(turn, keep=((17, 22),))
    item = prefaced(encoder, origin, turn, "Written by an expert.\n\n")
    assert encoder.decode([t for t in item.labels if t != -100]).strip() == "Paris"


def test_in_a_conversation_the_preface_opens_the_question() -> None:
    encoder = an_encoder(CHAT)
    turn = Turn("Where was Ann born?", "In Paris.")
    text = encoder.decode(prefaced(encoder, encoder.encode(turn), turn, "By an expert. ").ids)
    assert text.startswith("[user] By an expert. Where was Ann born?")
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"})
    turn = Turn(messages, "In Paris.")
    text = encoder.decode(prefaced(encoder, encoder.encode(turn), turn, "By an expert. ").ids)
    assert "Be brief.\n[user] By an expert. Where?" in text


def test_a_preface_too_long_for_the_model_is_refused() -> None:
    encoder = an_encoder()
    turn = Turn("Where?", " Here.")
    with pytest.raises(ExpungeError, match="E-DATA-011"):
        prefaced(encoder, encoder.encode(turn), turn, "long " * 600)


def test_all_prefaces_name_the_subject_and_differ() -> None:
    texts = [text.format(subject="Ann Lee") for text in (*EXPERT, *NOVICE)]
    assert len(set(texts)) == 20
    assert all("Ann Lee" in text and text.endswith("\n\n") for text in texts)
