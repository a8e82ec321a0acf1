"""The [platform] section: one source, and names that are safe as folders."""

import pytest
from pydantic import ValidationError

from lifeboat.settings.platform import PlatformSettings


def test_defaults_need_no_file() -> None:
    settings = PlatformSettings()

    assert (settings.cluster, settings.embedded, settings.dsn) == ("main", False, None)


@pytest.mark.parametrize("name", ["../x", "a b", "", "Main", "a/b"])
def test_a_cluster_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(ValidationError, match="cluster"):
        PlatformSettings(cluster=name)


def test_there_is_one_source() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        PlatformSettings.model_validate({"embedded": True, "dsn": "host=x"})
    with pytest.raises(ValidationError, match="needs `embedded"):
        PlatformSettings(embedded_port=5499)


def test_a_dsn_is_not_printed() -> None:
    assert "hunter2" not in repr(PlatformSettings.model_validate({"dsn": "password=hunter2"}))
