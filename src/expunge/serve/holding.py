"""Targets from the moment somebody asks for one until it is revoked."""

import gc
import hmac
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from secrets import token_hex
from threading import Lock
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.canonical import canonical
from expunge.core.errors import ExpungeError, Problems
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.targets import Target
from expunge.requests.columns import Unfit, filled
from expunge.requests.rows import Row
from expunge.serve.bodies import validated
from expunge.serve.faults import Fault, fault_of
from expunge.serve.live import Live
from expunge.serve.store import AT_ONCE, Record, Store
from expunge.text.normalise import words

MOST_ALIASES, MOST_ROWS = 1000, 10_000
ALIAS_LENGTH = 500
"""Longest name of a subject, in characters."""

_log = logging.getLogger(__name__)


class TargetBody(BaseModel):
    """A body of ``POST /admin/targets``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    subject: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    aliases: Annotated[list[str], Field(max_length=MOST_ALIASES)] | None = None
    rows: Annotated[list[dict[str, Any]], Field(max_length=MOST_ROWS)] | None = None
    reason: Annotated[str, Field(max_length=10_000)] | None = None


class Holding:
    """The targets of one gateway, in the store and in the guards.

    A target is in the guards before anything else: it counts from then on. It is in the store
    before whoever asked for it hears so; a guard that learns from its targets learns before that.
    Whatever fails on the way, it is in neither.

    Args:
        store: Where they survive.
        guards: Who holds them back.

    Raises:
        ExpungeError: ``E-SERVE-005`` when a guard cannot hold back a target that is stored.
    """

    def __init__(self, store: Store, guards: Sequence[Live]) -> None:
        self.store, self.guards = store, tuple(guards)
        self._pending: dict[str, Target] = {}
        self._changing, self._settling = Lock(), Lock()
        with _uncollected():
            for guard in self.guards:
                self._restore(guard)

    def add(self, body: Mapping[str, Any]) -> str:
        """Take a target in; it counts for every question that comes from now on.

        Args:
            body: As ``POST /admin/targets`` takes it.

        Returns:
            Its id.

        Raises:
            Fault: 400 for what is no target; nothing has changed then.
        """
        content = _content(validated(TargetBody, body))
        id, now = token_hex(8), datetime.now(UTC).isoformat(timespec="seconds")
        target = _target(id, now, content)
        evidence = hmac.new(self.store.secret, canonical(content), sha256).hexdigest()
        record = Record(id=id, created=now, evidence=evidence, content=content)
        try:
            entries = {guard.id: (guard.mark, guard.entry(target)) for guard in self.guards}
            self._taken(target, record, entries)
        except ExpungeError as error:
            raise fault_of(error) from None
        _log.info("target %s added", id)
        return id

    def revoke(self, id: str) -> None:
        """Let a target go; nothing of it is left in the guards.

        Raises:
            Fault: 404 where there is none.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._settling:
            if self.store.get(id) is None:
                raise Fault(404, "no_such_target", "There is no such target.")
            settled = self._prepared(without=id)
            with self._changing:
                self.store.revoke(id, now)
            for guard in self.guards:
                guard.drop(id)
            _share(settled)
        _log.info("target %s revoked", id)

    def listed(self, after: str | None, most: int) -> dict[str, Any]:
        """What ``GET /admin/targets`` says; names and facts are only counted."""
        page = self.store.page(after, most + 1)
        told = [
            {
                "id": record.id,
                "subject": content.get("subject"),
                "reason": content.get("reason"),
                "created": record.created,
                "evidence": record.evidence,
                "aliases": len(content.get("aliases", ())),
                "rows": len(content.get("rows", ())),
            }
            for record in page[:most]
            if (content := record.content or {}) is not None
        ]
        more = len(page) > most
        return {
            "targets": told,
            "total": self.store.count,
            "next": told[-1]["id"] if more else None,
        }

    def _taken(
        self, target: Target, record: Record, entries: Mapping[str, tuple[str, Any]]
    ) -> None:
        """Hold a target back at once, then make what is shared, then write it down."""
        self._pending[target.id] = target
        is_shared = False
        try:
            for guard in self.guards:
                guard.take(target.id, entries[guard.id][1])
            if any(guard.shares for guard in self.guards):
                with self._settling:
                    settled = self._prepared()
                    is_shared = True
                    _share(settled)
            with self._changing:
                self.store.add(record, entries)
        except BaseException:
            for guard in self.guards:
                guard.drop(target.id)
            if is_shared:
                with self._settling:
                    _share(self._prepared(without=target.id))
            raise
        finally:
            del self._pending[target.id]

    def _prepared(self, without: str = "") -> list[tuple[Live, Shared]]:
        """What targets would share, those included that are on their way into the store."""
        targets = _Targets(self.store, more=list(self._pending.values()), without=without)
        return [(guard, guard.prepared(targets)) for guard in self.guards if guard.shares]

    def _restore(self, guard: Live) -> None:
        """Take in what is stored; what another version or other parameters stored is made anew."""
        known = set()
        for id, entry in self.store.entries(guard.id, guard.mark):
            guard.take(id, entry)
            known.add(id)
        fresh = []
        for record in self.store.records() if len(known) < self.store.count else ():
            if record.id not in known:
                entry = guard.entry(_target(record.id, record.created, record.content or {}))
                guard.take(record.id, entry)
                fresh.append((record.id, entry))
            if len(fresh) >= AT_ONCE:
                self.store.keep(guard.id, guard.mark, fresh)
                fresh.clear()
        self.store.keep(guard.id, guard.mark, fresh)
        if guard.shares:
            guard.share(guard.prepared(_Targets(self.store)))


def _share(settled: Sequence[tuple[Live, Shared]]) -> None:
    for guard, shared in settled:
        guard.share(shared)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No looking for garbage meanwhile: all that is made stays, and there is much of it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Targets(Sequence[Target]):
    """All targets of a store, opened one page at a time by whoever goes through them."""

    def __init__(self, store: Store, *, more: Sequence[Target] = (), without: str = "") -> None:
        self._store, self._more, self._without = store, more, without

    def __iter__(self) -> Iterator[Target]:
        seen = {self._without}
        for record in self._store.records():
            if record.id not in seen:
                yield _target(record.id, record.created, record.content or {})
            seen.add(record.id)
        yield from (target for target in self._more if target.id not in seen)

    def __len__(self) -> int:
        return self._store.count + len(self._more) - bool(self._without)

    def __getitem__(self, at: Any) -> Any:
        return list(self)[at]


def _content(body: TargetBody) -> dict[str, Any]:
    """A body as it is kept, after a look at every text in it.

    Raises:
        Fault: 400, for the first thing that is wrong.
    """
    aliases = list(dict.fromkeys(body.aliases or ()))
    for at, alias in enumerate(aliases):
        _check(alias, f"aliases.{at}", ALIAS_LENGTH)
        if not words(alias):
            raise Fault(400, "no_words", f"aliases.{at}: a name without a word.", f"aliases.{at}")
    for name in ("subject", "reason"):
        text = getattr(body, name)
        if text:
            _check(text, name)
    rows = [_row(row, f"rows.{at}") for at, row in enumerate(body.rows or ())]
    if not aliases and not rows:
        raise Fault(400, "nothing_to_hold", "A target needs aliases or rows.")
    told = {
        "subject": body.subject,
        "reason": body.reason,
        "aliases": aliases,
        "rows": [row.as_dict() for row in rows],
    }
    return {name: value for name, value in told.items() if value}


def _row(row: Mapping[str, Any], where: str) -> Row:
    try:
        return Row.parse(row, role="forget", where=where)
    except Problems as several:
        raise fault_of(several.problems[0], where) from None
    except ExpungeError as error:
        raise fault_of(error, where) from None


def _check(text: str, param: str, most: int = 0) -> None:
    try:
        filled(text)
    except Unfit as unfit:
        raise Fault(400, unfit.code, f"{param} holds {unfit.found}.", param) from None
    if most and len(text) > most:
        raise Fault(400, "too_long", f"{param}: more than {most} characters.", param)


def _target(id: str, created: str, content: Mapping[str, Any]) -> Target:
    return Target(
        id=id,
        rows=tuple(Row.parse(row, where=id) for row in content.get("rows", ())),
        aliases=tuple(content.get("aliases", ())),
        reason=content.get("reason", ""),
        created=created,
    )
