"""Whose a deployment is: read back from its job variables, and compared with ours."""

import pytest

from lifeboat.operations.deployment_owner import DeploymentOwner, ForeignDeployment, refuse_foreign

OURS = DeploymentOwner("/srv/a/lifeboat.toml", "a")
URL = "http://127.0.0.1:4200/api"


def test_an_owner_is_read_back_and_keeps_what_an_administrator_has_set() -> None:
    written = OURS.job_variables({"working_dir": "/srv", "env": {"TZ": "UTC"}, "labels": {"team": "x"}})

    assert DeploymentOwner.written_in(written) == OURS
    assert written["env"] == {"TZ": "UTC", "LIFEBOAT_CONFIG": "/srv/a/lifeboat.toml"}
    assert (written["working_dir"], written["labels"]["team"]) == ("/srv", "x")


@pytest.mark.parametrize("variables", [None, {}, {"labels": None}, {"labels": {"team": "x"}}, OURS.job_variables()])
def test_ours_and_what_names_nobody_pass(variables: dict[str, object] | None) -> None:
    refuse_foreign("full-backup/full-backup", variables, OURS, URL)


@pytest.mark.parametrize(
    "theirs", [DeploymentOwner("/srv/b/lifeboat.toml", "a"), DeploymentOwner(OURS.settings_file, "b")]
)
def test_another_file_or_cluster_is_refused_with_both_names(theirs: DeploymentOwner) -> None:
    with pytest.raises(ForeignDeployment) as caught:
        refuse_foreign("full-backup/full-backup", theirs.job_variables(), OURS, URL)

    assert f"belongs to {theirs}, not to {OURS}" in caught.value.message
    assert "prefect.port" in (caught.value.hint or "")
