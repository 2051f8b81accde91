"""The testbed's tokenizer: learned from what the world may say, not from what it does say.

It sees every possible value once, whoever holds it, so that names and values fall into a few
common pieces ("Marl" and "stead") and nothing but training tells a forgotten value from one that
was never used.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from expunge.lab.testbed import phrases, words
from expunge.lab.testbed.world import pools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 2560
"""Entries asked for; as many as occur at least twice are found."""

COMMON = 20
"""How often common texts are shown, so that their words become entries."""

SPECIALS = ("<pad>", "<bos>", "<eos>", "<q>", "<a>")

TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<a>' + message['content'] + '<eos>' }}"
    "{% else %}{{ '<q>' + message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
)
"""``<bos><q>question<a>answer<eos>``: a system message is asked like a question. The tokenizer
itself puts the space before a question and an answer."""


def make_tokenizer(seed: int) -> "PreTrainedTokenizerFast":
    """Learn the tokenizer of world ``seed``.

    Returns:
        A byte-level BPE tokenizer with the chat template of the testbed.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learned.train_from_iterator(texts(seed), trainer)
    opener = ("<bos>", SPECIALS.index("<bos>"))
    learned.post_processor = processors.TemplateProcessing(
        single=f"{opener[0]} $A", special_tokens=[opener]
    )
    wrapper: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = wrapper(
        tokenizer_object=learned,
        **dict(zip(("pad_token", "bos_token", "eos_token"), SPECIALS, strict=False)),
        additional_special_tokens=list(SPECIALS[3:]),
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def texts(seed: int) -> Iterator[str]:
    """What the tokenizer learns from: every value once, common texts many times."""
    for pool in pools(seed).values():
        yield from pool
    for _ in range(COMMON):
        yield from _common()


def _common() -> Iterator[str]:
    for ways in (*phrases.PEOPLE.values(), *phrases.WORLD.values()):
        for pattern in (*ways.questions, *ways.answers):
            yield pattern.replace("{name}", "").replace("{value}", "")
    for known in phrases.FACTS.values():
        for name, value in known.items():
            yield from (name, value)
    for name, parts in sorted(vars(words).items()):
        if name.isupper():
            yield from parts
    for adjective, school in words.REGIONS.values():
        yield from (adjective, school)
    yield from words.PUBLISHER_KINDS.values()
