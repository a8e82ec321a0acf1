"""Settings of pgBackRest: what its generated configuration says."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from lifeboat.settings.base import AbsolutePath, Section


def _one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("it must be one line of printable characters, with no space at either end")
    return text


# Beyond these pgBackRest refuses every command (its src/common/compress/*/): archive_command too.
_LEVELS = {"gz": range(-1, 10), "bz2": range(1, 10), "lz4": range(-5, 13), "zst": range(-7, 23)}


class PgBackRestSettings(Section):
    """Section [engines.pgbackrest]."""

    program: AbsolutePath | None = Field(None, description="The program; nothing means the first pgbackrest in PATH.")
    stanza: Annotated[str, AfterValidator(_one_line)] | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="The stanza, pgBackRest's name of the cluster; `platform.cluster` by default.",
    )
    repository_path: AbsolutePath | None = Field(
        None, description="Folder of the repository; `<destination>/<cluster>/pgbackrest` by default."
    )
    config_path: AbsolutePath | None = Field(
        None,
        description="Where the generated configuration is written; below `state_dir` by default. It is overwritten.",
    )
    spool_path: AbsolutePath | None = Field(
        None, description="Folder of the queues of asynchronous archiving; below `state_dir` by default."
    )
    process_max: int = Field(2, ge=1, le=999, description="Processes that compress and transfer files.")
    compress_type: Literal["none", "gz", "bz2", "lz4", "zst"] = Field(
        "gz", description="Compression of files and WAL segments; lz4 and zst are read back with the tool of the name."
    )
    compress_level: int | None = Field(
        None,
        description="Level of the compression: -1 to 9 of gz, 1 to 9 of bz2, -5 to 12 of lz4, -7 to 22 of zst; nothing "
        "means the default of its type.",
    )
    archive_async: bool = Field(
        False, description="Push and get WAL ahead of the server, several segments at once, through the spool folder."
    )
    archive_copy: bool = Field(
        True,
        description="Keep the WAL that a backup needs inside it as well: it is restored even without the archive, "
        "and a restore drill reads from it what changed while the backup ran.",
    )
    archive_timeout_seconds: float = Field(
        300, ge=0.1, le=86400, description="How long a backup waits for its last segment to be archived."
    )
    start_fast: bool = Field(True, description="Ask the server for a checkpoint at once instead of awaiting the next.")
    cipher_type: Literal["none", "aes-256-cbc"] = Field(
        "none",
        description="Encryption of a new repository; it cannot be changed later. Of its WAL, a segment that was cut "
        "short is seen by `wal status` in most cases only, and by `wal verify` in all.",
    )
    cipher_passphrase: SecretStr | None = Field(
        None, description="The repository's passphrase; it is written into the generated configuration, mode 0600."
    )

    @model_validator(mode="after")
    def _level_is_one_of_its_type(self) -> Self:
        levels = _LEVELS.get(self.compress_type)
        if levels is not None and self.compress_level is not None and self.compress_level not in levels:
            said = f"{levels.start} to {levels.stop - 1}"
            raise ValueError(f"`compress_level` of {self.compress_type} goes from {said}, not {self.compress_level}")
        return self

    @model_validator(mode="after")
    def _passphrase_belongs_to_cipher(self) -> Self:
        if (self.cipher_type == "none") != (self.cipher_passphrase is None):
            raise ValueError("`cipher_type` and `cipher_passphrase` belong together: set both or none")
        if self.cipher_passphrase is not None:
            secret = self.cipher_passphrase.get_secret_value()
            if not secret or not secret.isprintable() or secret != secret.strip():
                raise ValueError("`cipher_passphrase` must be one line, with no space at either end")
        return self
