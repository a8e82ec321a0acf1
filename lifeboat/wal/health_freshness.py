"""How fresh the newest commits are, and how fresh they are in the archive: what the heartbeat tells."""

from collections.abc import Iterator

from lifeboat.wal.health import HealthFinding, ServerWal, Severity, ago


def judge_rpo(server: ServerWal, limit_seconds: float) -> Iterator[HealthFinding]:
    """Whether the newest commits wait longer to be archived than `limit_seconds`: they would be lost with the server.

    Only a heartbeat behind the last archived segment proves that there are commits: an idle server has none to lose.
    """
    archived_at, beat_seconds = server.archiver.last_archived_at, server.heartbeat_age_seconds
    if server.in_recovery or not server.archives or archived_at is None or beat_seconds is None or not server.lag_bytes:
        return
    lost_seconds = (server.now - archived_at).total_seconds()
    if beat_seconds < lost_seconds and lost_seconds > limit_seconds:
        yield HealthFinding(
            Severity.ALERT,
            "rpo",
            f"if the server were lost now, the commits of the last {lost_seconds:.0f} s would be: {server.lag_bytes:,}"
            f" bytes of WAL are not archived, and the last archived segment came {ago(server.now, archived_at)}",
            "Set archive_timeout on the server to `wal.archive_timeout_seconds` (0 waits until a segment is full), and"
            " look whether archiving is slow.",
        )


def judge_heartbeat(
    age_seconds: float | None, silence_seconds: float, *, expected: bool, absent_seconds: float = 0.0
) -> Iterator[HealthFinding]:
    """What the newest heartbeat says; without an agent that is `expected`, an old one is a warning at most.

    None is one that was never written, as an agent just installed has it: an alert once that was so for longer than
    a silence may be.
    """
    advice = "Start `lifeboat agent`, and look at its log: restores aim at the commits that it makes."
    if age_seconds is None:
        if expected:
            what = "there has never been a heartbeat: the agent has not run"
            severity = Severity.ALERT if absent_seconds > silence_seconds else Severity.WARNING
            yield HealthFinding(severity, "heartbeat-absent", what, advice)
    elif age_seconds > silence_seconds:
        what = f"the newest heartbeat is {age_seconds:.0f} s old: the agent is silent"
        if expected:
            yield HealthFinding(Severity.ALERT, "heartbeat-silent", what, advice)
        else:
            left = "Settings want no agent (`agent.enabled`): DROP TABLE lifeboat.heartbeat ends this."
            yield HealthFinding(Severity.WARNING, "heartbeat-silent", what, left)
