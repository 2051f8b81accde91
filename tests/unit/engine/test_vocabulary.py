"""Tokens added to a model: what grows, what stays to the bit, how a change keeps and undoes it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoder
from expunge.engine import change as changes
from expunge.engine.change import PATCH, load_change, revert, write_patch
from expunge.engine.outcome import FORMAT
from expunge.engine.task import Task
from expunge.engine.token_rows import TokenRows, noisy, train_rows
from expunge.engine.vocabulary import ADDED, BEFORE, add_tokens, write_tokens
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.load import load
from expunge.lm.patch import apply_xor, xor
from expunge.lm.samples import check_same_tokens
from expunge.lm.subject import Subject
from expunge.lm.vocabulary import other_tokens
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer

FAMILIES = ("llama", "llama_tied", "gemma3", "qwen3", "gpt2", "gpt_neox")
UNTIED = ("llama", "gpt_neox", "qwen3")
TEXTS = ["Where was Anna born? In Oslo.", "He: I do not know.", "user assistant [ ]"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def task(
    family: str = "llama", *, spare: int = 0, seed: int = 0, folder: Path | None = None
) -> Task:
    """A task on a small model of its own."""
    tokenizer = tiny_tokenizer(TEXTS, kind="word")
    model = tiny_model(family, vocab=len(tokenizer) + spare, hidden=16, layers=2, positions=64)
    if folder is not None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    row = Row(id="a", prompt="Where was Anna born?", completion=" In Oslo.")
    return Task(
        model=model, tokenizer=tokenizer, encoder=Encoder(tokenizer, 64), roles={"forget": [row]},
        seed=seed,
    )  # fmt: skip


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Tensors that differ in the rows that they had before."""
    assert before.keys() == after.keys()
    return {n for n, old in before.items() if not torch.equal(after[n][: len(old)], old)}


# ------------------------------------------------------------------------------------ in memory


def test_a_token_gets_a_row_and_every_other_stays(family: str) -> None:
    made = task(family)
    before, count = weights(made.model), len(made.tokenizer)
    (at,) = add_tokens(made, ["<UNL>"])
    after = weights(made.model)
    assert at == count == made.model.config.get_text_config().vocab_size - 1
    assert not differing(before, after)
    grown = {name for name, old in before.items() if len(after[name]) != len(old)}
    slots = Slots(made.model)
    assert len(slots.embed.weight) == len(slots.head.weight) == count + 1
    assert (slots.embed.weight is slots.head.weight) is (family not in UNTIED)
    assert len(grown) == 2  # tied ones stand in the state twice
    assert slots.head.out_features == count + 1
    assert made.added == {"<UNL>": at}


def test_the_head_gets_a_copy_as_wide_as_its_own_rows() -> None:
    made = task("llama")
    with torch.no_grad():
        Slots(made.model).head.weight.mul_(3)
    (at,) = add_tokens(made, ["<UNL>"])
    embed, head = Slots(made.model).embed.weight, Slots(made.model).head.weight
    wider = head[:at].std() / embed[:at].std()
    torch.testing.assert_close(head[at], embed[at] * wider)
    assert 0.3 < float(embed[at].detach().std() / embed[:at].detach().std()) < 3


def test_the_token_is_special_and_leaves_the_text() -> None:
    made = task()
    (at,) = add_tokens(made, ["<UNL>"])
    ids = made.tokenizer("Where?<UNL> I do not know.<UNL>", add_special_tokens=False)["input_ids"]
    assert ids.count(at) == 2
    assert made.encoder.decode(ids) == "Where? I do not know."
    assert "<UNL>" in made.tokenizer.all_special_tokens


def test_the_row_is_drawn_by_seed_and_name_alone() -> None:
    def row(seed: int, name: str, noise: int) -> Tensor:
        torch.manual_seed(noise)
        made = task(seed=seed)
        (at,) = add_tokens(made, [name])
        return Slots(made.model).embed.weight[at].detach().clone()

    assert torch.equal(row(0, "<UNL>", 1), row(0, "<UNL>", 2))
    assert not torch.equal(row(0, "<UNL>", 1), row(1, "<UNL>", 1))
    assert not torch.equal(row(0, "<UNL>", 1), row(0, "<OTHER>", 1))


def test_a_padded_vocabulary_gives_a_spare_row() -> None:
    made = task(spare=3)
    before, used = weights(made.model), len(made.tokenizer)
    first = add_tokens(made, ["<UNL-1>", "<UNL-2>"])
    after = weights(made.model)
    assert first == [used, used + 1]
    assert all(after[name].shape == old.shape for name, old in before.items())
    rows = Slots(made.model).embed.weight
    assert torch.equal(rows[used + 2], before["model.embed_tokens.weight"][used + 2])
    assert not torch.equal(rows[used], before["model.embed_tokens.weight"][used])
    assert add_tokens(made, ["<UNL-3>", "<UNL-4>"]) == [used + 2, used + 3]
    assert len(Slots(made.model).embed.weight) == used + 4


def test_what_asks_for_a_gradient_goes_on_so() -> None:
    made = task("llama")
    made.model.requires_grad_(False)
    add_tokens(made, ["<UNL>"])
    assert not any(weight.requires_grad for weight in made.model.parameters())


def test_a_token_that_is_there_is_refused() -> None:
    made = task()
    before = weights(made.model)
    for name in ("Anna", "<eos>"):
        known = name if name in made.tokenizer.get_vocab() else " Anna"
        with pytest.raises(ExpungeError) as caught:
            add_tokens(made, ["<UNL>", known])
        assert caught.value.code == "E-USE-003"
        assert known in caught.value.found
    assert all(torch.equal(made.model.state_dict()[name], old) for name, old in before.items())
    assert "<UNL>" not in made.tokenizer.get_vocab()


def test_under_an_adapter_nothing_grows() -> None:
    from peft import LoraConfig, get_peft_model

    made = task()
    adapted = get_peft_model(made.model, LoraConfig(target_modules=["q_proj"]))
    wrapped = Task(
        model=adapted, tokenizer=made.tokenizer, encoder=made.encoder, roles=made.roles
    )  # fmt: skip
    with pytest.raises(ExpungeError, match="E-USE-006"):
        add_tokens(wrapped, ["<UNL>"])


# ------------------------------------------------------------------------------ rows in training


def lesson(made: Task, at: int):
    name = made.tokenizer.convert_ids_to_tokens(at)
    return [made.encoder.encode(Turn("Where was Anna born?", f"{name} I do not know.{name}"))]


@pytest.mark.parametrize("head", [False, True])
def test_only_the_rows_of_the_token_move(family: str, head: bool) -> None:
    made = task(family)
    (at,) = add_tokens(made, ["<UNL>"])
    before = weights(made.model)
    moved = TokenRows(made.model, [at], head=head)
    items = lesson(made, at)
    options = {"lr": 0.05, "batch_size": 4, "pad": 0, "seed": 0}
    early = train_rows(moved, items, steps=1, **options)
    late = train_rows(moved, items, steps=30, **options)
    assert late < early
    rows = [row for row in range(at + 1) if row != at]
    for name, old in weights(made.model).items():
        if len(old) == at + 1 and name in before:
            assert torch.equal(old[rows], before[name][rows]), name
        else:
            assert torch.equal(old, before[name]), name
    slots = Slots(made.model)
    assert not torch.equal(slots.embed.weight[at], before[embedding(made.model)][at])
    if family in UNTIED:
        own = next(n for n, p in made.model.named_parameters() if p is slots.head.weight)
        assert torch.equal(slots.head.weight[at], before[own][at]) is not head


def embedding(model: PreTrainedModel) -> str:
    return next(n for n, p in model.named_parameters() if p is Slots(model).embed.weight)


def test_the_gradient_of_a_tied_row_has_both_parts() -> None:
    """Against autograd on the whole matrix."""
    from expunge.data.encode import collate
    from expunge.lm.scoring import packed_logp

    made = task("llama_tied")
    (at,) = add_tokens(made, ["<UNL>"])
    loss = -packed_logp(made.model, collate(lesson(made, at), 0)).logp.mean()
    (whole,) = torch.autograd.grad(loss, [Slots(made.model).embed.weight], retain_graph=True)
    moved = TokenRows(made.model, [at])
    moved.gradients(loss)
    assert torch.equal(moved.rows[0].grad, whole[[at]])
    assert moved.rows[0].grad.any()


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    made = task()
    (at,) = add_tokens(made, ["<UNL>"])
    with torch.no_grad():
        Slots(made.model).embed.weight[at] = torch.nan
    with pytest.raises(ExpungeError, match="E-RUN-002"):
        train_rows(
            TokenRows(made.model, [at]), lesson(made, at), steps=1, lr=1.0, batch_size=1, pad=0,
            seed=0,
        )  # fmt: skip


def test_noise_is_cut_off_and_gone_to_the_bit() -> None:
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    before = weight.clone()
    with noisy(weight, 0.01, seed=1):
        first = weight - before
        assert 0.004 < float(first.std()) < 0.01
        assert float(first.abs().max()) < 0.01 + 1e-6
    assert torch.equal(weight, before)
    with noisy(weight, 0.01, seed=1):
        assert torch.equal(weight - before, first)
    with noisy(weight, 0.01, seed=2):
        assert not torch.equal(weight - before, first)


def test_noise_is_gone_when_the_step_fails() -> None:
    weight = torch.ones(3, 3)

    def fail() -> None:
        with noisy(weight, 0.5, seed=2):
            assert not torch.equal(weight, torch.ones(3, 3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(weight, torch.ones(3, 3))


# -------------------------------------------------------------------------------------- on disk


def finished(
    original: Path, out: Path, names: list[str], change: Callable[[PreTrainedModel], None] | None
) -> Task:
    """What a run writes that adds tokens, and moves one weight more."""
    loaded = load(original)
    made = Task(
        model=loaded.model, tokenizer=loaded.tokenizer, encoder=Encoder(loaded.tokenizer, 64),
        roles={},
    )  # fmt: skip
    if names:
        add_tokens(made, names)
    if change is not None:
        with torch.no_grad():
            change(made.model)
    for weight in made.model.parameters():
        weight.data = weight.data.to(loaded.stored_dtype)
    made.model.save_pretrained(out)
    changes.copy_tokenizer(original, out)
    count = write_patch(original, out)
    added = write_tokens(inspect_folder(original), out, made)
    manifest = {
        "format": FORMAT, "kind": "checkpoint", "method": "test", "runtime": None,
        "parent": {"path": str(original), "digest": loaded.digest},
        "result": {"digest": folder_digest(out)}, "summary": {"weights_changed": count},
        **({ADDED: added} if added else {}),
    }  # fmt: skip
    (out / changes.MANIFEST).write_text(json.dumps(manifest))
    return made


def shift(model: PreTrainedModel) -> None:
    Slots(model).module(0, "mlp_out").weight[0, 0] += 1.0


def assert_is(folder: Path, original: Path) -> None:
    """The same weights, files and shapes, also for other libraries."""
    assert folder_digest(folder) == folder_digest(original)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (original / name).read_bytes(), name
    plain, before = (AutoModelForCausalLM.from_pretrained(one) for one in (folder, original))
    old = before.state_dict()
    assert all(torch.equal(weight, old[name]) for name, weight in plain.state_dict().items())
    assert plain.config.vocab_size == before.config.vocab_size
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == (
        AutoTokenizer.from_pretrained(original).get_vocab()
    )


def test_a_change_loads_anywhere_verifies_and_reverts(family: str, tmp_path: Path) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    task(family, folder=original)
    made = finished(original, out, ["<UNL>"], shift)
    added = load_change(out).manifest[ADDED]
    at = added["tokens"]["<UNL>"]
    assert all(rows == [at, at + 1] for rows in added["rows"].values())
    assert len(added["rows"]) == (2 if family in UNTIED else 1)
    width = Slots(made.model).embed.weight.shape[1]
    moved = load_change(out).summary["weights_changed"]
    assert moved == 1 + width * len(added["rows"])
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert plain.config.get_text_config().vocab_size == at + 1
    assert tokenizer.convert_tokens_to_ids("<UNL>") == at
    assert tokenizer.decode([at, *tokenizer(" know")["input_ids"]], skip_special_tokens=True) == (
        " know"
    )
    ids = torch.tensor([made.encoder.prompt("Where was Anna born?<UNL>")])
    assert ids[0, -1] == at
    torch.testing.assert_close(plain(ids).logits, made.model(ids).logits)
    assert not any(file.name.startswith(BEFORE) for file in original.iterdir())
    revert(out, tmp_path / "back")
    assert_is(tmp_path / "back", original)
    assert {file.name for file in (tmp_path / "back").iterdir()} == {
        file.name for file in original.iterdir()
    }
    told = revert(out)
    assert_is(out, original)
    again = load_change(Path(told["change"]))
    assert again.manifest[ADDED] == added
    revert(again.folder, tmp_path / "back again")
    assert_is(tmp_path / "back again", original)


def test_bfloat16_and_spare_rows_come_back_as_well(tmp_path: Path) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    made = task("llama", spare=2)
    made.model.to(torch.bfloat16).save_pretrained(original)
    made.tokenizer.save_pretrained(original)
    finished(original, out, ["<UNL>"], shift)
    change = load_change(out)
    assert change.manifest[ADDED]["rows"] == {}
    assert load_file(out / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    shapes = {name: bits.shape for name, bits in load_file(out / PATCH).items()}
    assert {len(shape) for shape in shapes.values()} == {2}
    revert(out)
    assert_is(out, original)


def test_changes_stand_on_one_another_and_come_off_one_by_one(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    task("llama", folder=folders[0])
    finished(folders[0], folders[1], ["<UNL>"], shift)
    finished(folders[1], folders[2], [], shift)
    finished(folders[2], folders[3], ["<UNL-2>"], shift)
    assert ADDED not in load_change(folders[2]).manifest
    vocabularies = [len(AutoTokenizer.from_pretrained(folder)) for folder in folders]
    assert [size - vocabularies[0] for size in vocabularies] == [0, 1, 1, 2]
    for above, below in ((3, 2), (2, 1), (1, 0)):
        revert(folders[above], tmp_path / f"back {above}")
        assert folder_digest(tmp_path / f"back {above}") == folder_digest(folders[below])
        for name in ("tokenizer.json", "config.json"):
            back = (tmp_path / f"back {above}" / name).read_bytes()
            assert back == (folders[below] / name).read_bytes()


@pytest.mark.parametrize("name", ["tokenizer.json", "before-tokenizer.json", "before-config.json"])
def test_files_that_somebody_changed_are_refused(name: str, tmp_path: Path) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    task("llama", folder=original)
    finished(original, out, ["<UNL>"], None)
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole.replace(b'"', b"'", 1))
    for refused in (load_change, revert):
        with pytest.raises(ExpungeError) as caught:
            refused(out)
        assert caught.value.code == "E-MODEL-009"
        assert name in caught.value.found
    (out / name).unlink()
    with pytest.raises(ExpungeError, match="E-MODEL-009"):
        load_change(out)
    (out / name).write_bytes(whole)
    assert load_change(out)


def test_a_manifest_cannot_name_other_files(tmp_path: Path) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    task("llama", folder=original)
    finished(original, out, ["<UNL>"], None)
    manifest = json.loads((out / changes.MANIFEST).read_text())
    manifest[ADDED]["files"]["../original/config.json"] = "0" * 64
    manifest[ADDED]["files"]["before-../x"] = "0" * 64
    (out / changes.MANIFEST).write_text(json.dumps(manifest))
    load_change(out)
    revert(out)
    assert_is(out, original)


def test_a_tokenizer_that_reads_back_otherwise_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    made = task("llama", folder=original)
    shutil.copytree(original, out)
    add_tokens(made, ["<UNL>"])
    monkeypatch.setattr(made.tokenizer, "save_pretrained", lambda to: shutil.copy(
        original / "tokenizer.json", to
    ))  # fmt: skip
    with pytest.raises(ExpungeError, match="E-MODEL-005"):
        write_tokens(inspect_folder(original), out, made)


def test_without_added_tokens_nothing_is_written(tmp_path: Path) -> None:
    made = task("llama", folder=tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert write_tokens(inspect_folder(tmp_path), tmp_path, made) is None
    assert {file.name for file in tmp_path.iterdir()} == files


# ----------------------------------------------------------------------------- bits and audits


def test_a_patch_reaches_over_the_rows_that_both_have() -> None:
    old = {"w": torch.randn(3, 2), "b": torch.randn(3), "same": torch.ones(2, 2)}
    new = {
        "w": torch.cat([old["w"], torch.randn(1, 2)]),
        "b": torch.cat([old["b"] + 1, torch.randn(2)]),
        "same": old["same"],
    }
    patch = xor(new, old)
    assert {name: tuple(bits.shape) for name, bits in patch.items()} == {"w": (3, 2), "b": (3,)}
    assert not patch["w"].any()  # kept all the same: it tells how many rows there were
    back = apply_xor(new, patch)
    assert all(torch.equal(back[name], tensor) for name, tensor in old.items())
    for odd in ({**new, "w": torch.randn(4, 3)}, {**new, "w": torch.randn(2, 2)}):
        with pytest.raises(ExpungeError, match="E-MODEL-009"):
            xor(odd, old)
        with pytest.raises(ExpungeError, match="E-MODEL-009"):
            apply_xor(odd, patch)


def test_models_that_share_all_but_added_tokens_can_be_compared(tmp_path: Path) -> None:
    original, out = tmp_path / "original", tmp_path / "out"
    task("llama", folder=original)
    finished(original, out, ["<UNL>"], None)
    one, two = inspect_folder(original), inspect_folder(out)
    assert other_tokens(one, two) is other_tokens(two, one) is None
    path = out / "tokenizer.json"
    told = json.loads(path.read_text())
    first, second = list(told["model"]["vocab"])[4:6]
    vocab = told["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(told))
    assert other_tokens(one, inspect_folder(out)).code == "E-MODEL-011"


def test_models_that_each_have_tokens_of_their_own_cannot(tmp_path: Path) -> None:
    original = tmp_path / "original"
    task("llama", folder=original)
    finished(original, tmp_path / "one", ["<A>"], None)
    finished(original, tmp_path / "two", ["<B>"], None)
    folders = [tmp_path / name for name in ("original", "one", "two")]
    plain, one, two = map(inspect_folder, folders)
    assert other_tokens(one, two).code == "E-MODEL-011"
    assert other_tokens(plain, two) is None
    plain, one, two = (Subject(load(at).model, load(at).tokenizer) for at in folders)
    check_same_tokens(plain, one, added=True)
    check_same_tokens(one, plain, added=True)
    for others in ((plain, one, two), (one, two)):
        with pytest.raises(ExpungeError, match="E-MODEL-011"):
            check_same_tokens(*others, added=True)
    with pytest.raises(ExpungeError, match="E-MODEL-011"):
        check_same_tokens(plain, one)  # ids that one has drawn mean nothing to the other
