"""An ensemble is built, or rows are taken out of one.

A run that was cut off finds the stages it had finished: each of their files says what it was
trained on, and what still holds is taken as it is.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from expunge.core.canonical import file_digest
from expunge.core.errors import ExpungeError
from expunge.core.events import Progress, note, progress
from expunge.core.families import EnsembleParams
from expunge.core.registry import methods
from expunge.engine import rates
from expunge.engine.exact.asking import earlier_of
from expunge.engine.exact.knowing import Knowing
from expunge.engine.exact.ledger import Ledger
from expunge.engine.exact.planner import cost_of
from expunge.engine.exact.proof import checked, expected_seen, prove, weights_digest
from expunge.engine.exact.retraining import kept_rows
from expunge.engine.exact.scheme import scheme_of
from expunge.engine.exact.serving import adapters_of, part_of
from expunge.engine.exact.stages import Seen, check_file, read_seen, write_stage
from expunge.engine.exact.state import (
    FILE,
    Asked,
    Chain,
    Ensemble,
    asked_of,
    members_of,
    recipe_of,
    salt_of,
)
from expunge.engine.exact.telling import record_of
from expunge.engine.exact.training import Place, Stages
from expunge.engine.linears import linears_in
from expunge.engine.runtime import Part, attach
from expunge.engine.session import Session, Trained
from expunge.engine.slots.sample import content_key
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject


def made(session: Session, original: Subject) -> Trained:
    """Build the ensemble a session asks for, or take rows out of the one its model has.

    Args:
        session: Of the base model, which stays as it is; the ensemble is put into it in the end.
        original: What the ensemble takes the place of; it is asked what there was to be learnt.

    Raises:
        ExpungeError: ``E-RUN-001`` when no row of the ensemble is asked for, ``E-MODEL-009`` when
            the ensemble or the base is not as it was written.
    """
    return _Making(session, original).made()


class _Making:
    """One request under way."""

    def __init__(self, session: Session, original: Subject) -> None:
        plan, params = session.plan, session.plan.params
        assert isinstance(params, EnsembleParams)  # noqa: S101
        assert session.task.folder is not None  # noqa: S101
        self.session, self.plan, self.params, self.original = session, plan, params, original
        self.model, self.folder = session.subject.model, session.task.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.slots = Slots(self.model)
        self.card = methods.card(plan.method)
        module = methods.load(plan.method)
        self.scheme = scheme_of(module, params, len(self.slots), plan.seed)
        self.base = weights_digest(self.model)
        self.rate = rates.learning_rate(
            params, plan.folder.parameters, adapter=True, card=self.card.extra
        )
        self.passes = rates.passes(params, plan.folder.parameters)
        self.head = rates.trains_head(params, plan.folder.parameters)
        self.stages = Stages(session, self.rate, self.passes)
        self.kept = kept_rows(plan)
        self.rows = {content_key(row): row for row in [*self.kept, *plan.rows["forget"]]}
        self.ledger = Ledger()
        self.steps = self.resumed = 0

    def made(self) -> Trained:
        """Do what is asked, write it down, and put it into the model."""
        before = earlier_of(self.plan.method, self.plan.folder)
        record: dict[str, Any] = {}
        if before is not None:
            self._take_over(before)
            found, record = self._without_rows(before)
        elif self.params.build == "with":
            everything = [*self.kept, *self.plan.rows["forget"]]
            found, record = self._without_rows(self._built(everything))
        else:
            found = self._built(self.kept)
        if not any(any(found.left(shard)) for shard in range(len(found.shards))):
            raise _nothing_left()
        return self._handed_over(found, record)

    def _take_over(self, before: Ensemble) -> None:
        """Check the ensemble the model has, whose rate, passes and head hold on."""
        assert self.session.task.earlier is not None  # noqa: S101
        if before.base != self.base:
            raise ExpungeError(
                "E-MODEL-009",
                "The base is not the one that the ensemble was trained on.",
                f"weights with the digest {before.base[:16]}.",
                f"Name that base, or leave --set base out: {self.plan.folder.path} has it.",
            )
        prove(self.plan.folder.path)
        self.rate, self.passes, self.head = before.rate, before.passes, before.head
        self.stages = Stages(self.session, self.rate, self.passes)
        self.ledger = Ledger.read(self.session.task.earlier)

    def _built(self, rows: Sequence[Any]) -> Ensemble:
        scheme, salt = self.scheme, salt_of(self.params, self.plan.seed)
        ensemble = Ensemble(
            method=self.card.id,
            version=self.card.version,
            recipe=recipe_of(self.params, self.plan.seed),
            salt=salt,
            base=self.base,
            rate=self.rate,
            passes=self.passes,
            head=self.head,
            slices=scheme.slices,
            members=members_of(rows, salt, scheme.shards, scheme.slices),
            shards=tuple(
                tuple(Chain(tuple(order)) for order in scheme.orders(shard))
                for shard in range(scheme.shards)
            ),
        )
        built = self._trained(ensemble, range(scheme.shards))
        self.ledger.add("built", rows=len(rows), base=self.base, after=_files(built))
        return built

    def _without_rows(self, before: Ensemble) -> tuple[Ensemble, dict[str, Any]]:
        """The ensemble without the rows to be forgotten, and what that took."""
        asked = asked_of(before, self.plan.rows["forget"], self.kept, self.scheme.retrains)
        if not asked.gone:
            raise _nothing_to_delete(asked)
        self._copy(asked.left)
        starts = {s: [len(c.files) for c in asked.left.shards[s]] for s in asked.anew}
        lost = {s for s in starts if not any(asked.left.left(s)) and not self.scheme.revives}
        left = replace(asked.left, lost=tuple(sorted({*before.lost, *lost})))
        after = self._trained(left, asked.anew)
        for member in asked.gone:
            self.ledger.add(
                "deleted", row=member.key, shard=member.shard, slice=member.slice,
                before=_files(before)[member.shard], after=_files(after)[member.shard],
            )  # fmt: skip
        cost = sum(cost_of(after, s, first, self.passes) for s, first in starts.items())
        return after, self._told(before, asked, cost)

    def _told(self, before: Ensemble, asked: Asked, cost: int) -> dict[str, Any]:
        dropped = sum(
            len(one.files) - len(two.files)
            for old, new in zip(before.shards, asked.left.shards, strict=True)
            for one, two in zip(old, new, strict=True)
        )
        if asked.absent:
            note(f"{asked.absent} rows to be forgotten are none of the ensemble's.")
        if asked.strange:
            note(
                f"{asked.strange} rows to be kept are none of the ensemble's; it learns rows when "
                "it is built alone."
            )
        return {
            "deleted": len(asked.gone),
            "absent": asked.absent,
            "stages_dropped": dropped,
            "shards_retrained": list(asked.anew),
            "row_epochs": cost,
        }

    def _trained(self, ensemble: Ensemble, shards: Iterable[int]) -> Ensemble:
        """All sequences of some shards, each from the stage up to which it is there."""
        chosen = list(shards)
        todo = [
            (place, len(ensemble.behind(place.shard, chain.order[: place.stage + 1])))
            for shard in chosen
            for sequence, chain in enumerate(ensemble.shards[shard])
            for place in _places(shard, sequence, chain)
        ]
        total = sum(self.stages.steps(rows) for _, rows in todo if rows)
        self.steps += total
        with progress(self.plan.method, total) as bar:
            for place, _ in todo:
                ensemble = self._with_stage(ensemble, place, bar)
        return ensemble

    def _with_stage(self, ensemble: Ensemble, place: Place, bar: Progress) -> Ensemble:
        chain = ensemble.shards[place.shard][place.sequence]
        parent = chain.files[-1] if chain.files else self.base
        seen = expected_seen(ensemble, place.shard, place.sequence, place.stage, parent)
        hash = self._found(seen)
        steps = self.stages.steps(len(seen.rows)) if seen.rows else 0
        if hash is None:
            before = adapters_of(self.folder, place.shard, place.sequence, chain.files)
            names = self._moving(place.stage)
            rows = [self.rows[key] for key in seen.rows]
            trained = self.stages.train(place, names, rows, before, bar)
            hash = write_stage(self.folder, seen, trained)
        else:
            self.resumed += steps
            bar.advance(steps, text="resuming")
        return _with_chain(ensemble, place, replace(chain, files=(*chain.files, hash)))

    def _moving(self, stage: int) -> list[str]:
        """The linears whose adapters a stage trains."""
        names = linears_in(self.slots, self.scheme.blocks(stage), self.params.lora_targets)
        heads = [n for n, module in self.model.named_modules() if module is self.slots.head]
        return [*names, *heads] if self.head else names

    def _found(self, seen: Seen) -> str | None:
        """The hash of a stage that an earlier start of this run had finished."""
        file = self.folder / seen.file
        return file_digest(file) if file.is_file() and read_seen(file) == seen else None

    def _copy(self, ensemble: Ensemble) -> None:
        """Have the files of all stages that are left, each checked, from the change before."""
        earlier = self.session.task.earlier
        for place, hash in _all_files(ensemble):
            if not (self.folder / place.file).is_file() and earlier is not None:
                check_file(earlier / place.file, hash)
                shutil.copyfile(earlier / place.file, self.folder / place.file)

    def _handed_over(self, ensemble: Ensemble, record: Mapping[str, Any]) -> Trained:
        """Write state and ledger, prove them, and put the ensemble into the model."""
        self._clear(ensemble)
        ensemble.write(self.folder)
        self.ledger.write(self.folder)
        part = replace(
            part_of(ensemble, self.folder, self.params),
            method=self.card.id, version=self.card.version,
        )  # fmt: skip
        proof = checked(ensemble, self.folder, part, self.base, self.ledger.head)
        told = record_of(ensemble, self.scheme)
        told["known"] = self._known(ensemble, part)
        attach(self.model, part)
        told["ensemble"] |= {"state": file_digest(self.folder / FILE)}
        told |= {
            "request": {"deleted": 0, **record},
            "ledger": {"lines": len(self.ledger.lines), "head": self.ledger.head},
            "proof": asdict(proof),
        }
        return Trained(
            model=self.model, steps=self.steps, resumed_from=self.resumed, stopped_by="steps",
            lr=self.rate, planned=self.steps, history=[], record=told, runtime=part,
        )  # fmt: skip

    def _known(self, ensemble: Ensemble, part: Part) -> dict[str, Any] | None:
        """What the ensemble says of its own rows; where that is of no use it is said aloud."""
        base = self.session.subject
        asking = Knowing(base, self.original, self.rows, self.plan.seed)
        known = asking.known(ensemble, self.folder, part)
        if known is None:
            return None
        caution = known.caution(len(part.settings["voices"]), self.params.mean)
        if caution:
            note(caution)
        return asdict(known) | ({"caution": caution} if caution else {})

    def _clear(self, ensemble: Ensemble) -> None:
        """Leave no file of a stage that is gone: it has seen what was deleted."""
        left = {place.file for place, _ in _all_files(ensemble)}
        for file in self.folder.glob("shard*.safetensors"):
            if file.name not in left:
                file.unlink()


def _places(shard: int, sequence: int, chain: Chain) -> list[Place]:
    stages = range(len(chain.files), len(chain.order))
    return [Place(shard, sequence, stage) for stage in stages]


def _all_files(ensemble: Ensemble) -> list[tuple[Place, str]]:
    return [
        (Place(shard, sequence, stage), hash)
        for shard, chains in enumerate(ensemble.shards)
        for sequence, chain in enumerate(chains)
        for stage, hash in enumerate(chain.files)
    ]


def _with_chain(ensemble: Ensemble, place: Place, chain: Chain) -> Ensemble:
    shards = [list(chains) for chains in ensemble.shards]
    shards[place.shard][place.sequence] = chain
    return replace(ensemble, shards=tuple(tuple(chains) for chains in shards))


def _files(ensemble: Ensemble) -> list[list[list[str]]]:
    """Hash of every file, by shard and sequence."""
    return [[list(chain.files) for chain in chains] for chains in ensemble.shards]


def _nothing_to_delete(asked: Asked) -> ExpungeError:
    return ExpungeError(
        "E-RUN-001",
        f"None of the {asked.absent} rows to be forgotten is in the ensemble.",
        "rows that it was trained on, with the prompt and reply they had then.",
        "There is nothing to do, unless the rows were written differently.",
    )


def _nothing_left() -> ExpungeError:
    return ExpungeError(
        "E-RUN-001",
        "Nothing is left of the ensemble: every sequence of every shard is dead.",
        "a part of it that never met the deleted rows.",
        "Serve the base model itself, or build a new ensemble from it.",
    )
