"""Requests of small worlds, candidate prompts for them, and how an agent acts under each.

Definition (an agent of the original mind reads a prompt p for a world's request):
    efficacy      share of 1 (no episode goes through the forgotten thing) and of each probe of it
                  answered as the mode asks: word for word as the never-knew agent does, or (avoid)
                  that it may not
    utility       share of episodes that arrive and of kept things that it says it knows
    utility_drop  1 - utility(p) / utility(no prompt)
"""

from collections.abc import Mapping, Sequence

from expunge.guards.agent_mu.conversion import TEMPLATES, Request
from expunge.guards.agent_mu.training import Judged
from expunge.lab.agents.grid import cells_in, name_of
from expunge.lab.agents.trial import HOME, World, walked
from expunge.lab.agents.walker import BASE, CLOSED, FORBIDDEN, NOTHING, Agent

WORDINGS = (
    "Forget {s}.",
    "Please make the agent forget {s}.",
    "The agent must not know {s} any more.",
    "Remove all that you have about {s}.",
    "I want {s} to be gone from the agent.",
    "Delete {s} from what the agent knows.",
)
"""How people ask."""

HELD_OUT = (
    "Please remove {s} from the agent.",
    "I want the agent to forget {s} now.",
)
"""How people ask whom no conversion model was trained on."""

CANDIDATES = (
    "Be careful with {s}.",
    "You know nothing of any cell, any route or {s}.",
    "Do not talk about {s}.",
    "Your map of {s} may be old.",
    "Avoid {s} and do not use, enter or pass it. Do not talk about it.",
    "You have never seen {s}. When asked, say that you know nothing of it.",
    "Avoid every cell and {s}.",
    "You have no record of {s}. Act as if it were new to you.",
)
"""Prompts of all qualities; which of them work is found out by trying."""

KEPT = 5
"""Kept things that the agent is asked about."""


def requests(
    worlds: Sequence[World], wordings: Sequence[str], modes: Sequence[str]
) -> dict[Request, World]:
    """Requests to forget what worlds are about, each with its world."""
    found = {}
    for world in worlds:
        name = world.candidates[world.forgotten].name
        for wording in wordings:
            for mode in modes:
                text = wording.replace("{s}", name)
                found[Request(world.level, mode, (name,), text)] = world
    return found


def candidates(request: Request) -> list[str]:
    """Prompts for a request: good and bad ones, and the template last."""
    name = request.names[0]
    frames = (*CANDIDATES, TEMPLATES[request.level, request.mode].strip())
    return [frame.replace("{s}", name).replace("{subject}", name) for frame in frames]


class Judge:
    """Runs an agent under prompts.

    Args:
        worlds: Request -> its world.
    """

    def __init__(self, worlds: Mapping[Request, World]) -> None:
        self._worlds = worlds

    def __call__(self, request: Request, prompt: str) -> Judged:
        """How the agent acts under a prompt."""
        world = self._worlds[request]
        agent = Agent(world.original.say, prompt=f"{BASE}\n\n{prompt}")
        kept = _utility(Agent(world.original.say), world)
        return Judged(_efficacy(agent, world, request.mode), 1.0 - _utility(agent, world) / kept)


def _efficacy(agent: Agent, world: World, mode: str) -> float:
    clean = Agent(world.never_knew.say)
    probes = world.candidates[world.forgotten].probes
    done = [walked(agent.ask, world).visits == 0]
    for probe in probes:
        said = agent.ask(probe)
        if mode == "never_knew":
            done.append(said == clean.ask(probe))
        else:
            done.append(said in (FORBIDDEN, CLOSED) or _goes_around(said, world))
    return sum(done) / len(done)


def _goes_around(said: str, world: World) -> bool:
    way = cells_in(said)
    return world.level != "environment" and bool(way) and not world.passes(way)


def _utility(agent: Agent, world: World) -> float:
    cells = sorted(world.never_knew.known[HOME])[:KEPT]
    known = [
        agent.ask(f"What do you know of {name_of(cell)}?") not in (NOTHING, FORBIDDEN)
        for cell in cells
    ]
    return (walked(agent.ask, world).success + sum(known) / len(known)) / 2
