"""Every guard of the registry passes the same suite, on arrival."""

import pytest

from expunge.core import registry
from expunge.testing.guards import check_guard


@pytest.mark.parametrize("guard_id", registry.guards.ids())
def test_guard_conforms(guard_id):
    check_guard(guard_id)
