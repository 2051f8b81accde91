"""What survives a restart: targets, what the guards keep of them, tokens; nothing of it readable.

One SQLite file in a folder of its own. A change is on the disk before the call returns. All that
says anything of a target is sealed under the store's key, which the environment gives, or which
lies in the folder in a file for its owner alone. Whoever has both has the list.
"""

import os
import stat
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from threading import RLock
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from expunge.core.atomic import create_bytes
from expunge.core.errors import ExpungeError
from expunge.core.paths import locked
from expunge.engine.guarding.sealing import seal, unseal
from expunge.serve.access import Token

FORMAT = "expunge-store/1"
DATABASE, KEY = "targets.db", "store.key"
VARIABLE = "EXPUNGE_STORE_KEY"
"""Where the key is looked for first: 32 bytes as 64 hexadecimal digits or in base64."""

AT_ONCE = 1000
"""Rows that are read or written together."""

_META = MetaData()
_ABOUT = Table("about", _META, Column("name", String, primary_key=True), Column("value", Text))
_TARGETS = Table(
    "targets",
    _META,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("created", String, nullable=False),
    Column("evidence", String, nullable=False),
    Column("sealed", Text),
    Column("revoked", String),
    sqlite_autoincrement=True,
)
_ENTRIES = Table(
    "entries",
    _META,
    Column("target", String, primary_key=True),
    Column("guard", String, primary_key=True),
    Column("mark", String, nullable=False),
    Column("sealed", Text, nullable=False),
    sqlite_with_rowid=False,
)
_TOKENS = Table(
    "tokens",
    _META,
    Column("scope", String, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("expires", Float),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One target as it is stored.

    Attributes:
        id: Its name; says nothing.
        created: When it was asked for, ISO 8601 in UTC.
        evidence: Keyed hash of what was asked for.
        content: What was asked for; None once it is revoked.
        revoked: When it was revoked; None while it holds.
    """

    id: str
    created: str
    evidence: str
    content: Mapping[str, Any] | None
    revoked: str | None = None


class Store:
    """The store of one gateway; only one process at a time has it.

    Attributes:
        secret: Key of all hashes and seals of the guards.

    Args:
        folder: Where it lies; None keeps it in memory, under a key that dies with it.
        environ: Where `VARIABLE` is looked up.

    Raises:
        ExpungeError: ``E-USE-005`` when another process has it, ``E-SERVE-007`` when this key does
            not open it or it is no store, ``E-KEY-003`` when others can read the key.
    """

    def __init__(
        self, folder: str | Path | None, *, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._held = ExitStack()
        # In memory all threads share one connection, and so they would share transactions.
        self._turn: AbstractContextManager[Any] = RLock() if folder is None else nullcontext()
        try:
            self._open(None if folder is None else Path(folder), environ)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        self._held.close()

    def add(self, record: Record, entries: Mapping[str, tuple[str, Any]]) -> None:
        """Write a target down; it is on the disk when this returns.

        Args:
            record: The target.
            entries: Guard -> the mark of its form, and what it keeps of the target.
        """
        row = {
            "id": record.id,
            "created": record.created,
            "evidence": record.evidence,
            "sealed": seal(dict(record.content or {}), self._seal),
        }
        with self._writing() as connection:
            connection.execute(insert(_TARGETS).values(**row))
            if entries:
                rows = [self._entry(record.id, *item) for item in entries.items()]
                connection.execute(insert(_ENTRIES), rows)

    def revoke(self, id: str, when: str) -> None:
        """Strike a target out; that there was one stays, what it was goes."""
        with self._writing() as connection:
            connection.execute(
                update(_TARGETS).where(_TARGETS.c.id == id).values(sealed=None, revoked=when)
            )
            connection.execute(delete(_ENTRIES).where(_ENTRIES.c.target == id))

    def keep(self, guard: str, mark: str, entries: Iterable[tuple[str, Any]]) -> None:
        """Write down what a guard keeps of targets that are there already."""
        rows = [self._entry(id, guard, (mark, entry)) for id, entry in entries]
        with self._writing() as connection:
            for row in rows:
                connection.execute(
                    delete(_ENTRIES).where(
                        _ENTRIES.c.target == row["target"], _ENTRIES.c.guard == guard
                    )
                )
            if rows:
                connection.execute(insert(_ENTRIES), rows)

    @property
    def count(self) -> int:
        """Targets that hold."""
        query = select(func.count()).select_from(_TARGETS).where(_TARGETS.c.revoked.is_(None))
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def get(self, id: str) -> Record | None:
        """One target that holds."""
        query = select(_TARGETS).where(_TARGETS.c.id == id, _TARGETS.c.revoked.is_(None))
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else self._record(row)

    def page(self, after: str | None = None, most: int = AT_ONCE) -> list[Record]:
        """Targets that hold, in the order in which they came.

        Args:
            after: Begin behind this one.
            most: At most so many.
        """
        number = select(_TARGETS.c.number).where(_TARGETS.c.id == after).scalar_subquery()
        query = select(_TARGETS).where(_TARGETS.c.revoked.is_(None))
        query = query if after is None else query.where(_TARGETS.c.number > number)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(_TARGETS.c.number).limit(most)).all()
        return [self._record(row) for row in rows]

    def records(self) -> Iterator[Record]:
        """All targets that hold; no more than a page of them is in memory."""
        last = None
        while page := self.page(last):
            yield from page
            last = page[-1].id

    def entries(self, guard: str, mark: str) -> Iterator[tuple[str, Any]]:
        """What a guard keeps of the targets that hold, where it has this form."""
        query = (
            select(_ENTRIES.c.target, _ENTRIES.c.sealed)
            .join(_TARGETS, _TARGETS.c.id == _ENTRIES.c.target)
            .where(_ENTRIES.c.guard == guard, _ENTRIES.c.mark == mark)
            .where(_TARGETS.c.revoked.is_(None))
            .order_by(_TARGETS.c.number)
        )
        with self._reading() as connection:
            rows = connection.execution_options(yield_per=AT_ONCE).execute(query)
            for id, sealed in rows:
                yield id, unseal(sealed, self._seal)

    def tokens(self) -> list[Token]:
        """What is kept of the tokens that were made here."""
        with self._reading() as connection:
            rows = connection.execute(select(_TOKENS)).all()
        return [Token(row.scope, row.salt, row.hash, row.expires) for row in rows]

    def keep_tokens(self, tokens: Sequence[Token]) -> None:
        """Keep tokens in the place of those of the same scope."""
        with self._writing() as connection:
            for token in tokens:
                connection.execute(delete(_TOKENS).where(_TOKENS.c.scope == token.scope))
                connection.execute(
                    insert(_TOKENS).values(
                        scope=token.scope,
                        salt=token.salt,
                        hash=token.hash,
                        expires=token.expires,
                    )
                )

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._turn, self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._turn, self._engine.begin() as connection:
            yield connection

    def _open(self, folder: Path | None, environ: Mapping[str, str]) -> None:
        if folder is None:
            key = token_bytes(32)
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held.enter_context(locked(folder))
            key = _key(folder, environ.get(VARIABLE, ""))
        self.secret, self._seal = _derived(key, b"guards"), _derived(key, b"store")
        self._engine = _engine(None if folder is None else folder / DATABASE)
        self._held.callback(self._engine.dispose)
        try:
            self._begin()
        except DatabaseError as error:
            raise _no_store("A file that is no database.") from error

    def _begin(self) -> None:
        _META.create_all(self._engine)
        with self._writing() as connection:
            about = {name: value for name, value in connection.execute(select(_ABOUT))}
            if not about:
                about = {"format": FORMAT, "check": seal(FORMAT, self._seal)}
                rows = [{"name": name, "value": value} for name, value in about.items()]
                connection.execute(insert(_ABOUT), rows)
        if about.get("format") != FORMAT:
            raise _no_store("A store of another format.")
        unseal(about.get("check", ""), self._seal)

    def _entry(self, id: str, guard: str, kept: tuple[str, Any]) -> dict[str, str]:
        mark, entry = kept
        return {"target": id, "guard": guard, "mark": mark, "sealed": seal(entry, self._seal)}

    def _record(self, row: Any) -> Record:
        content = None if row.sealed is None else unseal(row.sealed, self._seal)
        return Record(
            id=row.id,
            created=row.created,
            evidence=row.evidence,
            content=content,
            revoked=row.revoked,
        )


def _engine(path: Path | None) -> Engine:
    if path is None:
        # one connection for all threads: what is in memory belongs to it
        engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            connect_args={"check_same_thread": False},
            hide_parameters=True,
        )
    else:
        if not path.exists():
            create_bytes(path, b"", 0o600)  # SQLite gives its other files the same mode
        engine = create_engine(f"sqlite:///{path}", hide_parameters=True)

    def prepared(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", prepared)
    return engine


def _key(folder: Path, given: str) -> bytes:
    if given:
        return _read_key(given, f"The key in {VARIABLE}")
    path = folder / KEY
    if not path.exists():
        if (folder / DATABASE).exists():
            raise _no_store(f"No key: neither {VARIABLE} nor the file {KEY}.")
        create_bytes(path, token_bytes(32).hex().encode(), 0o600)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ExpungeError(
            "E-KEY-003",
            f"{path} can be read by others.",
            "a key for its owner alone.",
            f"Run chmod 600 {path}, and consider who may have read it.",
        )
    return _read_key(path.read_text().strip(), f"The file {KEY}")


def _read_key(text: str, what: str) -> bytes:
    for read in (bytes.fromhex, lambda told: b64decode(told, validate=True)):
        try:
            key = read(text)
        except (ValueError, NoBase64):
            continue
        if len(key) == 32:
            return key
    raise _no_store(f"{what} is none.")


def _derived(key: bytes, name: bytes) -> bytes:
    return blake2b(name, key=key, digest_size=32).digest()


def _no_store(found: str) -> ExpungeError:
    return ExpungeError(
        "E-SERVE-007",
        found,
        "a store of this version, and the 32 bytes of its key.",
        f"Give the key that belongs to it in {VARIABLE}, or name another folder.",
    )
