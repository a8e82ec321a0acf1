"""What bench.impact makes of pgbench's log: windows, percentiles, ratios, and the sentence in the end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.impact_report import IN_BACKGROUND, OFF, Sample, as_json, cost_sentence, gentle_settings, summarise, table
from bench.pgbench import Figures, Transaction, Window, figures_of, parse_log, percentile

OWN, FULL = "Lifeboat's archive_command", "basebackup full"


def figures(tps: float, p95_ms: float = 10.0) -> Figures:
    """A measurement of which only these two matter."""
    return Figures(tps, 1.0, p95_ms, 20.0, 5e6, 0, 0.125, 6.0)


def archived(number: int, off: float, on: float, server: str = "PostgreSQL 15.18") -> list[Sample]:
    """A round without archiving and with it."""
    return [
        Sample(server, OFF, number, figures(off, p95_ms=10.0)),
        Sample(server, OWN, number, figures(on, p95_ms=12.0), OFF),
    ]


def test_log_lines_become_transactions_with_the_time_they_ended() -> None:
    log = ["0 199 2241 0 1175850568 995598\n", "1 7 1000000 0 1175850569 608 480 2\n"]
    assert list(parse_log(log)) == [
        Transaction(1175850568.995598, 2.241),
        Transaction(1175850569.000608, 1000.0),
    ]


def test_a_line_that_is_still_being_written_does_not_count() -> None:
    assert len(list(parse_log(["0 1 2241 0 1175850568 995598\n", "0 2 22 0 11758505"]))) == 1


@pytest.mark.parametrize("line", ["3 2 failed 0 1499414498 84905\n", "0 1 skipped 0 1 2\n", "0 1 2241 0\n"])
def test_a_transaction_without_a_latency_spoils_the_measurement(line: str) -> None:
    with pytest.raises(ValueError, match="transaction without a latency"):
        list(parse_log([line]))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], percent: float) -> None:
    values.sort()
    found = percentile(values, percent)
    assert found in values
    assert sum(each <= found for each in values) >= len(values) * percent / 100 - 1e-6
    assert sum(each < found for each in values) < len(values) * percent / 100 + 1e-6


def test_percentiles_of_known_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    with pytest.raises(ValueError, match="no percentile of nothing"):
        percentile([], 50)


def test_only_what_ended_inside_the_window_counts() -> None:
    window = Window(100.0, 104.0, wal_bytes=8_000_000, waiting_segments=2, archiver_cpu_seconds=0.5)
    log = [Transaction(at, latency) for at, latency in ((99.9, 900), (100.0, 4), (101.0, 2), (103.9, 6), (104.0, 800))]
    assert figures_of(log, window) == Figures(
        tps=0.75,
        p50_ms=4,
        p95_ms=6,
        p99_ms=6,
        wal_bytes_per_second=2_000_000,
        waiting_segments=2,
        archiver_cores=0.125,
        seconds=4.0,
    )


def test_a_window_without_a_transaction_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no transaction ended"):
        figures_of([Transaction(5.0, 1.0)], Window(0.0, 4.0, 0, 0))


def test_each_round_is_compared_with_its_own_baseline() -> None:
    # The machine was twice as fast in the last round: the ratio of the medians would say 0.95.
    off, on = summarise([*archived(1, 100, 90), *archived(2, 100, 95), *archived(3, 200, 160)])
    assert (off.tps_ratio, off.figures.tps, off.rounds) == (None, 100, 3)
    assert (on.baseline, on.figures.tps, on.rounds) == (OFF, 95, 3)
    assert on.tps_ratio == pytest.approx(0.9)
    assert on.tps_range == pytest.approx((0.8, 0.95))
    assert on.p95_ratio == pytest.approx(1.2)


def test_servers_are_not_compared_with_each_other() -> None:
    samples = [*archived(1, 100, 50, "PostgreSQL 15.18"), *archived(1, 400, 300, "PostgreSQL 18.4")]
    ratios = {(each.server, each.state): each.tps_ratio for each in summarise(samples)}
    assert ratios == {
        ("PostgreSQL 15.18", OFF): None,
        ("PostgreSQL 15.18", OWN): 0.5,
        ("PostgreSQL 18.4", OFF): None,
        ("PostgreSQL 18.4", OWN): 0.75,
    }


def test_a_backup_is_compared_with_the_seconds_before_it() -> None:
    samples = archived(1, 1000, 900)
    samples.append(Sample("PostgreSQL 15.18", FULL, 1, figures(400, p95_ms=30.0), OWN, figures(800, p95_ms=15.0)))
    full = summarise(samples)[-1]
    assert (full.tps_ratio, full.p95_ratio, full.baseline) == (0.5, 2.0, OWN)
    assert "0.50 (0.50 to 0.50), 2.00, 1.00 x Lifeboat's archive_command, 1 round" in table(summarise(samples))


def test_a_baseline_that_was_not_measured_is_said_to_be_missing() -> None:
    summaries = summarise(archived(1, 100, 90)[1:])
    assert summaries[0].tps_ratio is None
    assert "its baseline (no archiving) was not measured" in table(summaries)
    assert cost_sentence(summaries) == "What WAL archiving costs was not measured."


def test_the_sentence_says_cost_and_noise() -> None:
    sentence = cost_sentence(summarise([*archived(1, 100, 90), *archived(2, 100, 97), *archived(3, 100, 102)]))
    assert sentence == (
        "WAL archiving costs a server that is kept busy: Lifeboat's archive_command on PostgreSQL 15.18 3 % of the "
        "throughput (from -2 % to 10 % in 3 rounds) and 1.20 x the p95 latency, at 5.0 MB of WAL a second, "
        "for which archive_command itself needs 12.5 % of a core."
    )


def test_no_processor_time_is_said_of_what_archives_in_the_background() -> None:
    state = f"pgBackRest archive-push{IN_BACKGROUND}"
    samples = [*archived(1, 100, 90)[:1], Sample("PostgreSQL 15.18", state, 1, figures(90, p95_ms=12.0), OFF)]
    assert cost_sentence(summarise(samples)).endswith("1.20 x the p95 latency, at 5.0 MB of WAL a second.")


def test_the_figures_as_data_are_json() -> None:
    samples = archived(1, 100, 90)
    data = json.loads(json.dumps(as_json(summarise(samples), samples)))
    assert data["summaries"][1]["tps_ratio"] == 0.9
    assert data["samples"][1]["reference"]["tps"] == 100
    assert "engines.pgbackrest.process_max = 2" in data["gentle_settings"]


def test_the_gentle_settings_are_shown_with_their_defaults() -> None:
    found = dict(gentle_settings())
    assert "pg_basebackup --max-rate" in found["engines.basebackup.max_rate_kilobytes_per_second = None"]
    assert all(said and said != "None" for said in found.values())
