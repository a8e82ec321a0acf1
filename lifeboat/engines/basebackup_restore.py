"""From the tar files of a chain back to one data directory, by us or by an administrator with stock tools."""

import shutil
from collections.abc import Callable
from pathlib import Path

from lifeboat import commands
from lifeboat.commands import CommandFailed
from lifeboat.engines.engine import Progress, Watch
from lifeboat.engines.failures import name_failure, run_tool
from lifeboat.engines.restore_steps import start_cut_off
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import give_to, make_private_dir
from lifeboat.storage.checked import BackupDamaged, CheckedReader
from lifeboat.storage.manifest import BackupObject, Manifest, RestoreStep
from lifeboat.storage.repository import BackupRepository

PAYLOAD_FOLDER = "base"
PG_MANIFEST = f"{PAYLOAD_FOLDER}/backup_manifest"


def unpack_chain(  # noqa: PLR0913
    tools: PgTools,
    repository: BackupRepository,
    chain: list[Manifest],
    target: Path,
    timeout_seconds: float,
    watch: Watch,
) -> None:
    """Unpack every backup of the chain and combine them into `target`; tablespaces stay inside `pg_tblspc`."""
    total, done = sum(manifest.size_bytes for manifest in chain), 0

    def tell(read_bytes: int) -> None:
        watch.on_progress(Progress(done + read_bytes, total))

    folders = (
        [target] if len(chain) == 1 else [target.with_name(f"{target.name}.{number}") for number in range(len(chain))]
    )
    for folder, manifest in zip(folders, chain, strict=True):
        make_private_dir(folder, tools.user)
        for item in manifest.objects:
            _unpack(tools, repository, manifest, item, folder, timeout_seconds, watch, tell)
            done += item.size_bytes
            tell(0)
        _check_files(manifest, folder, watch)
        # The map names the source's tablespace folders: the restored server would write into the live ones.
        (folder / "tablespace_map").unlink(missing_ok=True)
    if len(chain) > 1:
        tell(0)
        words = [*map(str, folders), f"--output={target}", "--manifest-checksums=SHA256", "--no-sync"]
        doing = f"combining {' + '.join(manifest.label for manifest in chain)}"
        run_tool(tools, "pg_combinebackup", words, doing=doing, watch=watch, timeout_seconds=timeout_seconds)
        for folder in folders:
            shutil.rmtree(folder)
        _check_combined(chain[-1], target, watch)


def _unpack(  # noqa: PLR0913
    tools: PgTools,
    repository: BackupRepository,
    manifest: Manifest,
    item: BackupObject,
    folder: Path,
    timeout_seconds: float,
    watch: Watch,
    on_read: Callable[[int], None],
) -> None:
    def tick() -> None:
        on_read(checked.size_bytes)
        watch.on_tick()

    name = item.name.removeprefix(f"{PAYLOAD_FOLDER}/")
    where = f"{manifest.label}/{item.name}"
    with repository.open_object(manifest.label, item.name) as stream:
        checked = CheckedReader(stream, item, where)
        if item.name == PG_MANIFEST:
            (folder / name).write_bytes(checked.read())
            give_to(folder / name, tools.user)
        else:
            stem = name.partition(".")[0]
            into = folder if stem == "base" else _tablespace_folder(tools, folder, stem)
            words = ["tar", "--extract", *(["--gzip"] if name.endswith(".gz") else []), f"--directory={into}"]
            try:
                commands.run(words, user=tools.user, stdin=checked, timeout_seconds=timeout_seconds, on_tick=tick)
            except CommandFailed as failure:
                # A damaged archive breaks tar first: say so, and not what tar made of it.
                checked.finish()
                raise name_failure(failure, f"unpacking {where}") from failure
        checked.finish()


def _check_files(manifest: Manifest, folder: Path, watch: Watch) -> None:
    faults = watch.check_files(folder)
    if faults:
        raise BackupDamaged(
            f"{manifest.label} differs from PostgreSQL's manifest of it: {'; '.join(faults[:5])}",
            hint="It was damaged before it was stored. Restore from another backup.",
        )


def _check_combined(manifest: Manifest, folder: Path, watch: Watch) -> None:
    faults = watch.check_combined(folder)
    if faults:
        raise BackupDamaged(
            f"{manifest.label}, combined with what it builds on, differs from the manifest of that: "
            + "; ".join(faults[:5]),
            hint="Look at the disks and the memory of this host, then hold the drill again.",
        )


def _tablespace_folder(tools: PgTools, folder: Path, oid: str) -> Path:
    # Archives of tablespaces come before the one that has pg_tblspc in it.
    make_private_dir(folder / "pg_tblspc", tools.user)
    return make_private_dir(folder / "pg_tblspc" / oid, tools.user)


def restore_steps(chain: list[str], suffix: str, tablespaces: dict[str, str]) -> list[RestoreStep]:
    """The restore with tar, pg_combinebackup and pg_ctl.

    `$REPOSITORY` is the cluster's folder at the destination, `$TARGET` a new data directory, `$SOCKET` a folder for
    the server's socket. The server starts cut off: no archiving, no TCP.
    """
    gzip = "z" if suffix.endswith(".gz") else ""
    last = len(chain) - 1
    folders = ["$TARGET"] if last == 0 else [f"$TARGET.{number}" for number in range(last + 1)]
    steps = []
    for folder, label in zip(folders, chain, strict=True):
        lines = [
            f'mkdir -p "{folder}" && chmod 700 "{folder}"',
            f'tar -x{gzip}f "$REPOSITORY/{label}/{PAYLOAD_FOLDER}/base{suffix}" -C "{folder}"',
            f'cp "$REPOSITORY/{label}/{PG_MANIFEST}" "{folder}/backup_manifest"',
        ]
        for oid in tablespaces:
            lines += [
                f'mkdir -p "{folder}/pg_tblspc/{oid}"',
                f'tar -x{gzip}f "$REPOSITORY/{label}/{PAYLOAD_FOLDER}/{oid}{suffix}" -C "{folder}/pg_tblspc/{oid}"',
            ]
        lines.append(f'rm -f "{folder}/tablespace_map"')
        steps.append(RestoreStep(title=f"Unpack {label}", commands=lines))
    if last:
        inputs = " ".join(f'"{folder}"' for folder in folders)
        steps.append(
            RestoreStep(
                title="Combine the chain",
                commands=[f'pg_combinebackup {inputs} -o "$TARGET"', f"rm -rf {inputs}"],
            )
        )
    for oid, location in tablespaces.items():
        steps.append(
            RestoreStep(
                title=f"Put tablespace {oid} (it was at {location}) where you want it; `$TABLESPACES` is a folder",
                commands=[
                    f'mkdir -p "$TABLESPACES" && mv "$TARGET/pg_tblspc/{oid}" "$TABLESPACES/{oid}"',
                    f'ln -s "$TABLESPACES/{oid}" "$TARGET/pg_tblspc/{oid}"',
                ],
            )
        )
    steps.append(start_cut_off())
    return steps
