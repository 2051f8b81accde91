"""Every wrapper of the registry can be put around a method, and does something there."""

from pathlib import Path

import pytest

from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest, revert
from expunge.engine.method import REPLACEABLE
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.testing.methods import stage, world

WRAPPERS = [card.id for card in methods.cards() if card.kind == "wrapper"]
HOOKS = ("prepare", "on_epoch", "refresh", "finish", "term")
ASKED = {"uwc": "uwc:metric=accuracy"}
"""What is asked for in place of the default: the tiny model recites nothing uwc could look at."""
IDLE = {("uwc", "rmu")}
"""Pairs that rightly change nothing: the whole change already keeps enough."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_wrapper_has_a_slot_and_no_method_of_its_own(wrapper: str) -> None:
    module, card = methods.load(wrapper), methods.card(wrapper)
    hooks = [callable(getattr(module, name, None)) for name in (*REPLACEABLE, *HOOKS)]
    assert any(hooks) or module.BESIDE
    assert not hasattr(module, "forget")
    assert card.extra.get("value") in (None, *card.params)


@pytest.mark.parametrize("method", ["npo", "rmu"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_wrapper_changes_a_run_and_nothing_of_its_order(
    wrapper: str, method: str, original: Path, tmp_path: Path
) -> None:
    """Other weights than without it, the same twice, recorded, and taken back bit for bit."""
    rows = world()

    def run(name: str, *wrappers: str) -> str:
        params = {"max_steps": 3, "lr": 1e-3, "warmup": 0}
        forget(
            original, rows.forget, rows.retain, method=method, params=params, wrappers=wrappers,
            stop_at="none", out=tmp_path / name,
        )  # fmt: skip
        load_change(tmp_path / name)
        return folder_digest(tmp_path / name)

    asked = ASKED.get(wrapper, wrapper)
    wrapped = run("one", asked)
    assert wrapped == run("two", asked)
    assert (wrapped != run("bare")) is ((wrapper, method) not in IDLE)
    manifest = read_manifest(tmp_path / "one")
    assert manifest is not None
    assert [one["id"] for one in manifest["wrappers"]] == [wrapper]
    assert manifest["wrappers"][0]["params"].keys() == methods.card(wrapper).params.keys()
    revert(tmp_path / "one")
    assert folder_digest(tmp_path / "one") == folder_digest(original)
