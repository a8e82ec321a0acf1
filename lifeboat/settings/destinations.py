"""Settings of destinations: a table per destination, told apart by `type`."""

from typing import Literal

from pydantic import Field

from lifeboat.settings.base import AbsolutePath, Section


class FilesystemSettings(Section):
    """A local folder or a network mount."""

    type: Literal["filesystem"] = "filesystem"
    path: AbsolutePath = Field(description="The folder; it is created, but a missing mount point is not.")
    mount: bool = Field(False, description="Refuse to write unless something is mounted at the path or above it.")
    minimum_free_bytes: int = Field(
        512 * 1024 * 1024, ge=0, description="Bytes that a backup leaves free; it stops before it takes them."
    )
    allow_role_passwords: bool = Field(
        False, description="Accept dumps that hold the roles' password hashes, although the objects are not encrypted."
    )


DestinationSettings = FilesystemSettings
