"""Differences and plans as data: files too, with their modes, and nothing that is secret."""

import json
from pathlib import Path
from typing import Any

from psycopg import Connection

from lifeboat.configuration.content import Archive
from lifeboat.configuration.diff import diff
from lifeboat.configuration.planning import plan_apply
from lifeboat.configuration.structure import diff_structure, plan_structure
from lifeboat.settings.configuration import ConfigurationSettings
from tests.support.configuration import SECRETS, export

SCRIPT = "on_approve/notify.sh"


def test_a_file_that_changed_is_told_from_both_sides(
    session: Connection[Any], hooks: Path, settings: ConfigurationSettings, archive: Archive
) -> None:
    (hooks / SCRIPT).write_text("#!/bin/sh\necho changed\n")
    (hooks / SCRIPT).chmod(0o700)
    session.execute(
        "UPDATE notification_preferences SET settings = jsonb_set(settings, '{max_tokens}', '8') WHERE channel = 'mail'"
    )

    differs = diff_structure(diff(archive, export(session, settings)))
    plan = plan_structure(plan_apply(archive, session, settings))

    (changed,) = [file for section in differs["sections"] for file in section["changed_files"]]
    assert (changed["path"], changed["old"]["mode"], changed["new"]["mode"]) == (SCRIPT, "0755", "0700")
    assert changed["old"]["sha256"] != changed["new"]["sha256"]
    (folder,) = [folder for folder in plan["folders"] if folder["changes"]]
    (action,) = folder["changes"]
    assert (folder["root"], action["action"], action["path"]) == (str(hooks), "write", SCRIPT)
    assert (action["now"], action["then"]) == (changed["new"], changed["old"])
    text = json.dumps([differs, plan])
    assert "max_tokens" in text
    assert not [secret for secret in SECRETS if secret in text]
