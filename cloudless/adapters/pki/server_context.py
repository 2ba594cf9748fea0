"""A server's TLS context that follows its identity directory: each handshake uses what is kept there now.

Python's context can be given another certificate and more CAs to trust, but not fewer. So each renewal makes a context
anew, and the one that listens hands every handshake over to it: a CA that was dropped is not trusted any longer.
"""

from __future__ import annotations

import ssl

from cloudless.adapters.pki.identity_dir import IdentityDir


class ServerContext:
    """`context` is what to listen with. `verify`: whether callers must show a certificate, or may."""

    def __init__(self, directory: IdentityDir, verify: ssl.VerifyMode) -> None:
        self._directory, self._verify = directory, verify
        self._now = self.context = self._build()
        self.lead(self.context)

    def lead(self, listening: ssl.SSLContext) -> None:
        """Make a context that somebody else made and listens with use what this one does."""
        _forget_sessions(listening)
        # Called for every handshake, with or without a name (measured with OpenSSL 3.0).
        listening.sni_callback = self._hand_over

    def renew(self) -> None:
        """Use what is kept now, from the next handshake on. Raises OSError if it cannot be read."""
        self._now = self._build()

    def _hand_over(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._now

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = self._verify
        _forget_sessions(context)
        context.load_cert_chain(self._directory.identity_file)
        context.load_verify_locations(self._directory.roots_file)
        return context


def _forget_sessions(context: ssl.SSLContext) -> None:
    """Let nobody resume a connection of before: that would skip what is asked of certificates now.

    TLS 1.3 resumes by tickets only, which are not given; in 1.2 Python cannot turn resuming off.
    """
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
