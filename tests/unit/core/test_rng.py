"""Seeds with names: stable, separate, unambiguous."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from expunge.core.rng import derive, generator

NAMES = st.lists(st.text() | st.integers(), max_size=4)


def test_a_seed_is_the_same_on_every_machine() -> None:
    # sha256 of the bytes `[0, "npo", 3]`, first eight bytes, one bit dropped
    assert derive(0, "npo", 3) == 0x4FA980E4D0C2B72B


@given(st.integers(), NAMES, NAMES)
def test_different_names_give_different_seeds(
    seed: int, one: list[str | int], other: list[str | int]
) -> None:
    assert 0 <= derive(seed, *one) < 2**63
    spelled = [(type(name), name) for name in one], [(type(name), name) for name in other]
    assert (derive(seed, *one) == derive(seed, *other)) == (spelled[0] == spelled[1])


def test_names_do_not_run_together() -> None:
    assert len({derive(1, "ab", "c"), derive(1, "a", "bc"), derive(1, "abc"), derive(1)}) == 4
    assert derive(1, 2) != derive(1, "2")
    assert derive(1, 2) != derive(12)


def test_generators_repeat_and_leave_the_global_one_alone() -> None:
    np.random.seed(0)
    before = str(np.random.get_state())
    first = generator(7, "sampler").random(5)
    assert np.array_equal(first, generator(7, "sampler").random(5))
    assert not np.array_equal(first, generator(7, "other").random(5))
    assert str(np.random.get_state()) == before
