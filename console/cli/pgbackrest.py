"""`lifeboat pgbackrest`: what concerns its configuration, stanza and repository only."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.confirmation import confirm_name
from console.cli.options import AsJson
from console.cli.output import notice, say, say_json
from console.cli.session import installation_of
from tasks.figures import count_text

if TYPE_CHECKING:
    from lifeboat.operations.pgbackrest.stanza import StanzaUpgrade

YesStanza = Annotated[
    str | None, typer.Option("--yes", metavar="STANZA", help="Do not ask: do it if this is the stanza's name.")
]
app = typer.Typer(no_args_is_help=True)


@app.command()
def config(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the generated pgbackrest.conf, and the archive_command.

    Writes nothing, shows no passphrase.
    """
    from lifeboat.operations.pgbackrest.stanza import show_configuration

    shown = show_configuration(installation_of(context))
    if as_json:
        say_json(shown)
        return
    notice(f"{shown.path}{'' if shown.is_written else ', not written yet in this form'}:")
    say(shown.text)
    notice("For postgresql.conf (`lifeboat wal install` prints the statements):")
    say(shown.archive_command)


@app.command()
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Switch WAL, and wait until the segment is in the repository."""
    from lifeboat.operations.pgbackrest.stanza import check_archiving

    stanza = check_archiving(installation_of(context))
    if as_json:
        say_json({"stanza": stanza, "archived": True})
    else:
        say(f"stanza {stanza}: a segment that was switched just now is in the repository")


@app.command()
def create(context: typer.Context, yes: YesStanza = None, as_json: AsJson = False) -> None:
    """Begin a new, empty repository.

    Also in the place of one that is lost: that takes a confirmation.
    """
    from lifeboat.operations.pgbackrest import stanza

    installation = installation_of(context)
    lost = stanza.plan_creation(installation)
    if lost:
        engine = installation.pgbackrest()
        confirm_name(
            engine.stanza,
            yes,
            show=lambda: say(
                f"{engine.folders.repository} has no stanza {engine.stanza}, and storage has"
                f" {count_text(len(lost), 'backup')} that are in it: {', '.join(lost)}\n"
                "None of them can be restored from a new one. Mount the repository if it is only away."
            ),
            question="begin a new one",
        )
    if lost is not None:
        stanza.create(installation)
    if as_json:
        say_json({"created": lost is not None, "lost": lost or []})
    else:
        say("the stanza is there already" if lost is None else "the stanza is made; take a full backup now")


@app.command()
def upgrade(context: typer.Context, yes: YesStanza = None, as_json: AsJson = False) -> None:
    """Let the stanza go on with the cluster that pg_upgrade made.

    After a confirmation. It takes any cluster of a newer version for the upgraded one, and the old one archives there
    no more.
    """
    from lifeboat.operations.pgbackrest import stanza

    installation = installation_of(context)
    plan = stanza.plan_upgrade(installation)
    if plan is not None:
        confirm_name(plan.stanza, yes, show=lambda: _show_upgrade(plan), question="let it go on with the new one")
        stanza.upgrade(installation, plan)
    if as_json:
        say_json({"changed": plan is not None})
    else:
        say("the stanza goes on with the upgraded cluster" if plan else "the stanza is this cluster's already")


def _show_upgrade(plan: "StanzaUpgrade") -> None:
    say(f"stanza {plan.stanza} in {plan.repository}")
    for name, cluster in (("now", plan.old), ("then", plan.new)):
        say(f"{name:>5}: system identifier {cluster.system_identifier}, PostgreSQL {cluster.major}")
    say(f"       data directory {plan.data_dir}")


@app.command()
def adopt(context: typer.Context, as_json: AsJson = False) -> None:
    """Write manifests for backups in the repository that have none.

    Those were taken by pgBackRest itself, or by a killed run. Each backup by this engine does so first; no other needs
    it.
    """
    from lifeboat.operations.pgbackrest.repository import adopt_repository

    found = adopt_repository(installation_of(context))
    if as_json:
        say_json({"adopted": [manifest.label for manifest in found.adopted], "left": found.left})
        return
    names = ", ".join(manifest.label for manifest in found.adopted)
    say(f"{count_text(len(found.adopted), 'backup')} adopted{f': {names}' if names else ''}")
    for label, why in found.left.items():
        notice(f"{label} was left: {why}")
