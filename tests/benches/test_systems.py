"""The pages of the optimisation systems: each can be run, every number stands in its row."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from expunge.core.registry import methods
from expunge.engine.wrappers import read_wrappers

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import baselines
import optimisation
import optimisation_studies
import representation_editing_rl
import studies
import systems_page
from systems import System, settings

TABLES = (optimisation.TABLE, representation_editing_rl.TABLE)


@pytest.mark.parametrize(
    "system",
    [pytest.param(one, id=name) for table in TABLES for name, one in table.systems.items()],
)
def test_every_system_is_one_that_can_be_run(system: System) -> None:
    methods.params(system.method, dict(system.params))
    found, problems = read_wrappers(system.wrappers, system.method)
    assert problems == []
    assert len(found) == len(system.wrappers)


def test_every_method_and_wrapper_stands_on_a_page() -> None:
    systems = [one for table in TABLES for one in table.systems.values()]
    run = {one.method for one in systems} | set(baselines.BASELINES)
    around = {wrapper.partition(":")[0] for one in systems for wrapper in one.wrappers}
    assert around == {card.id for card in methods.cards() if card.kind == "wrapper"}
    assert run == {card.id for card in methods.cards() if card.kind != "wrapper"}


def test_a_method_that_begins_from_the_base_is_told_where_it_is() -> None:
    sisa = representation_editing_rl.TABLE.systems["sisa"]
    site = SimpleNamespace(folders={"base": Path("somewhere")})
    assert settings(sisa, site) == {"base": "somewhere"}
    assert settings(sisa, SimpleNamespace(folders={})) == {}
    assert settings(System("npo", params=(("beta", 0.0),)), site) == {"beta": 0.0}


def line(name: str, seed: int, **numbers: object) -> dict[str, object]:
    key = f"testbed/{name}/{seed}"
    return {"key": key, "site": "testbed", "name": name, "seed": seed, **numbers}


def test_a_row_has_the_mean_and_the_spread_of_its_seeds() -> None:
    lines = [
        line("ft-retain", 0, cpu_seconds=10.0, steps=100, verdict="not-forgotten", erasure=0.0),
        line("npo", 0, cpu_seconds=30.0, steps=100, verdict="hidden", erasure=0.2),
        line("npo", 1, cpu_seconds=10.0, steps=100, verdict="hidden", erasure=0.6),
        line("blur", 0, failed="[E-RUN-002] At step 3 the forget term is not finite. Expected"),
    ]
    rows = systems_page.table(lines, systems_page.TESTBED)
    (npo,) = [row for row in rows if row.startswith("| npo |")]
    cells = [cell.strip() for cell in npo.strip("|").split("|")]
    found = dict(zip(["system", "seeds", *systems_page.TESTBED.values()], cells, strict=True))
    assert found["cost"] == "2.0"
    assert found["erasure"] == "0.4 ± 0.283"
    assert (found["verdict"], found["seeds"]) == ("hidden", "2")
    assert any(row.startswith("| blur | 0 | no model") for row in rows)


@pytest.mark.parametrize("shows", [True, False])
def test_a_study_says_whether_its_claim_shows(shows: bool) -> None:
    lead = 0.5 if shows else 0.0
    seeds = [
        {"npo": {"lead": 0.1}, "npo with unpii": {"lead": 0.1 + lead + shift}}
        for shift in (-0.01, 0.01)
    ]
    told = studies.told("unpii", optimisation_studies.STUDIES["unpii"], seeds)
    assert told["shows"] is shows
    assert told["rows"][1] == ["npo with unpii", pytest.approx(0.1 + lead)]
    assert f"{0.1 + lead:.2f}" in told["found"]


def test_the_studies_are_one_for_each_claim() -> None:
    named = {"wagle", "sure", "su", "fit", "coreset", "egup", "melu", "unpii", "dmm", "meow"}
    assert set(optimisation_studies.STUDIES) == named
