"""Parameters: read from text, checked, and all mistakes told at once."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.core.errors import ExpungeError, Problems
from expunge.core.families import GradientParams
from expunge.core.params import describe, param, resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """Own parameters beside the shared ones, and one restated default."""

    beta: float = param(0.1, help="sharpness", paper=(0.1, 0.5), low=0.01, high=1.0)
    legacy_union: bool = param(False, help="one mean over both sets")
    mode: Literal["mean", "sum", 3] = param("mean", help="reduction")
    betas: tuple[float, float] = param((0.9, 0.98), help="momenta", low=0.0, high=1.0)
    name: str | None = param(None, help="a name")
    colours: tuple[str, ...] = param(("red",), help="colours", choices=("red", "blue"))
    retain_term: str = param("kl", help="what keeps", choices=("none", "nll", "kl", "mse"))


@pytest.mark.parametrize(
    ("name", "given_value", "expected"),
    [
        ("beta", "0.5", 0.5),
        ("beta", 1, 1.0),
        ("beta", "5e-2", 0.05),
        ("legacy_union", "true", True),
        ("legacy_union", "No", False),
        ("legacy_union", True, True),
        ("mode", "sum", "sum"),
        ("mode", "3", 3),
        ("betas", "0.5,0.9", (0.5, 0.9)),
        ("betas", [0, 1], (0.0, 1.0)),
        ("name", "none", None),
        ("name", "7", "7"),
        ("colours", "red,blue", ("red", "blue")),
        ("layers", "-1,3", (-1, 3)),
        ("layers", "[ -1, 3 ]", (-1, 3)),
        ("layers", "7", (7,)),
        ("layers", "none", None),
        ("layers", (2, 4), (2, 4)),
        ("layers", None, None),
        ("lr", "auto", "auto"),
        ("lr", "1e-5", 1e-5),
        ("lr", 0.001, 0.001),
        ("warmup", "10", 10),
        ("warmup", "auto", "auto"),
        ("epochs", "None", None),
        ("max-steps", "12", 12),
    ],
)
def test_text_and_values_are_read_as_the_type_of_the_field(
    name: str, given_value: Any, expected: Any
) -> None:
    value = getattr(resolve(Params, {name: given_value}), name.replace("-", "_"))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("beta", "2", "at most 1.0"),
        ("beta", 0.001, "at least 0.01"),
        ("beta", "nan", "float"),
        ("beta", float("inf"), "float"),
        ("beta", True, "float"),
        ("beta", None, "float"),
        ("beta", "0,1", "float"),
        ("legacy_union", 1, "bool"),
        ("legacy_union", "maybe", "bool"),
        ("mode", "max", "Literal"),
        ("betas", "0.5", "tuple[float, float]"),
        ("betas", "0.5,7", "at most 1.0"),
        ("colours", "red,green", "one of red blue"),
        ("retain_term", "KL", "one of none nll kl mse"),
        ("layers", "a,b", "tuple[int, ...] | None"),
        ("layers", 3, "tuple[int, ...] | None"),
        ("layers", "1.5", "tuple[int, ...] | None"),
        ("lr", "fast", "float | Literal['auto']"),
        ("lr", -1, "at least 0.0"),
        ("max_steps", "0", "at least 1"),
        ("max_steps", 1.0, "int | None"),
        ("batch_size", "1e2", "int"),
        ("name", 3, "str | None"),
    ],
)
def test_a_wrong_value_is_refused_and_the_right_ones_are_named(
    name: str, value: Any, expected: str
) -> None:
    with pytest.raises(ExpungeError) as caught:
        resolve(Params, {name: value}, where="npo")
    assert caught.value.code == "E-USE-003"
    assert caught.value.found.startswith(f"npo: {name} = {value!r}")
    assert expected in caught.value.expected


def test_all_problems_come_at_once_with_the_nearest_names() -> None:
    with pytest.raises(Problems) as caught:
        resolve(Params, {"betta": 1, "beta": 9, "lr": "x", "epochs": 3}, where="npo")
    assert [problem.code for problem in caught.value.problems] == [
        "E-USE-002",
        "E-USE-003",
        "E-USE-003",
    ]
    assert "'beta'" in caught.value.problems[0].next
    assert "npo" in caught.value.problems[0].found


def test_nothing_overridden_gives_the_defaults_and_every_default_is_allowed() -> None:
    assert resolve(Params, {}) == Params()
    defaults = {name: facts["default"] for name, facts in describe(Params).items()}
    assert resolve(Params, defaults) == Params()
    shared = {name: facts["default"] for name, facts in describe(GradientParams).items()}
    assert resolve(GradientParams, shared) == GradientParams()


def test_a_restated_default_replaces_the_shared_one() -> None:
    assert GradientParams().retain_term == "nll"
    assert Params().retain_term == "kl"
    assert describe(Params)["retain_term"]["default"] == "kl"


def test_the_shared_names_are_those_of_the_architecture() -> None:
    assert list(describe(GradientParams)) == [
        "forget_weight",
        "retain_weight",
        "retain_term",
        "kl_scope",
        "lr",
        "epochs",
        "max_steps",
        "batch_size",
        "accumulation",
        "warmup",
        "schedule",
        "weight_decay",
        "mse_layer",
        "precision",
        "packing",
        "checkpointing",
        "base_bits",
        "layers",
        "lora_r",
        "lora_alpha",
        "lora_targets",
    ]
    assert all(facts["help"] for facts in describe(GradientParams).values())


def test_description_holds_every_fact() -> None:
    assert describe(Params)["beta"] == {
        "default": 0.1,
        "help": "sharpness",
        "paper": (0.1, 0.5),
        "type": "float",
        "low": 0.01,
        "high": 1.0,
        "choices": None,
    }
    assert describe(Params)["warmup"]["type"] == "int | Literal['auto']"
    assert describe(Params)["layers"]["type"] == "tuple[int, ...] | None"


def test_parameters_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Params().beta = 1.0  # type: ignore[misc]


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from([*describe(Params), "x", ""]), VALUES))
def test_any_input_gives_parameters_in_range_or_an_error_in_words(values: dict[str, Any]) -> None:
    try:
        params = resolve(Params, values)
    except ExpungeError:
        return
    assert 0.01 <= params.beta <= 1.0
    assert params.batch_size >= 1
    assert params.retain_term in ("none", "nll", "kl", "mse")
    assert resolve(Params, {name: getattr(params, name) for name in describe(Params)}) == params
