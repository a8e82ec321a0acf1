"""What a restore in place asks for before it begins: whatever would be lost has to be accepted."""

import json
from io import StringIO

import pytest

from console.cli.main import main
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.in_place import InPlaceRefused, find_old_cluster
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.settings.root import Settings
from tests.support.in_place import LATEST, kept, lab, order, settings_of
from tests.support.recovery import RecoveryLab

__all__ = ["lab"]


def test_what_would_be_lost_has_to_be_accepted(lab: RecoveryLab) -> None:
    # A server that runs and cannot be asked may have standbys without slots.
    given = lab.installation.settings.model_dump(exclude_unset=True)
    unknown = {**given, "platform": {**given["platform"], "dsn": lab.cluster.dsn("nowhere")}}
    deaf = Installation(Settings.model_validate(unknown))
    with pytest.raises(InPlaceRefused, match="its standbys are not known"):
        find_old_cluster(deaf, order(lab, LATEST, stop=True))
    assert list(find_old_cluster(deaf, order(lab, LATEST, "standbys", stop=True)).dangers) == ["standbys"]
    lab.cluster.stop()
    lab.start(wal_level="logical")
    lab.run("SELECT pg_create_physical_replication_slot('standby_1', true)")
    lab.run("SELECT pg_create_logical_replication_slot('changes', 'pgoutput')")
    lab.cluster.stop()
    (lab.cluster.data_dir / "patroni.dynamic.json").write_text("{}")
    with pytest.raises(InPlaceRefused, match="Patroni") as refused:
        run_restore(lab.installation, order(lab))
    assert "standby_1" in refused.value.message
    assert "logical replication slots, which a restore loses: changes" in refused.value.message
    with pytest.raises(InPlaceRefused, match="standby_1"):
        run_restore(lab.installation, order(lab, LATEST, "patroni", "slots"))
    assert kept(lab) == []
    run_restore(lab.installation, order(lab, LATEST, "patroni", "standbys", "slots"))
    assert len(kept(lab)) == 1


def test_the_command_line_has_it_typed_once_more(
    lab: RecoveryLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.commit(1)
    lab.switch()
    words = ["--config", str(settings_of(lab)), "restore", "run", "--latest", "--to", "in-place", "--stop-server"]
    assert main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["replaces"] == str(lab.cluster.data_dir)
    # A server that runs is no surprise after the typing, and what is printed is what works.
    assert main([*words[:-1], "--dry-run"]) == 0
    assert " --to in-place --stop-server" in capsys.readouterr().err
    assert main([*words[:-1], "--yes", "whatever it is"]) == 1
    assert f"the server of {lab.cluster.data_dir} runs" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", StringIO("no\n"))
    assert main(words) == 1
    shown = capsys.readouterr()
    assert "REPLACES" in shown.out
    assert "nothing was done" in shown.err
    assert lab.cluster.is_running()
    assert main([*words, "--discard-old", "--yes", plan["hash"][:12]]) == 2
    assert "cannot restore over old data" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", StringIO(f"{plan['hash'][:12]}\n"))
    assert main([*words, "--json"]) == 0
    assert len(kept(lab)) == 1
    lab.cluster.start()
    assert lab.value("SELECT max(number) FROM public.heartbeats") == 1
    lab.switch()
    # To the end of a timeline that was left: all of the current one goes.
    assert main([*words, "--dry-run"]) == 0
    assert "LOSES" not in capsys.readouterr().out
    assert main([*words, "--timeline", "1", "--dry-run"]) == 0
    assert "LOSES everything that only the current timeline, 2, has" in capsys.readouterr().out


class Died(BaseException):
    """Ends a restore in its midst."""


def test_an_interrupted_one_is_taken_up_although_its_server_is_stopped(
    lab: RecoveryLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.commit(1)
    words = ["--config", str(settings_of(lab)), "restore", "run", "--latest", "--to", "in-place", "--stop-server"]

    def die(phase: str) -> None:
        if phase == "restore files":
            raise Died

    with pytest.raises(Died):
        run_restore(lab.installation, RestoreOrder(LATEST, RestoreTo.parse("in-place"), stop_server=True), die)
    assert not lab.cluster.is_running()
    assert main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["place"] == str(lab.cluster.data_dir)
    assert any(f"has left {lab.cluster.data_dir}.unfinished" in note for note in plan["notes"])
    assert main([*words, "--yes", plan["hash"], "--json"]) == 0
    assert len(kept(lab)) == 1
    capsys.readouterr()
    # Without anything unfinished it stays a question.
    assert main([*words, "--dry-run"]) == 2
    assert "--data-dir DIR" in capsys.readouterr().err
