"""The driver of kind ``reinforcement``: a warm start, then draws that are rewarded.

    1. the method's ``prepare``, its lessons and rewards
    2. where asked for: training on refusals, until some drawn answers refuse
    3. the model as it then is goes to ``.run/reference``: the divergence is measured from it
    4. policy gradient over the lessons, until the stop level or the last step

A restarted run goes on from the last checkpoint, and from the reference as it was.
"""

from dataclasses import replace
from importlib.metadata import version
from statistics import fmean
from typing import Any

from expunge.core.events import note
from expunge.core.families import ReinforcementParams
from expunge.engine.adapter import with_adapter
from expunge.engine.adapter_masks import of_adapters
from expunge.engine.levels import StopLevel
from expunge.engine.masks import AppliedMask
from expunge.engine.reinforcement.rewards import MOSTLY_ALIKE
from expunge.engine.reinforcement.school import School
from expunge.engine.reinforcement.steering import Steered
from expunge.engine.session import Session, Trained, isolated_randomness
from expunge.lm.hooks import without_dropout
from expunge.lm.load import quiet

TAIL = 0.1
"""Share of the steps whose mean is told as where the run ended."""


def reinforce(session: Session, stop: StopLevel | None) -> Trained:
    """Change the original by rewarding what it says, until the stop level or the last step.

    Args:
        session: Holds the request and the model.
        stop: The level at which forgetting is enough, or None.
    """
    plan, task = session.plan, session.task
    assert isinstance(plan.params, ReinforcementParams)  # noqa: S101
    before = session.before
    if plan.adapter:
        with quiet():
            session.model = with_adapter(task.model, plan.params, session.allowed, plan.seed)
    held = of_adapters(session.model, session.allowed) if plan.adapter else session.allowed
    AppliedMask(session.model, held)
    with quiet(), without_dropout(session.model), isolated_randomness():
        if session.method.prepare is not None:
            session.method.prepare(task, plan.params)
        school = School(session)
        steered = school.warm_start()
        trained = school.practise(stop, before[1].accuracy)
    session.model.eval()
    told = told_of_run(school, steered)
    _warn(told)
    return replace(trained, record=task.record | told)


def told_of_run(school: School, steered: Steered | None) -> dict[str, Any]:
    """What the manifest tells of a run; numbers also stand in the summary.

    ``reward``, ``kl`` and ``zero_variance`` are means of the last tenth of the steps,
    ``reward_before`` and ``zero_variance_before`` of the first; ``rollouts`` has every step.
    """
    steps = school.logs
    tail = max(1, round(TAIL * len(steps)))
    told: dict[str, Any] = {
        "lessons": {
            aim: sum(one.aim == aim for one in school.lessons) for aim in ("forget", "keep")
        },
        "new_tokens": school.new_tokens,
        "trl": version("trl"),
    }
    if steered is not None:
        told |= {"steered_steps": steered.steps, "steered_lr": steered.lr}
        told["refusing_before"] = round(steered.refusing, 4)
    for name in ("reward", "kl", "zero_variance"):
        ends = [one[name] for one in steps[-tail:] if name in one]
        told |= {name: round(fmean(ends), 6)} if ends else {}
    for name in ("reward", "zero_variance"):
        starts = [one[name] for one in steps[:tail] if name in one]
        told |= {f"{name}_before": round(fmean(starts), 6)} if starts else {}
    if steps:
        told["rollouts"] = [{n: round(v, 6) for n, v in one.items()} for one in steps]
    return told


def _warn(told: dict[str, Any]) -> None:
    """Say aloud that draws taught nothing to begin with; at the end of a good run they may."""
    share = told.get("zero_variance_before", 0.0)
    if share >= MOSTLY_ALIKE:
        note(
            f"In {share:.0%} of the first groups all answers got the same reward, so nothing "
            "but the divergence moved the model there. Raise --set temperature or "
            "num_generations; where the model still answers, --set steer=always, and where it "
            "always refuses, a lower steer_until."
        )
