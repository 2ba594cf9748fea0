"""What this node proves itself by: an identity that the cluster gave it, kept on disk."""

from __future__ import annotations

from cloudless.adapters.pki.credentials import Credentials
from cloudless.adapters.pki.identity_dir import IdentityDir
from cloudless.errors import BadCredentials


class NodeCredentials:
    """A `CredentialSource`: the identity in `directory`, as it was last read or renewed."""

    def __init__(self, directory: IdentityDir) -> None:
        """Read it. Raises BadCredentials if there is none."""
        self.directory = directory
        held = directory.load()
        if held is None:
            raise BadCredentials(
                f"this node has no identity in {directory.path}",
                hint="set CLOUDLESS_JOIN_TOKEN to a token of role agent (cloudless token create --role agent)",
            )
        self._held = held

    def __call__(self) -> Credentials:
        return self._held

    def keep(self, credentials: Credentials) -> None:
        """Use, and keep on disk, a renewed identity."""
        self.directory.store(credentials)
        self._held = credentials
