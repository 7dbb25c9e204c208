"""What can go wrong when a service is asked.

ClientError
├── Problem          the service refuses: its problem document (RFC 9457), or an answer that is none; of many photos also
│                    one whose file cannot be read
└── ServerGoneError  no answer comes, or not all of it
"""

import json
import os
from typing import Any


class ClientError(Exception):
    """Base of what `tag2mask.Client` raises of itself."""


class Problem(ClientError):
    """The service refuses. `status` is HTTP's; `kind` is the last part of the document's type, "unknown-class" for example;
    `members` is the whole document, with members of its own such as `limit`.
    """

    def __init__(self, status: int, detail: str, kind: str = "", members: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.kind, self.members = status, detail, kind, members or {}

    @classmethod
    def of(cls, status: int, body: bytes) -> "Problem":
        """Return what an answer with that status says."""
        try:
            members = json.loads(body)
            return cls(status, str(members["detail"]), str(members["type"]).rpartition(":")[2], members)
        except (ValueError, KeyError, TypeError):
            return cls(
                status, f"the server answers with HTTP status {status} and no explanation; is it a tag2mask service?"
            )

    @classmethod
    def of_file(cls, error: OSError) -> "Problem":
        """Return that a photo's file cannot be read: `status` is 0, since the service was not asked."""
        where = f" {os.fspath(error.filename)!r}" if error.filename is not None else ""
        return cls(0, f"the photo{where} cannot be read ({error.strerror or error})", "unreadable")


class ServerGoneError(ClientError):
    """The server does not answer: no photo is to blame, and none after it will fare better."""
