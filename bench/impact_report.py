"""What bench.impact says in the end: medians over the rounds, each round compared with its own baseline."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from bench.pgbench import Figures
from lifeboat.settings.backups import EngineSettings
from lifeboat.settings.wal import WalSettings

OFF, IN_BACKGROUND = "no archiving", ", async"
_MEGABYTE = 1e6
_GENTLE = {
    "basebackup": ("max_rate_kilobytes_per_second", "checkpoint", "compression_level"),
    "pg_dump": ("jobs", "compression_level"),
    "pgbackrest": ("process_max", "start_fast", "compress_type", "compress_level", "archive_async"),
}
PRIORITY = (
    "No setting lowers the priority of the programs that take backups: they inherit that of the worker "
    "(`nice`, or Nice= and IOWeight= of its systemd unit), and archive_command that of the server."
)


@dataclass(frozen=True)
class Sample:
    """One measurement; `reference` is that of `baseline` in the same round, None where it is still to be found."""

    server: str
    state: str
    round: int
    figures: Figures
    baseline: str | None = None
    reference: Figures | None = None


@dataclass(frozen=True)
class Summary:
    """Medians of one state; the ratios are medians of each round's, and None where there is nothing to compare with.

    `tps_range` has the lowest and the highest ratio of a round: what lies between them is noise.
    """

    server: str
    state: str
    rounds: int
    figures: Figures
    baseline: str | None
    tps_ratio: float | None
    tps_range: tuple[float, float] | None
    p95_ratio: float | None
    p99_ratio: float | None


def find_references(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, each that names a baseline without its figures given those of the same server and round."""
    known = {(each.server, each.state, each.round): each.figures for each in samples if each.baseline is None}
    return [
        replace(each, reference=known.get((each.server, each.baseline, each.round)))
        if each.baseline is not None and each.reference is None
        else each
        for each in samples
    ]


def summarise(samples: Sequence[Sample]) -> list[Summary]:
    """One summary for each state of each server, in the order of their first measurement."""
    found = find_references(samples)
    keys = dict.fromkeys((each.server, each.state) for each in found)
    return [_summary([each for each in found if (each.server, each.state) == key]) for key in keys]


def _summary(samples: Sequence[Sample]) -> Summary:
    pairs = [(each.figures, each.reference) for each in samples if each.reference is not None]
    tps_ratios = [figures.tps / reference.tps for figures, reference in pairs]
    return Summary(
        server=samples[0].server,
        state=samples[0].state,
        rounds=len(samples),
        figures=median_figures(each.figures for each in samples),
        baseline=samples[0].baseline,
        tps_ratio=_median(tps_ratios),
        tps_range=(min(tps_ratios), max(tps_ratios)) if pairs else None,
        p95_ratio=_median(figures.p95_ms / reference.p95_ms for figures, reference in pairs),
        p99_ratio=_median(figures.p99_ms / reference.p99_ms for figures, reference in pairs),
    )


def median_figures(several: Iterable[Figures]) -> Figures:
    """The median of each figure by itself; raises StatisticsError for none."""
    found = list(several)
    return Figures(
        **{name.name: statistics.median(getattr(each, name.name) for each in found) for name in fields(Figures)}
    )


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def cost_sentence(summaries: Sequence[Summary]) -> str:
    """The answer to what WAL archiving costs, in one sentence."""
    parts = [
        f"{each.state} on {each.server} {_loss(each.tps_ratio)} of the throughput (from {_loss(each.tps_range[1])} to "
        f"{_loss(each.tps_range[0])} in {_counted(each.rounds)}) and {each.p95_ratio:.2f} x the p95 latency, "
        f"at {each.figures.wal_bytes_per_second / _MEGABYTE:.1f} MB of WAL a second{_processor(each)}"
        for each in summaries
        if each.baseline == OFF and each.tps_ratio is not None and each.tps_range is not None
    ]
    if not parts:
        return "What WAL archiving costs was not measured."
    return f"WAL archiving costs a server that is kept busy: {'; '.join(parts)}."


def _loss(ratio: float) -> str:
    """What is missing from 1, in whole percent; less than nothing is a gain."""
    return f"{round((1 - ratio) * 100)} %"


def _processor(summary: Summary) -> str:
    # What archives in the background is no child of the archiver, so its processor time is not known.
    if summary.state.endswith(IN_BACKGROUND):
        return ""
    return f", for which archive_command itself needs {summary.figures.archiver_cores * 100:.1f} % of a core"


def _counted(rounds: int) -> str:
    return f"{rounds} round{'' if rounds == 1 else 's'}"


def table(summaries: Sequence[Summary]) -> str:
    """All figures as text."""
    lines = []
    for server in dict.fromkeys(each.server for each in summaries):
        head = f"{'tx/s':>8}{'p50':>8}{'p95':>8}{'p99 ms':>8}{'WAL MB/s':>10}{'waiting':>9}{'cores':>7}{'for s':>7}"
        lines += ["", f"{server:38}{head}  against its baseline: tx/s, p95, p99"]
        lines += [_line(each) for each in summaries if each.server == server]
    return "\n".join(lines[1:])


def _line(summary: Summary) -> str:
    found = summary.figures
    text = (
        f"{summary.state:38}{found.tps:8.0f}{found.p50_ms:8.2f}{found.p95_ms:8.2f}{found.p99_ms:8.2f}"
        f"{found.wal_bytes_per_second / _MEGABYTE:10.1f}{found.waiting_segments:9.0f}"
        f"{found.archiver_cores:7.2f}{found.seconds:7.1f}"
    )
    if summary.tps_ratio is None or summary.tps_range is None:
        return text if summary.baseline is None else f"{text}  its baseline ({summary.baseline}) was not measured"
    low, high = summary.tps_range
    ratios = f"{summary.tps_ratio:.2f} ({low:.2f} to {high:.2f}), {summary.p95_ratio:.2f}, {summary.p99_ratio:.2f}"
    return f"{text}  {ratios} x {summary.baseline}, {_counted(summary.rounds)}"


def gentle_settings() -> list[tuple[str, str]]:
    """The settings that make backups and archiving take less of the server, with what each says of itself."""
    engines = EngineSettings()
    found = []
    for engine, names in _GENTLE.items():
        section = getattr(engines, engine)
        for name in names:
            said = type(section).model_fields[name].description
            found.append((f"engines.{engine}.{name} = {getattr(section, name)}", str(said)))
    said = WalSettings.model_fields["compression_level"].description
    return [*found, (f"wal.compression_level = {WalSettings().compression_level}", str(said))]


def as_json(summaries: Sequence[Summary], samples: Sequence[Sample]) -> dict[str, object]:
    """All figures as data: units are those of `Figures`."""
    return {
        "cost_of_archiving": cost_sentence(summaries),
        "summaries": [asdict(each) for each in summaries],
        "samples": [asdict(each) for each in find_references(samples)],
        "gentle_settings": dict(gentle_settings()),
        "priority": PRIORITY,
    }
