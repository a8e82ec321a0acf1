"""Load, heartbeats and accidents on a server that keeps its own record of them, to hold restores and previews against.

Triggers note each changed row in the schema `truth`, in the transaction that changes it; PostgreSQL's commit timestamps
say when that was. What must come back is computed from those notes alone.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread

import psycopg

from lifeboat.postgres.connections import connect
from tests.support.recovery import RecoveryLab

TABLES = ("segments", "characters", "takes")
WORKERS = 2
_TRUTH = """
CREATE SCHEMA truth;
CREATE TABLE truth.changes (seq bigint GENERATED ALWAYS AS IDENTITY, relation text NOT NULL, operation text NOT NULL,
                            id bigint, digest text, transaction xid8 NOT NULL DEFAULT pg_current_xact_id());
CREATE TABLE truth.beats (at timestamptz NOT NULL);
CREATE FUNCTION truth.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO truth.changes (relation, operation) VALUES (TG_TABLE_NAME, TG_OP);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO truth.changes (relation, operation, id) VALUES (TG_TABLE_NAME, TG_OP, OLD.id);
    ELSE
        INSERT INTO truth.changes (relation, operation, id, digest)
        VALUES (TG_TABLE_NAME, TG_OP, NEW.id, md5(NEW::text));
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION truth.tell_beat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO truth.beats VALUES (NEW.at); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON lifeboat.heartbeat FOR EACH ROW EXECUTE FUNCTION truth.tell_beat();
DROP TABLE public.segments;
"""
_TABLE = """
CREATE TABLE public.{0} (id int PRIMARY KEY, title text NOT NULL, weight int NOT NULL DEFAULT 0);
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON public.{0} FOR EACH ROW EXECUTE FUNCTION truth.tell();
CREATE TRIGGER tell_truncate AFTER TRUNCATE ON public.{0} EXECUTE FUNCTION truth.tell();
INSERT INTO public.{0} SELECT i, '{0} ' || i FROM generate_series(1, {1}) i;
"""
_CHANGES = """
SELECT pg_xact_commit_timestamp(xmin), transaction::text, seq, relation, operation, id, digest
FROM truth.changes ORDER BY seq
"""
Content = dict[int, str]


@dataclass(frozen=True)
class Change:
    """One noted change of a row, or of a whole table by TRUNCATE."""

    committed_at: datetime
    transaction: str
    seq: int
    relation: str
    operation: str
    id: int | None
    digest: str | None


@dataclass(frozen=True)
class Truth:
    """Everything that was committed, with its time."""

    changes: list[Change]
    beats: list[tuple[datetime, datetime]]

    @classmethod
    def of(cls, lab: RecoveryLab) -> "Truth":
        """Read what the source has noted."""
        changes = [Change(row[0].astimezone(UTC), *row[1:]) for row in lab.rows(_CHANGES)]
        rows = lab.rows("SELECT pg_xact_commit_timestamp(xmin), at FROM truth.beats ORDER BY at")
        return cls(changes, [(row[0].astimezone(UTC), row[1].astimezone(UTC)) for row in rows])

    def content(self, relation: str, at: datetime) -> Content:
        """The rows of a table as of a moment: their digests by id."""
        found: Content = {}
        for change in self.changes:
            if change.relation != relation or change.committed_at > at:
                continue
            if change.operation == "TRUNCATE":
                found.clear()
            elif change.operation == "DELETE":
                del found[change.id or 0]
            else:
                found[change.id or 0] = change.digest or ""
        return found

    def seqs(self, at: datetime) -> set[int]:
        """The changes that were committed at a moment or before."""
        return {change.seq for change in self.changes if change.committed_at <= at}

    def heartbeat(self, at: datetime) -> datetime:
        """The newest heartbeat that was committed at a moment or before."""
        return max(beat for committed_at, beat in self.beats if committed_at <= at)

    def counts(self, relation: str, after: datetime) -> tuple[int, int, int]:
        """Rows inserted, updated and deleted by transactions that committed after a moment."""
        lost = [item.operation for item in self.changes if item.relation == relation and item.committed_at > after]
        return lost.count("INSERT"), lost.count("UPDATE"), lost.count("DELETE")

    def transactions(self, after: datetime) -> set[str]:
        """Transactions that changed something after a moment."""
        return {change.transaction for change in self.changes if change.committed_at > after}


def content_of(lab: RecoveryLab, relation: str, dsn: str | None = None) -> Content | None:
    """The rows of a table, in the source or elsewhere; None where there is no such table."""
    if not lab.value(f"SELECT to_regclass('public.{relation}') IS NOT NULL", dsn):
        return None
    return {row[0]: row[1] for row in lab.rows(f"SELECT id, md5(t::text) FROM public.{relation} t", dsn)}


def make_tables(lab: RecoveryLab) -> None:
    """The tables that accidents happen to, filled, and what notes their changes."""
    with connect(lab.cluster.dsn(), autocommit=True) as session:
        session.execute(_TRUTH.encode())
        for number, table in enumerate(TABLES):
            session.execute(_TABLE.format(table, 4500 - 1500 * number).encode())


@dataclass
class Load:
    """Writers that change rows of TABLES until they are told to end; a table that is dropped is left alone."""

    lab: RecoveryLab
    ended: Event = field(default_factory=Event)
    transactions: int = 0
    rolled_back: int = 0
    faults: list[BaseException] = field(default_factory=list)

    def work(self, worker: int) -> None:
        """Commit small transactions, some of them rolled back in part or altogether."""
        chance, tables, number = random.Random(worker), list(TABLES), 10_000 + worker  # noqa: S311 - no secret
        try:
            with connect(self.lab.cluster.dsn(), autocommit=True, application_name="load") as session:
                while not self.ended.wait(0.01):
                    number += WORKERS
                    table = chance.choice(tables)
                    try:
                        self._transaction(session, chance, table, number)
                    except psycopg.errors.UndefinedTable:
                        tables.remove(table)
        except BaseException as error:  # noqa: BLE001 - raised where the test can see it
            self.faults.append(error)

    def _transaction(
        self, session: psycopg.Connection[tuple[object, ...]], chance: random.Random, table: str, number: int
    ) -> None:
        def run(statement: str, *values: object) -> None:
            session.execute(statement.format(table).encode(), values)

        # One existing row each: writers that hold two could wait for each other.
        victim, fate = chance.randrange(1, 4500), chance.random()
        with session.transaction():
            run("INSERT INTO public.{} VALUES (%s, %s)", number, "x" * chance.randrange(400))
            with session.transaction():
                run("UPDATE public.{} SET weight = weight + 1 WHERE id = %s", victim)
                if fate < 0.1:
                    raise psycopg.Rollback
            if fate > 0.8:
                run("DELETE FROM public.{} WHERE id = %s", number)
            if 0.2 < fate < 0.3:
                self.rolled_back += 1
                raise psycopg.Rollback
        self.transactions += 1


@contextmanager
def under_load(lab: RecoveryLab) -> Iterator[Load]:
    """Writers work while the context lasts."""
    load = Load(lab)
    threads = [Thread(target=load.work, args=(worker,)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.ended.set()
        for thread in threads:
            thread.join()
    assert load.faults == []


def let_it_work(load: Load, transactions: int = 60, *, and_until: Callable[[], bool] = lambda: True) -> None:
    """Wait until the load has done so much more."""
    enough, deadline = load.transactions + transactions, time.monotonic() + 120
    while load.transactions < enough or not and_until():
        assert not load.faults
        assert time.monotonic() < deadline, f"only {load.transactions} transactions"
        time.sleep(0.05)
