"""Packages of extras: there, or an error that says how to install them."""

import pytest

from expunge.core.errors import Exit, ExpungeError
from expunge.core.extras import require


def test_a_package_that_is_there_is_no_problem() -> None:
    require("json", extra="sign")


def test_one_that_is_not_names_the_command_that_installs_it() -> None:
    with pytest.raises(ExpungeError) as caught:
        require("no_such_package", extra="sign")
    assert (caught.value.code, caught.value.exit_code) == ("E-REQ-001", Exit.MISSING_REQUIREMENT)
    assert caught.value.next == "Install it with: pip install 'expunge[sign]'"
