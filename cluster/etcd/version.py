"""Which etcd not to trust."""

from __future__ import annotations

import re

#: Tested with, and the first of the series after it that does not lose consistency when a member is killed.
OLDEST, SOUND_35 = (3, 4, 0), (3, 5, 6)
#: The first releases that mend it, by series. By etcd's changelogs: leases that a former leader revokes, and events that a
#: watch loses when etcd compacts.
EVENTS_SOUND: dict[tuple[int, ...], tuple[int, ...]] = {(3, 4): (3, 4, 31), (3, 5): (3, 5, 13)}
#: What is left of lost events and stale answers of a member that has just lost its leader.
ALL_SOUND: dict[tuple[int, ...], tuple[int, ...]] = {(3, 4): (3, 4, 42), (3, 5): (3, 5, 23), (3, 6): (3, 6, 5)}


def warning(version: str) -> str:
    """What an operator should know about this release; empty when there is nothing, or it is unknown.

    etcd 3.5.0 to 3.5.2 can lose the consistency of a member that is killed, and it took until 3.5.5 to mend all of it;
    etcd's own changelogs advise against them.
    """
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return ""
    release = tuple(int(each) for each in numbers.groups())
    if (3, 5, 0) <= release < SOUND_35:
        return f"etcd {version} can corrupt its data when it is killed: use 3.4, or 3.5.6 and later"
    if release < OLDEST:
        return f"etcd {version} is older than what this was tested with: use 3.4, or 3.5.6 and later"
    series = release[:2]
    defects = []
    if release < EVENTS_SOUND.get(series, OLDEST):
        defects.append("revoke leases that were renewed")
    if release < ALL_SOUND.get(series, OLDEST):
        defects += ["lose events of watches", "answer with what is old"]
        mended = ".".join(map(str, ALL_SOUND[series]))
        return (f"etcd {version} can {', '.join(defects)} (all mended in {mended}): upgrade etcd. Until then a director may "
                "lose its leadership or hear of a change a minute late")
    return ""
