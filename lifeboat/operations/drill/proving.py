"""What is asked of a restored database before it counts as proven."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.scratch import Restored
from lifeboat.postgres.connections import connect
from lifeboat.storage.manifest import Fingerprint, Manifest
from lifeboat.verification.comparison import compare
from lifeboat.verification.fingerprints import take_fingerprint
from lifeboat.verification.reading import AmcheckStatus, check_structure, read_tables
from lifeboat.verification.touched import touched_tables
from lifeboat.verification.validation import run_validation


@dataclass
class Proof:
    """Faults make a drill fail; notes say what could not be looked at."""

    faults: list[str] = field(default_factory=list)
    compared_tables: int = 0
    not_compared: list[str] = field(default_factory=list)
    validations: list[tuple[str, bool, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prove(
    installation: Installation,
    manifest: Manifest,
    restored: Restored,
    phase: Callable[[str], AbstractContextManager[None]],
) -> Proof:
    """Compare the fingerprint, run the validation queries, read every table, check the structure."""
    proof, drills = Proof(notes=[*restored.notes]), installation.settings.drills
    if manifest.fingerprint is None and manifest.details.get("adopted") and drills.full_read:
        proof.notes.append("it was not taken by Lifeboat: read as a whole, but there is no fingerprint to compare with")
    elif manifest.fingerprint is None:
        proof.faults.append(f"{manifest.label} has no fingerprint, so nothing can be compared")
    else:
        with phase("compare"):
            _compare(installation, manifest.fingerprint, restored, proof)
    with phase("validate"):
        _validate(installation, restored, proof)
    if drills.full_read:
        with phase("read all"):
            _read_all(restored, proof)
    if drills.amcheck:
        with phase("check structure"):
            _check_structure(installation, restored, proof)
    return proof


def _compare(installation: Installation, expected: Fingerprint, restored: Restored, proof: Proof) -> None:
    with connect(restored.connection, application_name="lifeboat drill", autocommit=True) as session:
        not_compared: set[str] = set()
        if restored.touched is not None:  # a dump holds exactly what the snapshot saw
            not_compared = {*touched_tables(session, restored.touched), *expected.busy_tables}
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        budget = installation.settings.drills.fingerprint
        actual = take_fingerprint(session, budget=budget, lsn=None, hashed_like=expected)
    comparison = compare(expected, actual, not_compared=not_compared)
    proof.compared_tables = len(comparison.matched_tables)
    proof.not_compared = [f"{item.table}: {item.reason}" for item in comparison.not_compared]
    proof.notes += comparison.notes
    proof.notes += [f"changed while it was backed up: {item}" for item in comparison.changed_during_backup]
    proof.faults += [str(difference) for difference in comparison.differences]


def _validate(installation: Installation, restored: Restored, proof: Proof) -> None:
    drills = installation.settings.drills
    with connect(restored.connection, application_name="lifeboat drill", autocommit=True) as session:
        for result in run_validation(session, drills.validation, drills.validation_timeout_seconds):
            answer = result.error or f"{result.value} (expected {result.expected})"
            proof.validations.append((result.name, result.passed, answer))
            if not result.passed:
                proof.faults.append(f"validation query {result.name!r}: {answer}")


def _read_all(restored: Restored, proof: Proof) -> None:
    with connect(restored.connection, application_name="lifeboat drill", autocommit=True) as session:
        reading = read_tables(session)
    proof.faults += [f"table {problem.table} cannot be read: {problem.error}" for problem in reading.problems]


def _check_structure(installation: Installation, restored: Restored, proof: Proof) -> None:
    result = check_structure(
        installation.tools, restored.connection, timeout_seconds=installation.settings.drills.timeout_seconds
    )
    proof.faults += [f"pg_amcheck: {problem}" for problem in result.problems]
    if result.status is AmcheckStatus.FAILED and not result.problems:
        proof.faults.append("pg_amcheck found a problem and did not name it")
    if result.reason is not None:
        proof.notes.append(f"pg_amcheck did not run: {result.reason}")
