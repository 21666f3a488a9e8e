"""`facet bundle check`, `facet migrate`, `facet gallery rebuild`: on files and the database, without a service.

Rule: safe beside a running service: the database serialises writes, and a service follows what others wrote.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.cli.arguments import EXIT_DONE, EXIT_PARTLY, settings_of
from service.config import Settings

if TYPE_CHECKING:
    from bundle.manifest import FileEntry
    from service.recognition.gallery_sync import GallerySync


def check_bundle(chosen: argparse.Namespace) -> int:
    """Verify every file of a bundle and say what it is. Raises `BundleError` when it is not whole."""
    from bundle.folder import open_bundle

    manifest = open_bundle(chosen.folder).manifest
    print(f"{manifest.model_id}: whole ({len(manifest.files)} files, {_mb(manifest.files)} MB)")
    print(f"  licence          {manifest.licence.id}: {manifest.licence.text}")
    print(f"  created          {manifest.created.isoformat(timespec='seconds')}")
    print(f"  embedding space  {manifest.embedding_space} (dimension {manifest.embedder.dimension})")
    for name, entry in sorted(manifest.files.items()):
        print(f"  {entry.sha256[:12]}  {entry.size:>10,}  {name}")
    return EXIT_DONE


def migrate(chosen: argparse.Namespace) -> int:
    """Bring the schema up to date. Raises `StartFailed`."""
    asyncio.run(_migrate(settings_of(chosen)))
    print("the database is up to date")
    return EXIT_DONE


def rebuild(chosen: argparse.Namespace) -> int:
    """Build the index from the database; `EXIT_PARTLY` when a gallery cannot be searched."""
    settings = settings_of(chosen)
    return asyncio.run(_rebuild(settings, chosen.gallery, chosen.drop_foreign_faces))


async def _migrate(settings: Settings) -> None:
    from service.bootstrap import open_database

    database = await open_database(settings)
    await database.close()


async def _rebuild(settings: Settings, gallery_id: str | None, drop_foreign_faces: bool) -> int:
    from service.bootstrap import open_sync

    async with open_sync(settings) as sync:
        page = await sync.list_galleries(limit=1000)
        chosen = [one for one in page.items if gallery_id in (None, one.id)]
        if not chosen and gallery_id is not None:
            await sync.get_gallery(gallery_id)  # raises `GalleryNotFound`
        for gallery in chosen:
            dropped = await sync.drop_foreign_faces(gallery.id) if drop_foreign_faces else 0
            await sync.rebuild(gallery.id)
            _tell(sync, gallery.id, dropped)
        return EXIT_PARTLY if set(sync.problems) & {one.id for one in chosen} else EXIT_DONE


def _tell(sync: GallerySync, gallery_id: str, dropped: int) -> None:
    foreign = f"; {dropped} faces of another model deleted" if dropped else ""
    problem = sync.problems.get(gallery_id)
    if problem is not None:
        print(f"{gallery_id}: {problem}{foreign}")
        return
    snapshot = sync.snapshot(gallery_id)
    print(
        f"{gallery_id}: rebuilt, {snapshot.size} persons, {snapshot.templates} faces, "
        f"revision {snapshot.revision}{foreign}"
    )


def _mb(files: Mapping[str, FileEntry]) -> str:
    return f"{sum(entry.size for entry in files.values()) / 1e6:.1f}"
