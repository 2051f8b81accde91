"""UWC: the search, its ends bit for bit, what is mixed, adapters, and a run that broke too much."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_rig import exact, facts, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.engine.change import load_change, read_manifest
from expunge.engine.check import check_forget
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.lm.headers import weight_files
from expunge.lm.load import load
from expunge.lm.mixing import Mixture
from expunge.lm.subject import Scored, Subject
from expunge.methods.uwc import accuracy, grid_of, largest, strength
from expunge.requests.rows import Row

HARD = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 20, "retain_term": "none"}
"""Ascent without anything that keeps the rest: all is lost."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, *around: str, **options: Any) -> dict[str, Any]:
    options = {"method": "grad-diff", "params": HARD, "stop_at": "none"} | options
    return forget(original, *facts(), wrappers=around, out=out, **options)


def subject(folder: Path) -> Subject:
    loaded = load(load_change(folder).folder if (folder / "change.json").exists() else folder)
    return Subject(loaded.model, loaded.tokenizer)


def weights(folder: Path) -> dict[str, Tensor]:
    return {n: w for file in weight_files(folder) for n, w in load_file(file).items()}


def record(out: Path) -> dict[str, Any]:
    manifest = read_manifest(out)
    assert manifest is not None
    return dict(manifest["record"])


def test_the_grid_has_both_ends() -> None:
    assert grid_of(0.05) == [round(0.05 * step, 9) for step in range(21)]
    assert grid_of(0.4) == [0.0, 0.4, 0.8, 1.0]
    assert grid_of(0.5) == [0.0, 0.5, 1.0]


def asked(holds: Callable[[float], bool]) -> tuple[float, int]:
    shares: list[float] = []
    found = largest(lambda a: not shares.append(a) and holds(a), grid_of(0.05))
    return found, len(set(shares))


@pytest.mark.parametrize("bar", [0.0, 0.05, 0.35, 0.9, 0.95, 1.0])
def test_the_largest_share_that_holds_is_found_in_few_looks(bar: float) -> None:
    found, looks = asked(lambda share: share <= bar)
    assert found == bar
    assert looks <= 8


def test_a_neighbour_that_holds_again_is_taken() -> None:
    """What is kept need not fall steadily; bisection alone would stay at .5."""
    assert asked(lambda share: share <= 0.5 or share in (0.6, 0.7))[0] == 0.7
    assert asked(lambda share: share <= 0.5 or share == 0.65)[0] == 0.5


def scored(*hits: bool, ends: bool = True) -> Scored:
    spans = [(at, at + 1) for at in range(len(hits))]
    return Scored(np.zeros(len(hits)), np.array(hits), spans, ends)


def test_what_is_kept() -> None:
    """Extraction strength: the tail of first choices, the closing token not counted."""
    half, none, end = scored(1, 0, 1, 1, 1), scored(1, 1, 0, 1), scored(0, 1, ends=False)
    assert strength([half]) == 0.5
    assert strength([none]) == 0.0
    assert strength([half, none, end]) == pytest.approx((0.5 + 0.0 + 0.5) / 3)
    assert accuracy([half, end]) == pytest.approx(5 / 7)


def test_a_change_within_the_bar_stays_as_it_was_trained(original: Path, tmp_path: Path) -> None:
    """a = 1, bit for bit; and with no bar at all whatever was lost."""
    for bar, params in (("0.9", {**HARD, "retain_term": "nll"}), ("0", HARD)):
        short = {**params, "max_steps": 8}
        run(original, tmp_path / f"plain{bar}", params=short)
        run(original, tmp_path / f"kept{bar}", f"uwc:{bar}", params=short)
        assert record(tmp_path / f"kept{bar}")["uwc_share"] == 1.0
        assert folder_digest(tmp_path / f"kept{bar}") == folder_digest(tmp_path / f"plain{bar}")


def test_a_quarter_of_the_way_is_enough_on_the_tiny_rig(original: Path, tmp_path: Path) -> None:
    """The card's measurement: forgotten, at a lower retain level than the whole way has."""
    params = {**HARD, "retain_term": "nll", "max_steps": 50}
    found: dict[float, list[tuple[float, float, float, float]]] = {0.25: [], 1.0: []}
    for seed in range(2):
        run(original, tmp_path / str(seed), params=params, seed=seed)
        mixture = Mixture(subject(original), subject(tmp_path / str(seed)))
        for share, numbers in found.items():
            model, (given, kept) = mixture.at(1 - share), facts()
            nll = [np.mean([s.nll for s in model.score([r.turn for r in x])]) for x in facts()]
            numbers.append((*nll, exact(model, given), exact(model, kept)))
    forgotten, retained, known, intact = np.mean(found[0.25], axis=0)
    assert forgotten > 2.0
    assert known <= 0.2
    assert intact >= 0.9
    assert retained < np.mean(found[1.0], axis=0)[1]


def test_a_run_that_broke_the_model_is_brought_back(original: Path, tmp_path: Path) -> None:
    """The largest share at which retain rows are known, and there forget rows are not."""
    broken = run(original, tmp_path / "broken")
    done = run(original, tmp_path / "back", "uwc")
    told = record(tmp_path / "back")
    share, tried = told["uwc_share"], {one["share"]: one["metric"] for one in told["uwc"]["tried"]}
    assert 0 < share < 1
    wanted = told["uwc"]["metric"]["wanted"]
    assert wanted == pytest.approx(0.9 * told["uwc"]["metric"]["original"])
    assert tried[share] >= wanted > tried[round(share + 0.05, 9)]
    assert len(tried) <= 9
    back, gone = subject(tmp_path / "back"), subject(tmp_path / "broken")
    kept = facts()[1]
    assert strength(gone.score([row.turn for row in kept])) < 0.5
    assert strength(back.score([row.turn for row in kept])) == pytest.approx(tried[share])
    assert done["utility_drop"] < 0.2 < broken["utility_drop"]
    left = told["uwc"]["forget"]
    assert left["original"]["extraction"] == 1.0
    assert left["result"]["extraction"] <= 0.6
    assert left["result"]["nll"] == pytest.approx(done["forget_nll"], abs=1e-5)
    assert "reworded" not in left["result"]
    assert done["details"]["uwc_share"] == share


def test_the_result_is_the_mixture_and_its_hash_is_its_own(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "trained")
    run(original, tmp_path / "mixed", "uwc:metric=accuracy,bar=0.8,tolerance=0.1")
    share = record(tmp_path / "mixed")["uwc_share"]
    start, trained, mixed = (
        weights(original),
        *(weights(tmp_path / n) for n in ("trained", "mixed")),
    )
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, torch.lerp(start[name], trained[name], share))
    manifest = read_manifest(tmp_path / "mixed")
    assert manifest is not None
    digest = manifest["result"]["digest"]
    assert digest == folder_digest(tmp_path / "mixed")
    assert digest not in (folder_digest(tmp_path / "trained"), folder_digest(original))
    assert record(tmp_path / "mixed")["uwc"]["metric"]["original"] == 1.0


def merged(folder: Path, factor: Callable[[str], float] = lambda name: 1.0) -> dict[str, Tensor]:
    """Name -> the product that an adapter adds, its factors scaled."""
    own = weights(folder)
    return {
        name: factor("B") * own[name] @ (factor("A") * own[name.replace("lora_B", "lora_A")])
        for name in own
        if "lora_B" in name
    }


def test_of_an_adapter_the_product_is_mixed(original: Path, tmp_path: Path) -> None:
    """Mixing both factors would go to a squared of the way."""
    params = {**HARD, "max_steps": 40}
    for name, around in (("trained", []), ("mixed", ["uwc"])):
        run(original, tmp_path / name, *around, params=params, adapter="lora")
    share = record(tmp_path / "mixed")["uwc_share"]
    assert 0 < share < 1
    whole, part = merged(tmp_path / "trained"), merged(tmp_path / "mixed")
    squared = merged(tmp_path / "trained", lambda _: share)
    for name, product in part.items():
        torch.testing.assert_close(product, share * whole[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(part[name], squared[name], rtol=0.05) for name in part)
    kept = [row.turn for row in facts()[1]]
    assert strength(subject(tmp_path / "mixed").score(kept)) >= 0.9


def test_paraphrases_are_asked_as_well(original: Path, tmp_path: Path) -> None:
    given, kept = facts()
    other = [replace(row, paraphrases=({"prompt": f"which {row.prompt}"},)) for row in given]
    forget(
        original, other, kept, method="grad-diff", params=HARD, wrappers=["uwc"], stop_at="none",
        out=tmp_path / "out",
    )  # fmt: skip
    left = record(tmp_path / "out")["uwc"]["forget"]
    assert all(0.0 <= one["reworded"] <= 1.0 for one in left.values())
    assert left["original"]["reworded"] < left["original"]["extraction"]


def strangers() -> Sequence[Row]:
    return [replace(row, completion=" w1 w2 w3 w4 w5", id=f"{row.id}?") for row in facts()[1][:6]]


def test_rows_that_the_original_does_not_know_measure_nothing(
    original: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExpungeError) as caught:
        forget(
            original, facts()[0], strangers(), method="grad-diff", params=HARD, stop_at="none",
            wrappers=["uwc"], out=tmp_path / "out",
        )  # fmt: skip
    assert caught.value.code == "E-USE-006"
    assert not list((tmp_path / "out" / ".run").glob("checkpoint-*"))


def test_it_does_not_go_around_what_goes_on_from_its_weights_itself(
    original: Path, tmp_path: Path
) -> None:
    report = check_forget(
        original, *facts(), method="task-vector", wrappers=["uwc"], out=tmp_path / "out"
    )
    assert [problem.code for problem in report.problems] == ["E-USE-006"]
    assert "task-vector" in report.problems[0].found


def test_a_bar_that_no_share_holds_is_an_error(original: Path, tmp_path: Path) -> None:
    far = {**HARD, "lr": 3e-2, "max_steps": 10}
    with pytest.raises(ExpungeError) as caught:
        run(original, tmp_path / "out", "uwc:1,tolerance=0.5", params=far)
    assert caught.value.code == "E-RUN-003"
    assert "0.5 of the change" in caught.value.found


def test_an_interrupted_run_ends_at_the_same_share(original: Path, tmp_path: Path) -> None:
    """What the original keeps is taken on the original, also when the run goes on later."""
    run(original, tmp_path / "whole", "uwc")

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "grad-diff" and event.done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut", "uwc")
    assert run(original, tmp_path / "cut", "uwc")["resumed_from"] > 0
    assert record(tmp_path / "cut") == record(tmp_path / "whole")
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")
