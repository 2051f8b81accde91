"""``expunge guards``: list the guards, or show one."""

from expunge.cli.catalogue import Id, answer
from expunge.cli.output import Answer, command
from expunge.core import registry


@command
def guards(id: Id = None) -> Answer:
    """List the guards, or show one: formula, parameters, paper, maturity."""
    return answer(registry.guards, id)
