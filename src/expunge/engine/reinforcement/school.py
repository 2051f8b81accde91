"""The lessons of one run: warm start, draws, and when it is enough."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, count, islice
from math import ceil, log
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any, cast

from expunge.core.events import progress
from expunge.core.families import ReinforcementParams
from expunge.core.params import describe
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.engine import checkpoints, rates
from expunge.engine.levels import StopLevel
from expunge.engine.precision import computing, precision_on
from expunge.engine.reinforcement.lessons import Aim, Lesson, answer_length, drawn, prompt_ids
from expunge.engine.reinforcement.reference import keep_reference, put_back, without_copy
from expunge.engine.reinforcement.rewards import MOSTLY_ALIKE, Judging, alike_share, answered
from expunge.engine.reinforcement.steering import SHOWN, SHOWN_SAMPLES, Steered, steer
from expunge.engine.reinforcement.trainer import (
    Guide,
    RolloutTrainer,
    config_of,
    data_of,
    told_of,
    untouched,
)
from expunge.engine.session import MEASUREMENTS, SETTLED, SPENT, Session, Trained
from expunge.engine.slots.stop import Measured
from expunge.text.refusal import is_refusal


class School:
    """The lessons of one run, and what is done with them.

    Args:
        session: Holds the request and the model.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.plan, self.task = session.plan, session.task
        self.params = cast(ReinforcementParams, session.plan.params)
        self.card = methods.card(self.plan.method).extra
        self.method: ModuleType = methods.load(self.plan.method)
        self.lessons: Sequence[Lesson] = self.method.lessons(self.task, self.params)
        self.judging = Judging(self.method.REWARDS, self.lessons, self.task, self.params)
        encoder = self.task.encoder
        longest = max(len(encoder.encode(lesson.turn).spans) for lesson in self.lessons)
        self.new_tokens = answer_length(longest, encoder.max_length, self.params)
        room = min(self.params.prompt_tokens, encoder.max_length - self.new_tokens)
        self.prompts = [prompt_ids(encoder, lesson, room) for lesson in self.lessons]
        self.logs: list[dict[str, float]] = []

    def warm_start(self) -> Steered | None:
        """Bring the model to where the draws begin, and keep it as the reference."""
        folder, params = self.session.run / "reference", self.params
        if (told := put_back(self.session.model, folder)) is not None:
            return Steered(**told) if told else None
        with computing(self.session.model, params):
            steered = self._steered() if self._is_steered() else None
        keep_reference(self.session.model, folder, asdict(steered) if steered else {})
        return steered

    def _is_steered(self) -> bool:
        if self.params.steer != "auto":
            return bool(self.params.steer == "always")
        share = alike_share(self.judging, self._aimed("forget"), self.new_tokens)
        self.task.record["alike_before"] = round(share, 4)
        return share > MOSTLY_ALIKE

    def _steered(self) -> Steered:
        params, plan = self.params, self.plan
        aimed = self._aimed("forget")
        shown = drawn(aimed, SHOWN, plan.seed, "shown")

        def refusing() -> float:
            said = answered(
                self.task, shown, self.new_tokens,
                samples=SHOWN_SAMPLES, temperature=params.temperature, name="refusing",
            )  # fmt: skip
            return fmean(is_refusal(one) for answers in said for one in answers)

        size, exponent = plan.folder.parameters, self.card.get("rate_exponent", rates.EXPONENT)
        lr = rates.scaled(describe(type(params))["steer_lr"]["paper"], size, exponent)
        return steer(
            self.session.model, self.task.tokenizer,
            self.method.steering(self.task, params, aimed), params,
            parameters=size, lr=lr * rates.ADAPTER_FACTOR if plan.adapter else lr,
            seed=plan.seed, refusing=refusing,
        )  # fmt: skip

    def practise(self, stop: StopLevel | None, accuracy: float) -> Trained:
        """Draw, reward and learn, to the level or the last step."""
        plan, params, run = self.plan, self.params, self.session.run
        epoch = ceil(len(self.lessons) / (params.batch_size * params.accumulation))
        size = plan.folder.parameters
        steps = rates.run_length(params, epoch, size)
        lr = rates.learning_rate(params, size, adapter=bool(plan.adapter), card=self.card)
        device = next(self.session.model.parameters()).device.type
        start = self._start()
        if start is not None:
            self.task.state.update(checkpoints.state_of(start))
        with (
            untouched(self.session.model, str(run / "reference")),
            progress(plan.method, steps) as bar,
        ):
            guide = Guide(
                run=run, state=self.task.state, progress=bar,
                measure=self._measure(stop, accuracy), is_enough=self._is_enough,
                deadline=None if plan.max_minutes is None
                else time.monotonic() + 60 * plan.max_minutes,
                every=max(1, steps // MEASUREMENTS),
            )  # fmt: skip
            trainer = RolloutTrainer(
                prompts=self.prompts, precision=precision_on(params, device),
                model=self.session.model, reward_funcs=self.judging.functions(),
                args=config_of(
                    run, params, steps=steps, lr=lr, new_tokens=self.new_tokens, seed=plan.seed,
                    warmup=rates.warmup_steps(params, epoch, steps), use_cpu=device == "cpu",
                ),
                train_dataset=data_of(self._order(steps)), processing_class=self.task.tokenizer,
                callbacks=[guide],
            )  # fmt: skip
            done = checkpoints.step_of(start) if start else 0
            bar.advance(done, text="resuming" if done else "")
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        without_copy(self.session.model)
        self.logs = [told_of(one) for one in trainer.state.log_history if "reward" in one]
        return Trained(
            model=self.session.model, steps=trainer.state.global_step, resumed_from=done,
            stopped_by=guide.stopped_by or "steps", lr=lr, planned=steps, history=guide.history,
        )  # fmt: skip

    def _aimed(self, aim: Aim) -> list[Lesson]:
        return [lesson for lesson in self.lessons if lesson.aim == aim]

    def _order(self, steps: int) -> list[int]:
        """Numbers of the lessons of all steps: each once an epoch, in an order of its own."""
        each = self.params.batch_size * self.params.accumulation

        def epoch(number: int) -> Sequence[int]:
            rng = generator(self.plan.seed, "lessons", number)
            order: list[int] = rng.permutation(len(self.lessons)).tolist()
            return order

        return list(islice(chain.from_iterable(map(epoch, count())), steps * each))

    def _measure(self, stop: StopLevel | None, accuracy: float) -> Any:
        """Takes both levels; at the level and out of budget are decided here."""
        session, budget = self.session, self.plan.utility_budget

        def measure(step: int, told: dict[str, float]) -> Measured:
            found, kept = session.levels()
            fall = 1 - kept.accuracy / accuracy if accuracy else 0.0
            reached = stop is not None and stop.reached(found)
            is_spent = budget is not None and fall > SPENT * budget
            guess = log(session.vocabulary)
            return Measured(step, found.nll, reached, dict(told), guess, fall, is_spent)

        return measure

    def _is_enough(self, history: list[Measured]) -> str:
        """Why the run is over: at the level once the retain rows are there, or out of budget."""
        now = history[-1]
        if now.is_level and (now.utility_drop or 0.0) <= SETTLED:
            return "level"
        if now.is_spent:
            return "utility-budget"
        return "method" if self.session.method.stop(history, self.params) else ""

    def _start(self) -> Path | None:
        """The checkpoint to go on from; what is newer is broken and goes."""
        newest = checkpoints.newest(self.session.run)
        checkpoints.discard_after(self.session.run, newest)
        return newest
