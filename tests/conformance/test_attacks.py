"""Every attack of the registry passes the same suite, on arrival."""

import pytest

from expunge.core import registry
from expunge.testing.attacks import check_attack


@pytest.mark.parametrize("attack_id", registry.attacks.ids())
def test_attack_conforms(attack_id):
    check_attack(attack_id)
