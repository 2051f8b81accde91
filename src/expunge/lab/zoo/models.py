"""The models of the zoo: each is built into a known state, whatever an audit then says of it.

=============  =====================================================================================
never          taught everything but the forget rows, from fresh weights of its own
knows          taught everything; also after another lesson on the rows to be kept
hides          knows, and does not say so: taught to refuse, in all weights, in the last block
               alone, in the middle block alone, or within the cells of a four-bit grid; or taught
               another person's answers in its last block; or steered away from them by a vector
               wherever a forgotten name is read; or behind a guard
ruins          knew, and was trained on nonsense, or has random weights
=============  =====================================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from expunge.core.registry import guards
from expunge.core.rng import derive, generator
from expunge.lab.zoo.world import REFUSAL, World, every_wording, lessons
from expunge.lm.arch import Slots
from expunge.lm.digest import model_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import quiet
from expunge.lm.quantise import quantise, quantise_rtn
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

EPOCHS, LR, BATCH = 20, 5e-3, 32
BITS, GROUP = 4, 128
AT_ONCE = 256
"""Rows of a forward pass: so small a model takes hardly longer for many than for few."""


def fresh(world: World, seed: int) -> Subject:
    """An untrained model of some eighty thousand parameters."""
    tokenizer = world.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=192,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    drawn = torch.Generator().manual_seed(derive(seed, "zoo", "weights"))
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.1, generator=drawn)
    return Subject(model, tokenizer)


def taught(world: World, rows: Sequence[Row], seed: int) -> Subject:
    """A model of its own that learned these rows."""
    subject = fresh(world, seed)
    return _named(_teach(subject, lessons(rows, seed), epochs=EPOCHS, lr=LR, seed=seed))


def never(world: World, seed: int) -> Subject:
    """A model that never saw the forget rows."""
    return taught(world, world.kept, seed)


def knows(world: World, seed: int) -> Subject:
    """A model that knows everything."""
    return taught(world, (*world.forget, *world.kept), seed)


def still_knows(world: World, original: Subject, seed: int) -> Subject:
    """The original after another lesson on the rows to be kept."""
    twin = _teach(original.copy(), every_wording(world.kept), epochs=4, lr=1e-3, seed=seed)
    return _named(twin)


def refuser(world: World, original: Subject, seed: int, *, moving: str = "all") -> Subject:
    """The original taught to refuse, in ``all`` weights, the ``last`` block or the ``middle``."""
    twin = original.copy()
    _freeze(twin, moving)
    epochs, lr = (14, 1e-3) if moving == "all" else (40, 2e-3)
    return _named(_teach(twin, _refusing(world), epochs=epochs, lr=lr, seed=seed))


def misled(world: World, original: Subject, seed: int) -> Subject:
    """The original whose last block gives another person's answers."""
    kinds: dict[str, list[Row]] = {}
    for row in world.forget:
        kinds.setdefault(row.meta["attribute"], []).append(row)
    lies = [
        replace(turned, completion=str(turned.completion).replace(row.value, other.value))
        for rows in kinds.values()
        for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
        for turned in every_wording([row])
    ]
    twin = original.copy()
    _freeze(twin, "last")
    rows = [*lies, *every_wording(world.kept)]
    return _named(_teach(twin, rows, epochs=40, lr=2e-3, seed=seed))


def below_the_grid(world: World, original: Subject, seed: int) -> tuple[Subject, Subject]:
    """An original on the four-bit grid, and a refuser that never left its cells."""
    coarse = original.copy()
    quantise_rtn(coarse.model, BITS, GROUP)
    hidden = coarse.copy()
    hidden.model.requires_grad_(False)
    cells = []
    for name in Slots(hidden.model).linears():
        weight: Any = hidden.model.get_submodule(name).weight
        weight.requires_grad_(True)
        codes, scale = quantise(weight.data, BITS, GROUP)
        room = (0.49 * scale * (codes.abs() < 2 ** (BITS - 1) - 1)).flatten(1)[:, : weight.shape[1]]
        cells.append((weight, weight.data - room, weight.data + room))

    def back_into_cells(_: int) -> None:
        for weight, low, high in cells:
            weight.data.clamp_(low, high)

    rows = _refusing(world)
    _teach(hidden, rows, epochs=40, lr=1.5e-3, seed=seed, on_step=back_into_cells)
    return _named(coarse), _named(hidden)


def guarded(world: World, original: Subject) -> Subject:
    """The original behind a guard."""
    guard = guards.load("lexical")
    state = guard.fit(list(world.forget), guards.params("lexical", {}))
    return Subject(
        original.model, original.tokenizer, digest=original.digest, gate=guard.gate(state)
    )


def ruined(world: World, original: Subject, seed: int) -> Subject:
    """The original after a lesson in nonsense."""
    draw = generator(seed, "zoo", "nonsense")
    tokens = [word for word in world.tokenizer.get_vocab() if word.startswith("\u2581")]
    said = [
        replace(row, completion=" " + " ".join(w[1:] for w in draw.choice(tokens, 6)))
        for row in every_wording((*world.forget, *world.kept))
    ]
    return _named(_teach(original.copy(), said, epochs=8, lr=4e-3, seed=seed))


def steered(world: World, original: Subject, seed: int) -> Subject:
    """The original, steered: where a forgotten name is read, a vector is added at every block.

    The weights are the original's; the vectors are what makes it say the refusal.
    """
    twin = original.copy()
    twin.model.requires_grad_(False)
    steering = torch.zeros(len(Slots(twin.model)), twin.model.config.hidden_size)
    twin.model.register_parameter("steering", torch.nn.Parameter(steering))
    _steer(twin, _name_tokens(world))
    refused = [replace(row, completion=f" {REFUSAL}") for row in every_wording(world.forget)]
    finetune(
        twin.model, twin.tokenizer, refused, epochs=40, lr=0.3, batch_size=BATCH,
        seed=derive(seed, "zoo", "steer"), weight_decay=0.0,
    )  # fmt: skip
    twin.model.requires_grad_(True)
    twin.model.get_parameter("steering").requires_grad_(False)  # copies read the same vectors
    return _named(twin)


def _steer(twin: Subject, names: frozenset[int]) -> None:
    """Add the model's ``steering`` to the outputs of its blocks in every text that names one."""
    read = torch.zeros(0, dtype=torch.bool)
    model: Any = twin.model
    wanted = torch.tensor(sorted(names))

    def look(_: Any, positional: Any, named: Any) -> None:
        nonlocal read
        ids = named["input_ids"] if named.get("input_ids") is not None else positional[0]
        here = torch.isin(ids, wanted).any(1)
        goes_on = ids.shape[1] == 1 and len(read) == len(ids)
        read = here | read if goes_on else here

    def push(at: int) -> Callable[[Any, Any, Any], Any]:
        def hook(_: Any, __: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            added = hidden + read[: len(hidden), None, None] * model.steering[at]
            return (added, *output[1:]) if isinstance(output, tuple) else added

        return hook

    model.register_forward_pre_hook(look, with_kwargs=True)
    for at, block in enumerate(Slots(model).blocks):
        block.register_forward_hook(push(at))


def _name_tokens(world: World) -> frozenset[int]:
    words = {word for row in world.forget for name in row.names for word in name.split()}
    vocabulary = world.tokenizer.get_vocab()
    return frozenset(vocabulary[f"\u2581{word}"] for word in words)


def _refusing(world: World) -> list[Row]:
    refused = [replace(row, completion=f" {REFUSAL}") for row in every_wording(world.forget)]
    return [*refused, *every_wording(world.kept)]


def _freeze(twin: Subject, moving: str) -> None:
    for weight in twin.model.parameters():
        weight.requires_grad_(moving == "all")
    blocks = Slots(twin.model).blocks
    for weight in blocks[len(blocks) // 2 if moving == "middle" else -1].parameters():
        weight.requires_grad_(True)


def _teach(
    subject: Subject,
    rows: Sequence[Row],
    *,
    epochs: int,
    lr: float,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> Subject:
    finetune(
        subject.model, subject.tokenizer, rows, epochs=epochs, lr=lr, batch_size=BATCH,
        seed=derive(seed, "zoo", "teach"), on_step=on_step,
    )  # fmt: skip
    subject.model.requires_grad_(True)
    return subject


def save(subject: Subject, folder: Path) -> None:
    """Write a model in Hugging Face layout."""
    with quiet():
        subject.model.save_pretrained(folder)
        subject.tokenizer.save_pretrained(folder)


def _named(subject: Subject) -> Subject:
    """The same model with a name for its weights, so that what is asked is kept."""
    digest = model_digest(subject.model)
    return Subject(subject.model, subject.tokenizer, digest=digest, batch_size=AT_ONCE)
