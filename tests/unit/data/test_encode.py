import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED, Encoded, Encoder, by_length, collate
from expunge.requests.rows import Row, Turn

TEXTS = ["Where was Mira Voss born? Mira Voss was born in Paris. aaa bbb aab"] * 4
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THINKING = CHATML.replace(
    "<|assistant|>\n{% endif %}", "<|assistant|>\n<think>\n\n</think>\n\n{% endif %}"
)
STRICT = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}x"
TURN = Turn("Where was Mira Voss born?", " Mira Voss was born in Paris.")


def bpe(bos=True, eos="</s>", pad="<pad>", template=None, adds_eos=False):
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    if bos:
        single = "<s> $A </s>" if adds_eos else "<s> $A"
        inner.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=pad)
    tokenizer.bos_token = "<s>" if bos else None
    tokenizer.eos_token = eos
    tokenizer.chat_template = template
    return tokenizer


def word_level():
    known = ["[UNK]", *sorted(set(" ".join(TEXTS).replace("?", " ?").replace(".", " .").split()))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")  # noqa: S106


def supervised(encoded):
    return [token for token in encoded.labels if token != IGNORED]


def said(encoder, encoded):
    return encoder.decode(supervised(encoded))


@pytest.mark.parametrize("template", [None, CHATML, THINKING])
def test_labels_are_the_ids_and_spans_follow_them(template):
    encoder = Encoder(bpe(template=template), 100)
    encoded = encoder.encode(TURN, row=7)
    assert encoded.row == 7
    assert len(encoded.ids) == len(encoded.labels)
    assert all(b in (a, IGNORED) for a, b in zip(encoded.ids, encoded.labels, strict=True))
    assert len(encoded.spans) == len(supervised(encoded))
    assert encoded.spans == sorted(encoded.spans)
    n = len(TURN.completion)
    assert encoded.spans[-1] == (n, n)
    touched = {i for start, end in encoded.spans for i in range(start, end)}
    assert touched >= {i for i, char in enumerate(TURN.completion) if char.strip()}


def test_the_completion_and_its_end_are_supervised_and_nothing_else():
    tokenizer = bpe()
    encoder = Encoder(tokenizer, 100)
    encoded = encoder.encode(TURN)
    assert said(encoder, encoded) == TURN.completion
    assert supervised(encoded)[-1] == tokenizer.eos_token_id
    assert encoder.decode(encoded.ids) == TURN.prompt + TURN.completion
    prompt = encoder.prompt(TURN.prompt)
    assert encoded.ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [IGNORED] * len(prompt)


def test_a_token_that_merges_over_the_boundary_is_supervised():
    encoder = Encoder(bpe(), 100)
    encoded = encoder.encode(Turn("Mira Vo", "ss was"))
    tokenizer = encoder.tokenizer
    merged = tokenizer(" Voss", add_special_tokens=False)["input_ids"]
    assert len(merged) == 1
    assert merged[0] in encoded.ids
    assert supervised(encoded)[0] == merged[0]
    assert encoded.spans[0] == (0, 2)
    alone = tokenizer("Mira Vo")["input_ids"]
    assert len(encoded.ids) - len(supervised(encoded)) < len(alone)


def test_a_prompt_that_ends_with_a_space_is_still_the_beginning_of_the_whole():
    encoder = Encoder(bpe(), 100)
    encoded = encoder.encode(Turn("Mira Voss was born in ", "Paris."))
    prompt = encoder.prompt("Mira Voss was born in ")
    assert encoded.ids[: len(prompt)] == prompt
    assert encoder.decode(prompt) == "Mira Voss was born in"
    assert encoded.spans[0] == (0, 5)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("adds_eos", [True, False])
def test_beginning_and_end_stand_once(bos, template, adds_eos):
    if template and not bos:
        template = template.replace("{{ bos_token }}", "")
    encoder = Encoder(bpe(bos=bos, template=template, adds_eos=adds_eos), 100)
    encoded = encoder.encode(TURN)
    prompt = encoder.prompt(TURN.prompt)
    end = 6 if template else 2  # <|end|> or </s>
    assert encoded.ids.count(1) == prompt.count(1) == int(bos)
    assert encoded.ids[-1] == end
    assert supervised(encoded).count(end) == 1
    assert 2 not in prompt


def test_a_beginning_written_by_the_user_is_not_doubled():
    assert Encoder(bpe(), 100).prompt("<s>Where was").count(1) == 1


def test_a_tokenizer_without_an_end_works():
    encoder = Encoder(word_level(), 100)
    encoded = encoder.encode(TURN)
    assert len(supervised(encoded)) == len(["Mira", "Voss", "was", "born", "in", "Paris", "."])
    assert encoded.spans[-1] == (len(TURN.completion) - 1, len(TURN.completion))


def test_running_text_supervises_every_token_but_the_first():
    row = Row(id="1", text="Mira Voss was born in Paris.")
    for tokenizer in (bpe(), bpe(bos=False), bpe(template=CHATML), word_level()):
        encoded = Encoder(tokenizer, 100).encode(row.training)
        assert encoded.labels == [IGNORED, *encoded.ids[1:]]
    wrapped = Encoder(bpe(template=CHATML), 100).encode(row.training)
    assert wrapped == Encoder(bpe(), 100).encode(row.training)


def test_ranges_restrict_what_is_supervised():
    encoder = Encoder(bpe(), 100)
    start = TURN.completion.index("Paris")
    encoded = encoder.encode(TURN, keep=[(start, start + 5)])
    assert said(encoder, encoded) == " Paris"
    assert encoded.ids == encoder.encode(TURN).ids
    row = Row(id="1", text="Mira Voss was born in Paris.", spans=((5, 9), (22, 27)))
    assert said(encoder, encoder.encode(row.training, keep=row.spans)) == " Voss Paris"


def test_nothing_to_supervise_is_refused():
    for turn, keep in [(TURN, [(900, 901)]), (Turn("a", ""), ())]:
        with pytest.raises(ExpungeError, match="E-DATA-012"):
            Encoder(word_level(), 100).encode(turn, keep=keep)


def test_too_long_is_refused_with_both_lengths_and_never_cut():
    encoder = Encoder(bpe(), 100)
    length = len(encoder.encode(TURN).ids)
    assert len(Encoder(bpe(), length).encode(TURN).ids) == length
    with pytest.raises(ExpungeError, match="E-DATA-011") as caught:
        Encoder(bpe(), length - 1).encode(TURN, row=3)
    assert str(length) in caught.value.found
    assert "Row 3" in caught.value.found
    assert str(length - 1) in caught.value.expected
    asked = len(encoder.prompt(TURN.prompt))
    assert len(Encoder(bpe(), asked + 1).prompt(TURN.prompt)) == asked
    with pytest.raises(ExpungeError, match="E-DATA-011"):
        Encoder(bpe(), asked).prompt(TURN.prompt)


@pytest.mark.parametrize("completion", ["Paris is it.", "  Paris is it. \n"])
def test_a_template_is_followed_to_the_end_of_the_turn(completion):
    tokenizer = bpe(template=CHATML)
    encoder = Encoder(tokenizer, 100)
    encoded = encoder.encode(Turn("Where was Mira Voss born?", completion))
    messages = [
        {"role": "user", "content": "Where was Mira Voss born?"},
        {"role": "assistant", "content": completion},
    ]
    rendered = tokenizer.apply_chat_template(messages, return_dict=False)
    opened = tokenizer.apply_chat_template(
        messages[:1], add_generation_prompt=True, return_dict=False
    )
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert encoded.ids + newline == rendered
    assert encoder.prompt("Where was Mira Voss born?") == opened
    assert encoded.labels == [IGNORED] * len(opened) + rendered[len(opened) : -1]
    assert completion[encoded.spans[0][0] : encoded.spans[0][1]].strip()[0] == "P"
    assert encoded.spans[-1] == (len(completion), len(completion))


def test_a_generation_prompt_that_is_no_prefix_still_opens_the_trained_text():
    encoder = Encoder(bpe(template=THINKING), 100)
    encoded = encoder.encode(TURN)
    prompt = encoder.prompt(TURN.prompt)
    assert "</think>" in encoder.decode(prompt)
    assert encoded.ids[: len(prompt)] == prompt
    assert said(encoder, encoded).strip() == TURN.completion.strip()
    assert encoded.ids[-1] == 6


def test_only_the_last_reply_of_a_conversation_is_supervised():
    encoder = Encoder(bpe(template=CHATML), 100)
    talk = (
        {"role": "user", "content": "Where was"},
        {"role": "assistant", "content": "in Paris."},
        {"role": "user", "content": "born?"},
    )
    assert said(encoder, encoder.encode(Turn(talk, "in Paris."))) == "in Paris."


def test_a_template_without_an_end_of_turn_gets_the_tokenizers():
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    encoded = Encoder(bpe(template=template), 100).encode(TURN)
    assert encoded.ids[-1] == 2
    assert encoded.ids.count(2) == 1


def test_messages_without_a_template_are_refused():
    talk = ({"role": "user", "content": "a"},)
    for encoder in (Encoder(bpe(), 100), Encoder(bpe(template=CHATML), 100, chat="never")):
        with pytest.raises(ExpungeError, match="E-MODEL-006"):
            encoder.encode(Turn(talk, "b"))
        with pytest.raises(ExpungeError, match="E-MODEL-006"):
            encoder.prompt(talk)
    with pytest.raises(ExpungeError, match="E-MODEL-006"):
        Encoder(bpe(), 100, chat="always")


def test_never_leaves_the_template_aside():
    with_template, without = bpe(template=CHATML), bpe()
    assert Encoder(with_template, 100, chat="never").encode(TURN) == Encoder(without, 100).encode(
        TURN
    )


def test_a_template_that_refuses_or_swallows_is_an_error_in_words():
    system = Turn(({"role": "system", "content": "a"},), "b")
    with pytest.raises(ExpungeError, match="user first"):
        Encoder(bpe(template=STRICT), 100).encode(system)
    with pytest.raises(ExpungeError, match="does not render"):
        Encoder(bpe(template=STRICT), 100).encode(TURN)


def test_an_opening_stands_after_the_prompt():
    encoder = Encoder(bpe(template=CHATML), 100)
    plain, opened = encoder.prompt("born?"), encoder.prompt("born?", opening="Mira Voss")
    assert opened[: len(plain)] == plain
    assert encoder.decode(opened[len(plain) :]) == "Mira Voss"
    assert encoder.prompt("Mira", running=True) == Encoder(bpe(), 100).prompt("Mira")


def test_an_empty_prompt_begins_with_a_special_token():
    assert Encoder(bpe(), 100).prompt("") == [1]
    assert Encoder(bpe(bos=False), 100).prompt("") == [2]
    with pytest.raises(ExpungeError, match="E-DATA-012"):
        Encoder(word_level(), 100).prompt("")


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=20), completion=st.text(min_size=1, max_size=20))
def test_any_text_is_encoded_without_loss(prompt, completion):
    if "<" in prompt + completion:
        return  # might spell a special token
    encoder = ANY_TEXT
    encoded = encoder.encode(Turn(prompt, completion))
    assert encoder.decode(encoded.ids) == prompt + completion
    assert said(encoder, encoded).endswith(completion) or "\ufffd" in said(encoder, encoded)
    assert all(0 <= a <= b <= len(completion) for a, b in encoded.spans)


ANY_TEXT = Encoder(bpe(), 500)


def test_padding_that_is_also_the_end_hides_no_end():
    tokenizer = bpe(pad="</s>")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    encoder = Encoder(tokenizer, 100)
    items = [encoder.encode(TURN), encoder.encode(Turn("Where", " was"))]
    batch = collate(items, tokenizer.pad_token_id)
    lengths = [len(item.ids) for item in items]
    assert batch.attention_mask.sum(1).tolist() == lengths
    for line, item in enumerate(items):
        assert batch.input_ids[line, : len(item.ids)].tolist() == item.ids
        assert batch.labels[line, len(item.ids) - 1] == 2
        assert (batch.labels[line, len(item.ids) :] == IGNORED).all()


def test_left_padding_mirrors_right_padding():
    items = [
        Encoded([1, 5, 6], [IGNORED, 5, 6], [(0, 1), (1, 1)], 4),
        Encoded([1], [IGNORED], [], 9),
    ]
    left, right = collate(items, 0, side="left"), collate(items, 0)
    assert left.input_ids.tolist() == [[1, 5, 6], [0, 0, 1]]
    assert right.input_ids.tolist() == [[1, 5, 6], [1, 0, 0]]
    assert left.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left.labels.tolist()[1] == right.labels.tolist()[1] == [IGNORED] * 3
    assert left.rows.tolist() == [4, 9]
    assert left.input_ids.dtype == left.labels.dtype == torch.int64


def test_buckets_hold_every_index_once_longest_first():
    lengths = [3, 9, 1, 9, 4]
    assert by_length(lengths, 2) == [[1, 3], [4, 0], [2]]
    assert by_length([], 2) == []


def test_a_prompt_that_is_remembered_is_nobodys_to_change():
    encoder = Encoder(bpe(), 64)
    first = encoder.prompt("Where was Mira Voss born?")
    kept = list(first)
    first.append(7)
    assert encoder.prompt("Where was Mira Voss born?") == kept
    assert encoder.prompt("Where was Mira Voss born?", opening=" In") != kept


def test_a_templated_prompt_is_remembered_apart_from_running_text():
    encoder = Encoder(bpe(template=CHATML), 64)
    asked = encoder.prompt("Where was Mira Voss born?")
    assert encoder.prompt("Where was Mira Voss born?", running=True) != asked
    assert encoder.prompt("Where was Mira Voss born?") == asked


def test_the_last_token_of_a_name_is_found_in_the_prompt_alone():
    for template in (None, CHATML):
        encoder = Encoder(bpe(template=template), 64)
        item, at = encoder.encode(TURN), encoder.last_token_of(TURN, "Mira Voss")
        before = encoder.tokenizer.decode(item.ids[: at + 1])
        assert before.endswith("Where was Mira Voss")
        assert encoder.last_token_of(TURN, "Paris") is None
