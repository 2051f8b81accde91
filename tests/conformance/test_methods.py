"""Every method of the registry keeps the promises of the engine."""

import pytest

from expunge.core.registry import methods
from expunge.testing import check_method


@pytest.mark.parametrize("method_id", [c.id for c in methods.cards() if c.kind == "gradient"])
def test_the_method_conforms(method_id: str) -> None:
    check_method(method_id)
