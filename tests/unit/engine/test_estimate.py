"""What ``check`` says a run needs: the formula in closed form, what moves it, what it refuses."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.engine import anchors, checkpoints, room, session, work
from expunge.engine import estimate as prices
from expunge.engine.assistants import ensemble_of
from expunge.engine.check import Report, check_forget
from expunge.engine.counts import Pass, Size, Voices, Work, adapter_weights, shape, size_of
from expunge.engine.estimate import Machine, estimate
from expunge.engine.room import available_memory, too_large
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm import int4
from expunge.testing.methods import stage, taught_subject, world

MACHINE = Machine(speed=5e10, slowness=1.0)
SIZE = Size(parameters=30_000_000, blocks=10, width=512, vocabulary=16_000)
WORK = Work(
    size=SIZE,
    trained=SIZE.parameters,
    steps=Pass(100, 800, 200),
    scored=(Pass(40, 2000, 500, 10),),
    checkpoints=20,
    stored=60_000_000,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def checked(original: Path, out: Path, **options) -> Report:
    rows = world()
    return check_forget(original, rows.forget, rows.retain, out=out, **options)


def needs(done: Work, machine: Machine = MACHINE) -> tuple[float, float, float]:
    found = estimate(done, machine)
    return found["seconds"], found["memory_bytes"], found["disk_bytes"]


def test_a_run_of_no_steps_takes_the_start_and_reading_the_weights() -> None:
    idle = Work(size=SIZE, trained=SIZE.parameters, steps=Pass(), stored=60_000_000)
    seconds, memory, disk = needs(idle)
    assert seconds == round(prices.START_SECONDS + 5 * 60e6 * prices.WRITE_SECONDS, 1)
    assert memory == prices.BASE_BYTES + 4 * 3 * 30e6 + 3 * 60e6
    assert disk == 2 * 60e6


def test_the_arithmetic_of_a_step_is_three_times_that_of_its_forward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CALL_SECONDS", "TOUCH_SECONDS", "MOVE_SECONDS"):
        monkeypatch.setattr(prices, name, 0.0)
    inside = 30_000_000 - 16_000 * 512
    forward = inside * 800 + 16_000 * 512 * 200
    scored = inside * 2000 + 16_000 * 512 * 500
    speed = prices.EFFICIENCY * MACHINE.speed
    whole = prices.seconds_of_steps(WORK, MACHINE)
    assert whole == pytest.approx((100 * 3 * forward + 40 * scored) / speed)
    frozen = prices.seconds_of_steps(replace(WORK, adapter=True), MACHINE)
    assert frozen == pytest.approx((100 * 2 * forward + 40 * scored) / speed)


def test_memory_in_closed_form_where_the_step_is_largest() -> None:
    held = 24 * 10 * 512 * 800 + 4 * 16_000 * 200
    weights = 4 * SIZE.parameters
    assert needs(WORK)[1] == prices.BASE_BYTES + 4 * (weights + held)
    assert needs(replace(WORK, parts=4))[1] == prices.BASE_BYTES + 4 * (weights + held // 4)
    assert needs(replace(WORK, still=1000))[1] == needs(WORK)[1] + 4 * 1000


def test_computing_activations_again_holds_one_block_and_takes_a_pass_more() -> None:
    again = replace(WORK, recomputed=True)
    held = (24 * 10 / 24 + 2 * 24) * 512 * 800
    assert again.held == pytest.approx(held)
    assert needs(again)[1] < needs(WORK)[1]
    assert needs(again)[0] > needs(WORK)[0]


def test_masters_and_four_bits_change_what_a_weight_takes() -> None:
    masters = replace(WORK, weight_bytes=6.0)
    assert needs(masters)[1] == needs(WORK)[1] + 2 * SIZE.inside
    rounded = replace(WORK, adapter=True, trained=1000, weight_bytes=0.5625)
    plain = replace(rounded, weight_bytes=4)
    assert needs(plain)[1] - needs(rounded)[1] == pytest.approx(3.4375 * SIZE.inside, abs=1)
    small = replace(rounded, steps=Pass(1, 1, 1), scored=())
    assert needs(small)[1] >= prices.BASE_BYTES + 4 * SIZE.parameters  # it is loaded first


def test_what_a_weight_takes_follows_the_precision_asked_for(
    original: Path, tmp_path: Path
) -> None:
    def bytes_of(adapter: str | None = None, **params: object) -> float:
        rows = world()
        plan = check_forget(
            original, rows.forget, rows.retain, adapter=adapter, params=params, out=tmp_path / "out"
        ).plan
        assert plan is not None
        return work.work_of(plan, {}, 1).weight_bytes

    assert bytes_of() == bytes_of(precision="bf16") == 4
    assert bytes_of(precision="bf16-masters") == 6
    assert bytes_of("lora", base_bits=4) == 0.5625
    assert int4.GROUP == work.GROUP


def test_memory_where_a_measurement_or_the_way_back_is_largest() -> None:
    small = replace(WORK, steps=Pass(100, 8, 2))
    scoring = replace(small, scored=(Pass(40, 2e5, 1e5, 10),))
    held = prices.BASE_BYTES + 4 * 3 * SIZE.parameters
    assert needs(scoring)[1] == held + 4 * 3 * 16_000 * 1e4
    back = replace(small, scored=(), stored=120_000_000)
    assert needs(back)[1] == held + 3 * 120_000_000


@pytest.mark.parametrize(
    ("checkpoints", "disk"), [(0, 0.12), (1, 0.36 + 0.12), (2, 0.72 + 0.12), (20, 1.08)]
)
def test_disk_is_the_result_beside_two_checkpoints_or_three(checkpoints: int, disk: float) -> None:
    quick = replace(WORK, checkpoints=checkpoints, steps=Pass(1, 1, 1), scored=())
    assert needs(quick)[2] == pytest.approx(disk * 1e9)


def test_a_long_run_writes_a_checkpoint_every_half_minute() -> None:
    few = replace(WORK, checkpoints=1)
    fast = Machine(speed=1e13, slowness=0.001)
    assert needs(few, fast)[2] < needs(few)[2] == needs(WORK)[2]


@pytest.mark.parametrize(
    "more",
    [
        {"steps": Pass(200, 800, 200)},
        {"steps": Pass(100, 1600, 400)},
        {"size": replace(SIZE, parameters=60_000_000), "trained": 60_000_000},
        {"scored": (*WORK.scored, Pass(100, 400, 400))},
    ],
    ids=["steps", "tokens", "parameters", "live anchor"],
)
def test_more_to_do_takes_longer(more: dict) -> None:
    assert needs(replace(WORK, **more))[0] > 1.1 * needs(WORK)[0]


def test_a_faster_machine_needs_less_time_and_as_much_room() -> None:
    fast = needs(WORK, Machine(speed=2e11, slowness=0.5))
    assert fast[0] < 0.6 * needs(WORK)[0]
    assert fast[1:] == needs(WORK)[1:]


def test_untied_vocabularies_are_taken_out_twice() -> None:
    config = {"num_hidden_layers": 10, "hidden_size": 512, "vocab_size": 16_000}
    tied = size_of(30_000_000, config, ["model.embed_tokens.weight"])
    untied = size_of(30_000_000, config, ["model.embed_tokens.weight", "lm_head.weight"])
    assert tied == SIZE
    assert tied.inside - untied.inside == 16_000 * 512


@pytest.mark.parametrize("config", [{}, {"vocab_size": "many"}, {"text_config": 3}])
def test_a_config_that_says_nothing_gives_no_numbers_and_no_crash(config: dict) -> None:
    assert shape(config) == (0, 0, 0)
    bare = size_of(1000, config)
    seconds, memory, _ = needs(replace(WORK, size=bare, trained=1000, stored=4000))
    assert seconds > 0
    assert memory == prices.BASE_BYTES + 12_000 + 12_000


def test_nested_and_older_names_of_the_shape_are_read() -> None:
    assert shape({"n_layer": 2, "n_embd": 8, "vocab_size": 11}) == (2, 8, 11)
    inner = {"num_hidden_layers": 3, "hidden_size": 16, "vocab_size": 12}
    assert shape({"vocab_size": 1, "text_config": inner}) == (3, 16, 12)


def test_counts_shared_with_rooms_too_heavy_to_import_are_theirs() -> None:
    assert work.MEASUREMENTS == session.MEASUREMENTS
    assert work.CHECKPOINT_SHARE == checkpoints.SHARE
    assert work.ROOM == anchors.ROOM


def test_check_counts_steps_rows_and_batches(original: Path, tmp_path: Path) -> None:
    def seen(**params) -> Work:
        report = checked(original, tmp_path / "out", params={"max_steps": 50, **params})
        assert report.plan is not None
        encoded = check_encoded(report)
        return work.work_of(report.plan, encoded, 50)

    base = seen(batch_size=4)
    assert base.steps.times == 50
    assert base.checkpoints == 17  # every third of 50, and the last
    assert base.scored[0].times == 50 + work.LEVELS
    assert seen(batch_size=8).steps.tokens == pytest.approx(2 * base.steps.tokens, rel=0.2)
    assert base.still == 0
    wide = seen(batch_size=4, retain_term="kl")
    assert wide.steps.tokens == pytest.approx(base.steps.tokens)
    assert wide.scored[-1].supervised > 0 == wide.scored[-1].tokens  # the projection alone
    head = wide.size.vocabulary * wide.size.width
    assert 0 < wide.still - head < wide.trained - head
    live = seen(batch_size=4, retain_term="kl", kl_scope="legacy_all")
    assert live.still == live.trained
    assert live.scored[-1].supervised == live.scored[-1].tokens > 0
    blocks = seen(batch_size=4, retain_term="mse")
    rows = blocks.scored[-2:]  # forget and retain rows, once each
    assert [(one.times, one.supervised) for one in rows] == [(1, 0), (1, 0)]
    assert blocks.still == sum(one.tokens for one in rows) * blocks.size.width > 0
    parts = seen(batch_size=1, accumulation=4)
    assert (parts.steps.tokens, parts.parts) == (base.steps.tokens, 4)


@pytest.mark.parametrize(
    ("method", "params", "effort"),
    [
        ("npo-sam", {}, 2),
        ("npo-sam", {"rho": 0.0}, 1),
        ("npo-irm", {"auxiliary_batch": 16}, 3),
        ("rmu-lat", {}, 5),
        ("tar", {"inner_steps": 16}, 1 + 0.5 * (8 + 4)),
        ("ofmu", {"hvp": "none", "beta": 0.0}, 7),
        ("ofmu", {"hvp": "finite"}, 42),
        ("ofmu", {"hvp": "none", "inner_steps": 2}, 12),
    ],
)
def test_a_step_that_runs_the_model_again_is_counted_by_its_passes(
    method: str, params: dict, effort: float, original: Path, tmp_path: Path
) -> None:
    def trained(id: str, **given: object) -> tuple[float, float]:
        """Passes of the estimate; tokens that went through the model with a gradient."""
        given = {"batch_size": 4, "max_steps": 4, "warmup": 0, "lr": 1e-5, **given}
        report = checked(original, tmp_path / id, method=id, params=given, stop_at="none")
        assert report.plan is not None
        told = work.work_of(report.plan, check_encoded(report), 4).steps.times
        subject = taught_subject().copy()
        counted = []

        def count(_: object, entered: tuple) -> None:
            if torch.is_grad_enabled():
                counted.append(entered[0].numel())

        subject.model.get_input_embeddings().register_forward_pre_hook(count)
        session.Session(report.plan, subject, tmp_path / id).train(None)
        return told, sum(counted)

    (plain, base), (told, found) = trained("npo"), trained(method, **params)
    assert (plain, told) == (4, 4 * effort)
    assert found / base == pytest.approx(effort, rel=0.25)


VOICES = Voices(sizes=(SIZE.cut(2),), trained=1_000_000, own=1_000_000, alone=True)


def test_what_is_cut_out_keeps_the_vocabulary_and_its_share_of_the_blocks() -> None:
    small = SIZE.cut(2)
    outside = 16_000 * 512
    assert small.parameters == outside + (30_000_000 - outside) // 5
    assert (small.blocks, small.width, small.vocabulary) == (2, 512, 16_000)
    assert SIZE.cut(10) == SIZE


def test_a_small_model_that_learns_alone_takes_the_place_of_the_model_in_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CALL_SECONDS", "TOUCH_SECONDS", "MOVE_SECONDS"):
        monkeypatch.setattr(prices, name, 0.0)
    speed = prices.EFFICIENCY * MACHINE.speed
    pair = Voices(sizes=(SIZE.cut(2), SIZE.cut(3)), trained=1_000_000)
    bare = replace(WORK, scored=(), voices=VOICES)
    one, other = (size.products(800, 200) for size in pair.sizes)
    assert prices.seconds_of_steps(bare, MACHINE) == pytest.approx(100 * 3 * one / speed)
    factors = replace(bare, adapter=True)
    assert prices.seconds_of_steps(factors, MACHINE) == pytest.approx(100 * 2 * one / speed)
    both = replace(bare, voices=pair, heard=(Pass(7, 2000, 500, 10),))
    steps = 100 * (3 * one + other + SIZE.products(800, 200))
    heard = 7 * sum(size.products(2000, 500) for size in pair.sizes)
    assert prices.seconds_of_steps(both, MACHINE) == pytest.approx((steps + heard) / speed)


def test_memory_and_disk_of_small_models_in_closed_form() -> None:
    work_ = replace(WORK, scored=(), voices=VOICES, trained=VOICES.trained, stored=6_000_000)
    held = 24 * 2 * 512 * 800 + 4 * 16_000 * 200
    alone = prices.BASE_BYTES + 4 * (SIZE.parameters + 4 * 1_000_000 + held)
    assert needs(work_)[1] == alone
    beside = replace(work_, voices=replace(VOICES, alone=False))
    assert needs(beside)[1] == alone + 4 * 2 * 16_000 * 200  # the model's logits, and the sum
    short = replace(work_, steps=Pass(100, 8, 2))
    end = 3 * 6_000_000 + 4 * 2 * SIZE.cut(2).parameters  # as written, and as put in
    assert needs(short)[1] == prices.BASE_BYTES + 4 * (SIZE.parameters + 3_000_000) + end
    part = round(6 / 30 * 2 * SIZE.cut(2).parameters)  # the run-time part, the model of its own
    assert needs(replace(short, checkpoints=0))[2] == 6_000_000 + part


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("uld", {}),
        ("uld", {"altered": 1, "kl_scope": "answer"}),
        ("uld", {"retain_term": "none"}),
        ("delta-unlearning", {}),
        ("delta-unlearning", {"small": "FOLDER"}),
    ],
    ids=["uld", "uld, answers", "uld, forget rows", "delta", "delta, small folder"],
)
def test_small_models_are_counted_as_they_run(
    method: str, params: dict, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens through each model, weights that move, weights in memory: predicted and counted."""
    params = {name: str(original) if one == "FOLDER" else one for name, one in params.items()}
    steps, module = 6, registry.methods.load(method)
    given = {"batch_size": 4, "max_steps": steps, "warmup": 0, "lr": 1e-4, **params}
    report = checked(original, tmp_path / "out", method=method, params=given, stop_at="none")
    assert report.plan is not None
    told = work.work_of(report.plan, check_encoded(report), steps)
    assert told.voices is not None
    names = ("assistant", "before")[: len(told.voices.sizes)]
    subject, seen, weights = taught_subject().copy(), Counter(), {}
    prepare = module.prepare

    def watched(task: Task, own: object) -> None:
        prepare(task, own)
        ensemble = ensemble_of(task.model)
        models = {"model": task.model, **{name: ensemble.voice(name) for name in names}}
        shared = {id(weight) for weight in task.model.parameters()}
        moving = [p for p in ensemble.parameters() if p.requires_grad]
        shared -= {id(weight) for weight in ensemble.parameters()}
        beside = [p for one in models.values() for p in one.parameters() if id(p) not in shared]
        weights["trained"] = sum(p.numel() for p in moving)
        weights["own"] = sum(p.numel() for p in {id(p): p for p in beside}.values())
        weights["sizes"] = [sum(plain_of(models[name])) for name in names]
        for name, one in models.items():
            one.get_input_embeddings().register_forward_pre_hook(partial(count, name))

    def plain_of(model: torch.nn.Module) -> list[int]:
        return [p.numel() for n, p in model.named_parameters() if ".lora_" not in n]

    def count(name: str, _: object, entered: tuple) -> None:
        seen[name, torch.is_grad_enabled()] += entered[0].numel()

    monkeypatch.setattr(module, "prepare", watched)
    session.Session(report.plan, subject, tmp_path / "out").train(None)

    said = [size.parameters for size in told.voices.sizes]
    assert said == pytest.approx(weights["sizes"], rel=0.02)
    assert told.voices.trained == pytest.approx(weights["trained"], rel=0.15)
    assert told.voices.own == pytest.approx(weights["own"], rel=0.15)
    learnt = steps * told.steps.tokens
    assert seen["assistant", True] == pytest.approx(learnt, rel=0.15)
    first, after, *more = told.heard  # the last measurement of both levels is after training
    heard = (first.times - after.times) * first.tokens + sum(one.times * one.tokens for one in more)
    assert seen["assistant", False] == pytest.approx(heard, rel=0.25)  # less its padding
    assert bool(told.listened) == (method != "uld")
    if told.listened:
        assert seen["model", True] == pytest.approx(learnt, rel=0.15)
        before = seen["before", True] + seen["before", False]
        assert before == pytest.approx(learnt + heard, rel=0.25)
    else:
        assert seen["model", True] == 0


@pytest.mark.parametrize("method", ["uld", "delta-unlearning"])
def test_what_is_written_of_small_models_is_what_was_said(
    method: str, original: Path, tmp_path: Path
) -> None:
    params, out = {"batch_size": 4, "max_steps": 2, "lr": 1e-3}, tmp_path / "out"
    report = checked(original, out, method=method, params=params, stop_at="none")
    assert report.plan is not None
    told = work.work_of(report.plan, check_encoded(report), 2)
    rows = world()
    forget(original, rows.forget, rows.retain, method=method, params=params, stop_at="none",
           out=out)  # fmt: skip
    found = sum(file.stat().st_size for file in out.rglob("*.safetensors"))
    assert found == pytest.approx(prices.disk(told, 0), rel=0.1)


@pytest.mark.parametrize(("limit", "is_live"), [(1 << 30, False), (0, True)])
def test_block_outputs_beyond_the_room_leave_the_live_way(
    limit: int, is_live: bool, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rr compares every block in retain rows; its adapter is small, so nothing else gives room."""
    monkeypatch.setattr(work, "ROOM", limit)
    params = {"max_steps": 50, "batch_size": 4}
    report = checked(
        original, tmp_path / "out", method="rr", adapter="lora", params={**params, "lora_r": 1}
    )
    assert report.plan is not None
    done = work.work_of(report.plan, check_encoded(report), 50)
    forget, retain = done.scored[-2:]
    assert (forget.times, retain.times) == ((50, 50) if is_live else (1, 1))
    places = forget.tokens + (done.size.blocks + 1) * retain.tokens
    assert done.still == (0 if is_live else places * done.size.width)


def check_encoded(report: Report):
    from expunge.engine.check import encode_roles

    assert report.plan is not None
    return encode_roles(Report(), report.plan.folder, report.plan.rows)


def test_an_adapter_needs_less_memory_and_disk_than_weights_that_all_move() -> None:
    whole = replace(WORK, steps=Pass(100, 80, 20))
    adapted = replace(whole, adapter=True, trained=adapter_weights(8, SIZE.blocks, SIZE.width))
    assert needs(adapted)[1] < needs(whole)[1] - 4 * 2 * SIZE.parameters
    assert needs(adapted)[2] < 0.1 * needs(whole)[2]


def test_check_counts_an_adapter_by_its_rank(original: Path, tmp_path: Path) -> None:
    def disk(rank: int) -> float:
        params = {"lora_r": rank}
        report = checked(original, tmp_path / "out", adapter="lora", params=params)
        return report.estimate["disk_bytes"]

    assert disk(8) == 2 * disk(4) > 0


def test_check_says_what_it_said_of_the_run(original: Path, tmp_path: Path) -> None:
    report = checked(original, tmp_path / "out")
    assert report.problems == []
    assert set(report.estimate) == {"seconds", "memory_bytes", "disk_bytes"}
    assert set(report.resolved) == {
        "method", "lr", "steps", "warmup", "rows", "retain_rows", "parameters",
    }  # fmt: skip


def test_too_little_memory_and_disk_are_found_together_before_weights_load(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "available_memory", lambda: 10_000_000)
    monkeypatch.setattr(room, "free_disk", lambda _: 1000)
    report = checked(original, tmp_path / "out")
    assert [problem.code for problem in report.problems] == ["E-REQ-002", "E-REQ-003"]
    assert {problem.exit_code for problem in report.problems} == {4}
    assert report.plan is None
    assert "0.0 GB" in report.problems[1].found


def test_what_the_folder_already_holds_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_disk", lambda _: 1000)
    wanted = {"memory_bytes": 0.0, "disk_bytes": 3000.0}
    assert codes(too_large(wanted, tmp_path / "out")) == ["E-REQ-002"]
    (tmp_path / "out" / ".run").mkdir(parents=True)
    (tmp_path / "out" / ".run" / "checkpoint").write_bytes(b"0" * 2000)
    assert codes(too_large(wanted, tmp_path / "out")) == []
    assert codes(too_large(wanted | {"disk_bytes": 3001.0}, tmp_path / "out")) == ["E-REQ-002"]


def codes(problems: list[ExpungeError]) -> list[str]:
    return [problem.code for problem in problems]


def test_memory_is_what_other_programs_and_the_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(room, "GROUP", tmp_path)
    everything = available_memory()
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   700 kB\n")
    assert everything > available_memory() == 700 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() == 700 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("450000\n")
    (tmp_path / "memory.stat").write_text("anon 150000\nfile 300000\n")
    assert available_memory() == 350_000
