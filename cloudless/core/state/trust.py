"""The state machine's tables of trust: authorities, tokens and identities, each with its mod revision."""

from __future__ import annotations

from cloudless.core.model import AuthorityRecord, IdentityRecord, TokenRecord
from cloudless.core.state.events import Stored
from cloudless.core.state.view import Authority, Enrolment, Token


class TrustTables:
    """Folds the records of `pki/…` and `tokens/…`."""

    def __init__(self) -> None:
        self.authorities: dict[str, Authority] = {}
        self.tokens: dict[str, Token] = {}
        self.identities: dict[tuple[str, str], Enrolment] = {}

    def index(self, entry: Stored) -> None:
        match entry.record:
            case AuthorityRecord() as authority:
                self.authorities[authority.id] = Authority(authority, entry.mod_revision)
            case TokenRecord() as token:
                self.tokens[token.id] = Token(token, entry.mod_revision)
            case IdentityRecord() as identity:
                kind, name = entry.parsed.parts
                self.identities[kind, name] = Enrolment(identity, entry.mod_revision)

    def unindex(self, entry: Stored) -> None:
        match entry.record:
            case AuthorityRecord() as authority:
                self.authorities.pop(authority.id, None)
            case TokenRecord() as token:
                self.tokens.pop(token.id, None)
            case IdentityRecord():
                kind, name = entry.parsed.parts
                self.identities.pop((kind, name), None)
