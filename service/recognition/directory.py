"""Who the persons of a gallery are, remembered for as long as the gallery's revision stands.

A lookup in the database costs more than a search of a small gallery, and most pictures show somebody who was just
seen. Every write of a gallery is a new revision, so what was read at one revision holds exactly until the next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from service.gallery.snapshot import Snapshot
from service.recognition.gallery_sync import GallerySync
from service.storage.records import Person

_REMEMBERED = 2_000  # persons of one gallery
_GALLERIES = 100


class Directory:
    """Persons by id, as the database has them at a snapshot's revision or later."""

    def __init__(self, sync: GallerySync) -> None:
        self._sync = sync
        self._known: dict[str, tuple[int, dict[str, Person]]] = {}

    async def persons(self, snapshot: Snapshot, ids: Collection[str]) -> Mapping[str, Person]:
        """Those of `ids` who exist, at least; others may be in it too. Ids are never used twice, so an entry of a
        gallery that was deleted and made again under its name is asked for by nobody."""
        revision, known = self._known.get(snapshot.id, (snapshot.revision, {}))
        if revision != snapshot.revision or len(known) > _REMEMBERED:
            known = {}
        missing = sorted(set(ids) - known.keys())
        if missing:
            # A new dictionary: another request may hold the old one while this one waits for the database.
            known = known | await self._sync.get_persons(snapshot.id, missing)
            while len(self._known) >= _GALLERIES and snapshot.id not in self._known:
                self._known.pop(next(iter(self._known)))
            self._known[snapshot.id] = (snapshot.revision, known)
        return known
