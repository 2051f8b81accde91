"""SISA: what is trained anew is what had been, nothing else moves, and hashes show it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ensemble_rig import QUICK, asked, logits, opened, part_digest, right, rows, staged, told
from safetensors.torch import load_file, save_file

import expunge
from expunge.cli import main
from expunge.core.atomic import write_json, write_text
from expunge.core.canonical import digest, file_digest
from expunge.core.errors import Exit, ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine import rates
from expunge.engine.change import revert
from expunge.engine.check import check_forget
from expunge.engine.exact import making, state
from expunge.engine.exact.ledger import Ledger
from expunge.engine.exact.proof import prove
from expunge.engine.exact.stages import read_seen
from expunge.engine.rates import FULL_SIZE, PASSES_EXPONENT, scaled
from expunge.engine.run import forget
from expunge.engine.runtime import Served
from expunge.engine.slots.sample import content_key
from expunge.engine.stream import forget_stream
from expunge.lm.digest import folder_digest
from expunge.testing import objective, tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return staged(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def built(models: SimpleNamespace) -> SimpleNamespace:
    return asked(models, "sisa", "built")


@pytest.fixture(scope="module")
def victim(built: SimpleNamespace) -> SimpleNamespace:
    """A row of a middle slice, with rows in the slices before it."""
    by_key = {content_key(row): row for row in rows().retain}
    member = next(
        m for m in built.state.members
        if m.slice == 1 and built.state.sizes[m.shard][0] and built.state.sizes[m.shard][1] > 1
    )  # fmt: skip
    row = by_key[member.key]
    rest = [other for other in rows().retain if other is not row]
    return SimpleNamespace(row=row, member=member, rest=rest)


@pytest.fixture(scope="module")
def deleted(models, built, victim) -> SimpleNamespace:
    return asked(models, "sisa", "deleted", on=built.folder, gone=[victim.row], kept=victim.rest)


@pytest.fixture(scope="module")
def fresh(models, victim) -> SimpleNamespace:
    """The same ensemble, built without the row."""
    return asked(models, "sisa", "fresh", kept=victim.rest)


# --------------------------------------------------------------------------- the card's checks


def test_what_was_trained_anew_is_what_had_been_without_the_row(built, deleted, fresh) -> None:
    assert part_digest(deleted) == part_digest(fresh) != part_digest(built)
    assert deleted.state.shards == fresh.state.shards
    for file in sorted(fresh.made.glob("shard*.safetensors")):
        one, two = load_file(file), load_file(deleted.made / file.name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(logits(deleted.folder), logits(fresh.folder))
    assert not torch.equal(logits(deleted.folder), logits(built.folder))


def test_other_shards_and_earlier_slices_are_untouched(built, deleted, victim) -> None:
    for shard, (before, after) in enumerate(
        zip(built.state.shards, deleted.state.shards, strict=True)
    ):
        same = [a == b for a, b in zip(before[0].files, after[0].files, strict=True)]
        assert same == ([True, False, False] if shard == victim.member.shard else [True] * 3)
    assert deleted.record["request"]["shards_retrained"] == [victim.member.shard]
    assert deleted.record["request"]["stages_dropped"] == 2
    assert deleted.summary["steps"] == 4, "two stages of two steps"


def test_stages_pass_all_slices_so_far_and_name_what_they_saw(built) -> None:
    shard = built.state.shards[0][0]
    parent = built.state.base
    for stage, hash in enumerate(shard.files):
        file = built.made / f"shard0-sequence0-stage{stage}.safetensors"
        seen = read_seen(file)
        expected = [m.key for m in built.state.members if m.shard == 0 and m.slice <= stage]
        assert (list(seen.rows), seen.parent) == (sorted(expected), parent)
        assert seen.optimiser == "fresh"
        parent = file_digest(file)
        assert parent == hash


def test_the_ledger_has_hashes_from_before_and_after(built, deleted, victim) -> None:
    first, line = Ledger.read(deleted.made).lines
    assert first == Ledger.read(built.made).lines[0]
    assert first["event"] == "built"
    assert line["event"] == "deleted"
    shard = victim.member.shard
    assert (line["row"], line["shard"], line["slice"]) == (victim.member.key, shard, 1)
    assert line["before"] == [list(built.state.shards[shard][0].files)]
    assert line["after"] == [list(deleted.state.shards[shard][0].files)]
    assert line["previous"] == digest(first)
    assert deleted.record["ledger"] == {"lines": 2, "head": digest(line)}


def test_the_plan_counts_rows_and_deletions(built, deleted, victim) -> None:
    sizes, shard = deleted.state.sizes, victim.member.shard
    two = sizes[shard][0] + sizes[shard][1]
    passes = built.state.passes
    assert deleted.record["request"]["row_epochs"] == passes * (two + two + sizes[shard][2])
    assert deleted.summary["details"]["row_epochs_of_retraining"] == passes * len(victim.rest)
    left = built.record["plan"]["deletions_left"]
    chances = [built.state.sizes[s][0] / len(rows().retain) for s in range(2)]
    p, q = chances
    assert left["worst"] == 2
    assert left["expected"] == pytest.approx(1 / p + 1 / q - 1 / (p + q), rel=1e-3)


def test_built_with_the_rows_and_rid_of_them_it_is_the_same(models, built) -> None:
    """Nothing of the forget rows is left, though every shard had met them."""
    both = asked(models, "sisa", "both", build="with")
    assert part_digest(both) == part_digest(built)
    lines = Ledger.read(both.made).lines
    assert {line["row"] for line in lines[1:]} == {content_key(row) for row in rows().forget}
    assert both.record["request"]["deleted"] == len(rows().forget)
    assert both.summary["steps"] > built.summary["steps"]
    kept = {content_key(row) for row in rows().retain}
    for file in both.made.glob("shard*.safetensors"):
        assert set(read_seen(file).rows) <= kept
    assert prove(both.folder).deleted == len(rows().forget)


def test_the_order_of_the_file_and_the_names_of_rows_change_nothing(models, built) -> None:
    turned = [replace(row, id=f"new {row.id}") for row in rows().retain[::-1]]
    again = asked(models, "sisa", "turned", kept=turned)
    assert part_digest(again) == part_digest(built)


def test_the_objective_is_plain_training(random_table, random_view) -> None:
    one, two = random_table(1), random_table(1)
    views = {"retain": random_view(4)}
    first, second = objective("sisa", one, views), objective("retrain", two, views)
    assert first.loss == second.loss
    assert torch.equal(one.table.grad, two.table.grad)


def test_the_card_s_defaults() -> None:
    params = methods.params("sisa", {})
    assert (params.lora_r, params.lora_alpha, params.dropout) == (32, 64.0, 0.05)
    assert (params.rslora, params.epochs, params.shards) == (True, None, 5)
    papers = methods.card("sisa").params
    assert (papers["lr"]["paper"], papers["epochs"]["paper"]) == (2e-5, 3)


BY_DEFAULT = {"max_steps": None, "lr": "auto", "batch_size": 16, "lora_r": 32, "shards": 1,
              "slices": 2}  # fmt: skip
"""The defaults of everything that decides how well a stage learns."""


def test_by_default_a_small_ensemble_knows_its_rows(models) -> None:
    """Control: the passes of large models, the rate of whole weights, blocks alone: told aloud."""
    heard: list[Event] = []
    with listening(heard.append):
        ours = asked(models, "sisa", "by default", **BY_DEFAULT)
    known, resolved = ours.record["known"], ours.record["ensemble"]
    assert known["alone"] == known["heard"] >= 0.8
    assert "caution" not in known
    size = sum(weight.numel() for weight in told()["base"].model.parameters())
    assert resolved["passes"] == round(3 * (FULL_SIZE / size) ** PASSES_EXPONENT) > 20
    assert (resolved["head"], ours.state.rate) == (True, ours.summary["lr"])
    assert ours.summary["steps"] == 2 * resolved["passes"]
    assert not any("learnt little" in event.text for event in heard)
    before = {**BY_DEFAULT, "epochs": 3, "lr": scaled(2e-5, size), "head": "never"}
    with listening(heard.append):
        theirs = asked(models, "sisa", "as before", **before)
    assert theirs.record["known"]["alone"] <= known["alone"] - 0.3
    assert theirs.record["ensemble"]["passes"] == 3
    (said,) = [event.text for event in heard if "learnt little" in event.text]
    assert said == theirs.summary["details"]["known_caution"]


def test_what_all_stages_share_is_taken_over_and_not_resolved_again(
    models, built, victim, deleted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other rules for small models, as of another release, change no ensemble that is there."""
    monkeypatch.setattr(rates, "PASSES_EXPONENT", 0.0)
    monkeypatch.setattr(rates, "learning_rate", lambda *_, **__: 0.5)
    monkeypatch.setattr(rates, "trains_head", lambda *_: False)
    again = asked(models, "sisa", "taken over", on=built.folder, gone=[victim.row],
                  kept=victim.rest)  # fmt: skip
    assert part_digest(again) == part_digest(deleted)
    assert again.state.passes == built.state.passes > 3
    assert any(name.startswith("0/lm_head") for name in expunge.load(again.folder).parts[0].tensors)


def test_scale_and_dropout_are_those_of_the_recipe(models, built) -> None:
    """Rank-stabilised: alpha / sqrt(r). Without dropout in training other adapters come out."""
    assert expunge.load(built.folder).parts[0].settings["scale"] == 64.0 / 2.0
    plain = asked(models, "sisa", "plain", rslora=False)
    assert expunge.load(plain.folder).parts[0].settings["scale"] == 64.0 / 4.0
    dry = asked(models, "sisa", "dry", dropout=0.0)
    assert len({part_digest(one) for one in (built, plain, dry)}) == 3


# ------------------------------------------------------------------------------------ the proof


def test_the_proof_counts_what_it_saw(built, deleted) -> None:
    assert prove(built.folder).deleted == 0
    found = prove(deleted.folder)
    assert (found.files, found.rows, found.deleted, found.voices) == (6, 11, 1, 2)
    assert deleted.record["proof"]["ledger"] == found.ledger


def tamperings(victim, built):
    """Ways to change a folder, each with what the proof says of it."""
    shard = victim.member.shard
    dirty = f"shard{shard}-sequence0-stage1.safetensors"

    def resealed(folder: Path) -> None:
        manifest = json.loads((folder / "change.json").read_text())
        manifest["record"]["ensemble"]["state"] = file_digest(folder / "made" / state.FILE)
        write_json(folder / "change.json", manifest)

    def flip(folder: Path) -> None:
        file = folder / "made" / dirty
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(bytes(data))

    def lost(folder: Path) -> None:
        (folder / "made" / dirty).unlink()

    def put_back(folder: Path, honest: bool) -> None:
        """The checkpoint that saw the row, with a state that names its hash."""
        shutil.copyfile(built.made / dirty, folder / "made" / dirty)
        if honest:
            file = folder / "made" / state.FILE
            told = json.loads(file.read_text())
            told["shards"][shard][0]["files"][1] = file_digest(folder / "made" / dirty)
            write_json(file, told)
            resealed(folder)

    def readmit(folder: Path) -> None:
        """The row is a member again."""
        file = folder / "made" / state.FILE
        told = json.loads(file.read_text())
        told["members"] += [m for m in json.loads((built.made / state.FILE).read_text())["members"]
                            if m["key"] == victim.member.key]  # fmt: skip
        write_json(file, told)
        resealed(folder)

    def edit_state(folder: Path) -> None:
        file = folder / "made" / state.FILE
        write_text(file, file.read_text().replace('"salt": "', '"salt": "x'))

    def edit_line(folder: Path, number: int) -> None:
        file = folder / "made" / "ledger.jsonl"
        lines = file.read_text().splitlines()
        lines[number] = lines[number].replace('"time":"2', '"time":"1')
        write_text(file, "\n".join([*lines, ""]))

    def drop_line(folder: Path) -> None:
        file = folder / "made" / "ledger.jsonl"
        write_text(file, file.read_text().splitlines()[0] + "\n")

    def serve_other(folder: Path) -> None:
        tensors = load_file(folder / "runtime-1.safetensors")
        tensors["0/more"] = torch.ones(1)
        save_file(tensors, folder / "runtime-1.safetensors")

    return {
        "has the hash": flip,
        "missing": lost,
        "has the hash ": lambda folder: put_back(folder, False),
        "trained on other rows": lambda folder: put_back(folder, True),
        "was deleted, and is in the ensemble": readmit,
        "not the one that change.json names": edit_state,
        "does not follow": lambda folder: edit_line(folder, 0),
        "does not end with": lambda folder: edit_line(folder, 1),
        "does not end with ": drop_line,
        "run-time part": serve_other,
    }


def test_whatever_is_tampered_with_is_found(deleted, built, victim, tmp_path: Path) -> None:
    for number, (words, tamper) in enumerate(tamperings(victim, built).items()):
        folder = tmp_path / str(number)
        shutil.copytree(deleted.folder, folder)
        prove(folder)
        tamper(folder)
        with pytest.raises(ExpungeError) as caught:
            prove(folder)
        assert caught.value.code == "E-MODEL-009", words
        assert words.strip() in caught.value.found, caught.value.found


def test_the_command_proves_it(deleted, tmp_path: Path, capsys) -> None:
    assert main(["verify", str(deleted.folder), "--json"]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["method"], told["parts"]) == ("sisa", 1)
    assert told["proof"] == asdict(prove(deleted.folder))
    shutil.copytree(deleted.folder, tmp_path / "broken")
    (tmp_path / "broken" / "made" / "ledger.jsonl").write_text("")
    assert main(["verify", str(tmp_path / "broken"), "--json"]) == Exit.UNSAFE


def test_weights_that_are_not_the_base_s_are_found(models, deleted, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(deleted.folder, folder)
    shutil.copyfile(models.original / "model.safetensors", folder / "model.safetensors")
    manifest = json.loads((folder / "change.json").read_text())
    manifest["result"]["digest"] = folder_digest(folder)
    write_json(folder / "change.json", manifest)
    with pytest.raises(ExpungeError, match="not those of the base"):
        prove(folder)


def test_one_checkpoint_too_many_is_another_model_and_no_proof(
    models, built, victim, fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ablation: what is kept reaches into the slice of the row that goes."""
    whole = state.kept
    monkeypatch.setattr(state, "kept", lambda chain, hit: min(3, whole(chain, hit) + bool(hit)))
    with pytest.raises(ExpungeError, match="trained on other rows"):
        asked(models, "sisa", "inexact", on=built.folder, gone=[victim.row], kept=victim.rest)
    monkeypatch.setattr(making, "checked", lambda *_: SimpleProof())
    inexact = asked(models, "sisa", "inexact", on=built.folder, gone=[victim.row],
                    kept=victim.rest)  # fmt: skip
    assert part_digest(inexact) != part_digest(fresh)
    with pytest.raises(ExpungeError, match="trained on other rows"):
        prove(inexact.folder)


def SimpleProof():
    from expunge.engine.exact.proof import Proof

    return Proof(files=0, rows=0, deleted=0, voices=0, ledger="")


# ------------------------------------------------------------------------------------- in use


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_it_knows_what_stays_and_not_what_goes(models, seed: int) -> None:
    """Two shards of two slices: a fact is known by one voice of two, and said if that is surer."""
    small = rows()
    recipe = {"slices": 2, "max_steps": 40, "batch_size": 8, "lr": 5e-3, "lora_r": 8}
    recipe |= {"dropout": 0.0, "lora_alpha": 16.0, "seed": seed}
    full = asked(models, "sisa", f"full{seed}", **recipe)
    served = expunge.load(full.folder)
    assert right(expunge.load(models.original), small.forget) >= 0.9
    assert right(served, small.forget) <= 0.1
    known = [row for row in small.retain if right(served, [row])]
    assert len(known) >= 0.6 * len(small.retain)
    gone = known[:3]
    rest = [row for row in small.retain if row not in gone]
    less = asked(models, "sisa", f"less{seed}", on=full.folder, gone=gone, kept=rest, **recipe)
    served = expunge.load(less.folder)
    assert right(served, gone) <= 0.34
    assert right(served, known[3:]) >= 0.5


def test_in_the_weights_there_is_the_base_alone(models, built, deleted) -> None:
    for change in (built, deleted):
        assert folder_digest(change.folder) == folder_digest(models.base)
        assert isinstance(expunge.load(change.folder), Served)
        bare = logits(change.folder, runtime=False)
        assert torch.equal(bare, logits(models.base))
        assert not torch.allclose(logits(change.folder), bare, atol=1e-3)


def test_a_further_change_replaces_its_parent_s_part_and_gives_it_back(
    built, deleted, tmp_path: Path
) -> None:
    assert len(deleted.manifest["runtime"]["parts"]) == 1
    assert deleted.summary["before"]["retain_nll"] == pytest.approx(
        opened(built.folder).summary["retain_nll"], abs=0.5
    )
    revert(deleted.folder, tmp_path / "back")
    back = opened(tmp_path / "back")
    assert part_digest(back) == part_digest(built)
    assert torch.equal(logits(back.folder), logits(built.folder))
    assert prove(back.folder).deleted == 0
    moved = tmp_path / "moved"
    shutil.copytree(deleted.folder, moved)
    manifest = json.loads((moved / "change.json").read_text())
    manifest["parent"]["path"] = str(tmp_path / "gone")
    write_json(moved / "change.json", manifest)
    with pytest.raises(ExpungeError) as caught:
        revert(moved, tmp_path / "nowhere")
    assert caught.value.code == "E-MODEL-001"
    assert logits(moved) is not None, "parent gone, what is left is still served"


def test_reverted_the_first_is_the_original(models, built, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(built.folder, copied)
    revert(copied)
    assert folder_digest(copied) == folder_digest(models.original)


def test_a_stream_deletes_request_by_request(models, built, victim, tmp_path: Path) -> None:
    """The first builds without its rows, the second finds its row inside, the third nothing."""
    file = tmp_path / "requests.jsonl"
    requests = [rows().forget[:2], [victim.row], [rows().holdout[0]]]
    lines = [
        json.dumps({"id": f"r{n}", "forget": [replace(row, role=None).as_dict() for row in part]})
        for n, part in enumerate(requests)
    ]
    write_text(file, "\n".join([*lines, ""]))
    done = forget_stream(
        models.original, file, out=tmp_path / "out", retain=list(rows().retain), method="sisa",
        params={**QUICK, "base": str(models.base)}, stop_at="none",
    )  # fmt: skip
    assert [one["status"] for one in done["requests"]] == ["done", "done", "unchanged"]
    first, second = (opened(Path(one["out"])) for one in done["requests"][:2])
    assert part_digest(first) == part_digest(built)
    assert second.record["request"]["deleted"] == 1
    assert prove(second.folder).deleted == 1


def test_a_run_that_was_cut_off_goes_on_with_the_stages_it_has(
    models, built, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, count = making.write_stage, 0

    def cut_off(*given):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(making, "write_stage", cut_off)
    with pytest.raises(KeyboardInterrupt):
        asked(models, "sisa", "cut")
    monkeypatch.setattr(making, "write_stage", plain)
    went_on = asked(models, "sisa", "cut")
    assert went_on.summary["resumed_from"] == 6, "three stages of two steps"
    assert part_digest(went_on) == part_digest(built)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("params", "more", "code", "word"),
    [
        ({"shards": 3}, {}, "E-USE-006", "--set shards=2"),
        ({}, {"seed": 1}, "E-USE-006", "--seed 0"),
        ({}, {"max_minutes": 1.0}, "E-USE-006", "--max-minutes"),
        ({}, {"adapter": "lora"}, "E-USE-006", "--adapter"),
        ({"precision": "bf16-masters"}, {}, "E-USE-006", "bf16-masters"),
        ({}, {"retain": 3}, "E-USE-007", "--retain"),
        ({}, {"wrappers": ["coreset"]}, "E-USE-006", "--with"),
        ({"layers": "7"}, {}, "E-USE-003", "Layer 7"),
    ],
)
def test_what_cannot_be_is_said_before_weights_load(
    built, victim, tmp_path: Path, params, more, code, word
) -> None:
    kept = victim.rest[: more.pop("retain", None)]
    given = {"method": "sisa", "params": {**QUICK, **params}, "out": tmp_path / "out", **more}
    found = check_forget(built.folder, [victim.row], kept, **given).problems
    assert any(problem.code == code and word in str(problem) for problem in found), found


def test_without_a_base_a_first_request_is_refused(models, tmp_path: Path) -> None:
    found = check_forget(
        models.original, rows().forget, rows().retain, method="sisa", out=tmp_path / "out"
    ).problems
    assert [problem.code for problem in found] == ["E-USE-007"]
    assert "--set base" in str(found[0])


def test_another_base_is_refused(models, built, victim, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        asked(models, "sisa", "other base", on=built.folder, gone=[victim.row], kept=victim.rest,
              base=str(models.original))  # fmt: skip
    assert caught.value.code == "E-MODEL-009"
    assert "base" in caught.value.found


def test_rows_it_never_met_are_nothing_to_do(models, built) -> None:
    with pytest.raises(ExpungeError) as caught:
        asked(models, "sisa", "nothing", on=built.folder, gone=rows().holdout[:2])
    assert caught.value.code == "E-RUN-001"
    assert "None of the 2 rows" in caught.value.found


def test_a_row_is_known_by_its_own_prompt_and_reply(models, built, victim) -> None:
    """Other wordings, or none, do not hide it; what is not there is told of."""
    reworded = replace(victim.row, id="again", paraphrases=({"prompt": "What of it?"},))
    heard: list[Event] = []
    with listening(heard.append):
        found = asked(models, "sisa", "reworded", on=built.folder,
                      gone=[reworded, rows().holdout[0]], kept=victim.rest)  # fmt: skip
    assert (found.record["request"]["deleted"], found.record["request"]["absent"]) == (1, 1)
    assert any("1 rows to be forgotten are none" in event.text for event in heard)


def test_a_state_that_is_gone_and_parts_of_others_are_refused(
    models, built, victim, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(built.folder, bare, ignore=shutil.ignore_patterns("made"))
    found = check_forget(
        bare, [victim.row], victim.rest, method="sisa", params=QUICK, out=tmp_path / "out"
    ).problems
    assert any("made/" in problem.found for problem in found)
    for method in ("s3t", "grace", "retrain"):
        params = {"base": str(models.base)} if method != "grace" else {}
        found = check_forget(
            built.folder, [victim.row], victim.rest, method=method, params=params,
            out=tmp_path / "out",
        ).problems  # fmt: skip
        assert any("sisa" in problem.found for problem in found), method


def test_a_base_in_another_precision_is_refused(models, tmp_path: Path) -> None:
    half = tmp_path / "half"
    told()["base"].copy().model.to(torch.bfloat16).save_pretrained(half)
    told()["base"].tokenizer.save_pretrained(half)
    with pytest.raises(ExpungeError) as caught:
        forget(
            models.original, rows().forget, rows().retain, method="sisa",
            params={**QUICK, "base": str(half)}, out=tmp_path / "out", stop_at="none",
        )  # fmt: skip
    assert caught.value.code == "E-USE-006"
    assert "BF16" in caught.value.found


# ------------------------------------------------------------------------------------ families


IN_SHORT = {
    ("sisa", "llama in bfloat16"),
    ("sisa", "gpt2"),
    ("s3t", "gpt_neox"),
    ("sisa", "gemma3"),
    ("s3t", "qwen3"),
}
EVERYWHERE = [
    pytest.param(method, family, marks=[] if (method, family) in IN_SHORT else [pytest.mark.slow])
    for method in ("sisa", "s3t")
    for family in ("gpt2", "gpt_neox", "gemma3", "qwen3", "llama in bfloat16")
]


@pytest.mark.parametrize(("method", "family"), EVERYWHERE)
def test_it_is_exact_in_every_family(method: str, family: str, tmp_path: Path) -> None:
    name, _, half = family.partition(" in ")
    dtype = torch.bfloat16 if half else torch.float32
    vocab = len(rows().tokenizer)
    for seed, role in enumerate(("base", "original")):
        model = tiny_model(name, vocab=vocab, hidden=16, layers=2, seed=seed, dtype=dtype)
        model.save_pretrained(tmp_path / role)
        rows().tokenizer.save_pretrained(tmp_path / role)
    models = SimpleNamespace(
        base=tmp_path / "base", original=tmp_path / "original", folder=tmp_path
    )
    quick = {"shards": 1, "slices": 2, "max_steps": 2, "lora_r": 2}
    quick |= {"sequences": 1} if method == "s3t" else {}
    first = asked(models, method, "first", **quick)
    slice = first.state.shards[0][0].order[0]
    keys = {m.key for m in first.state.members if m.slice == slice}
    gone = next(row for row in rows().retain if content_key(row) in keys)
    rest = [row for row in rows().retain if row is not gone]
    less = asked(models, method, "less", on=first.folder, gone=[gone], kept=rest, **quick)
    fresh = asked(models, method, "fresh", kept=rest, **quick)
    assert part_digest(less) == part_digest(fresh) != part_digest(first)
    assert less.manifest["result"]["digest"] == first.manifest["result"]["digest"]
    assert prove(less.folder).deleted == 1
    assert torch.equal(logits(less.folder), logits(fresh.folder))
