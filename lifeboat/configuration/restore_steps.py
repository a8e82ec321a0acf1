"""The steps that restore a configuration archive with tar and psql alone, for the manifest."""

from lifeboat.configuration.index import ARCHIVE_NAME, RESTORE_SQL_NAME, ArchiveIndex
from lifeboat.storage.manifest import RestoreStep


def restore_steps(label: str, index: ArchiveIndex) -> list[RestoreStep]:
    """How to restore the archive of the backup `label`.

    `$REPOSITORY` is the cluster's folder at the destination, `$TARGET` an empty folder, `$DATABASE` the connection
    string of the platform's database. Nothing outside `$TARGET` is written unless a variable names it.
    """
    unpack = [
        'mkdir -p "$TARGET"',
        f'tar --no-same-owner -xzpf "$REPOSITORY/{label}/{ARCHIVE_NAME}" -C "$TARGET"',
    ]
    steps = [RestoreStep(title="Unpack the configuration archive; index.json says what is in it", commands=unpack)]
    tables = [name for name, section in index.sections.items() if section.target is not None]
    if tables:
        write = (
            f'cd "$TARGET" && psql -X -q -v ON_ERROR_STOP=1 --single-transaction -f {RESTORE_SQL_NAME}'
            ' -d "${DATABASE:?set it to the connection string of the database of the platform}"'
        )
        title = f"Write the rows back to the database of the platform, {index.database}: {', '.join(tables)}"
        steps.append(RestoreStep(title=title, commands=[write]))
    steps += [
        _copy(name, section.path)
        for name, section in index.sections.items()
        if section.source == "folder" and section.files and section.path
    ]
    by_hand = [name for name, section in index.sections.items() if section.source in {"server", "roles", "lifeboat"}]
    if by_hand:
        title = f"Compare by hand, and fill in what index.json lists as redacted: {', '.join(by_hand)}"
        steps.append(RestoreStep(title=title, commands=['ls -lR "$TARGET"']))
    return steps


def _copy(name: str, path: str) -> RestoreStep:
    folder = f"{name.upper()}_DIR"
    return RestoreStep(
        title=f"Copy the files of {name} back: set {folder} to their folder, which was {path}",
        commands=[
            f'test -z "${{{folder}-}}" || {{ mkdir -p "${folder}" && cp -a "$TARGET/files/{name}/." "${folder}"; }}'
        ],
    )
