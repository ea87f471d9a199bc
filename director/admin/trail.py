"""Operations on the audit."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cluster.model import AuditEntry
from director.admin.offers import Operations
from director.admin.operation import Caller, Parameters, Role, operation

#: Of one answer.
MAX_ENTRIES = 1000


class Limit(Parameters, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_ENTRIES)] = 100


@operation(Role.READONLY, Limit)
def audit(director: Operations, caller: Caller, p: Limit) -> tuple[AuditEntry, ...]:
    """Who changed what, or tried to, at any director; the newest first."""
    return director.audit(p.limit)
