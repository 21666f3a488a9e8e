"""The wiring: what is built is ready and whole, what cannot be built says why in one line and leaves nothing open."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.folder import open_bundle, write_bundle
from service import bootstrap
from service.bootstrap import Phase, assemble, build, open_licensed, open_sync
from service.config import Settings, load_settings
from service.errors import StartFailed
from service.recognition.enrolment import PersonRef
from service.storage.faces import NewFace

KEY = "an admin key of the tests, long enough to be one"


@pytest.fixture
def settings(tmp_path: Path, synthetic_bundle: Path) -> Settings:
    return load_settings(
        data_dir=tmp_path / "data", bundle=synthetic_bundle, admin_key=KEY, inference_lanes=1
    )


def lanes() -> int:
    return sum(thread.name.startswith("facet-") for thread in threading.enumerate())


async def test_it_is_ready_once_it_is_warm_and_no_longer_when_it_drains(settings: Settings) -> None:
    facet = await assemble(settings)
    try:
        assert (facet.ready, facet.not_ready_reason) == (False, "warming")
        await facet.start()
        assert (facet.ready, facet.not_ready_reason) == (True, None)
        assert await facet.census() == bootstrap.Census(people=0, galleries=1)
        facet.drain()
        assert (facet.ready, facet.not_ready_reason) == (False, "draining")
    finally:
        await facet.close()


async def test_asked_to_drain_while_warming_it_never_becomes_ready(settings: Settings) -> None:
    facet = await assemble(settings)
    facet.drain()
    await facet.start()
    assert facet.phase is Phase.DRAINING
    await facet.close()


async def test_an_index_that_lags_is_not_ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    facet = await build(settings)
    try:
        monkeypatch.setattr(type(facet.sync), "ready", property(lambda self: False))
        assert (facet.ready, facet.not_ready_reason) == (False, "index")
    finally:
        await facet.close()


async def test_closing_ends_every_thread_and_may_be_repeated(settings: Settings) -> None:
    before = lanes()
    facet = await build(settings)
    assert lanes() > before
    await facet.close()
    await facet.close()
    assert lanes() == before


async def test_a_cold_machine_gets_its_folder_for_the_owner_alone(settings: Settings) -> None:
    await (await build(settings)).close()

    assert settings.data_dir.stat().st_mode & 0o777 == 0o700


async def test_a_first_start_writes_an_admin_key_and_the_next_keeps_it(
    tmp_path: Path, synthetic_bundle: Path
) -> None:
    settings = load_settings(data_dir=tmp_path, bundle=synthetic_bundle, inference_lanes=1)
    first = await assemble(settings)
    await first.close()
    again = await assemble(settings)
    try:
        assert first.first_key is not None
        assert again.first_key is None
        assert first.first_key.path.stat().st_mode & 0o777 == 0o600
        caller = await again.authenticator.authenticate(first.first_key.token, None)
        assert "admin" in caller.scopes
    finally:
        await again.close()


async def test_a_bundle_that_is_not_there_fails_the_start(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"FACET_BUNDLE: .*nowhere: no such folder"):
        await assemble(settings.model_copy(update={"bundle": tmp_path / "nowhere"}))
    assert not settings.data_dir.exists()


def test_a_licence_that_is_required_is_kept(synthetic_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(synthetic_bundle)
    fields = bundle.manifest.model_dump(mode="json", exclude={"files", "seal"})
    fields["licence"] = {"id": "research-only", "text": "for research"}
    research = write_bundle(
        tmp_path / "research", fields, {name: bundle.file(name) for name in bundle.manifest.files}
    )

    assert open_licensed(research.path, None).manifest.licence.id == "research-only"
    with pytest.raises(StartFailed, match=r"FACET_REQUIRE_LICENCE=commercial: .* research-only"):
        open_licensed(research.path, "commercial")
    assert open_licensed(synthetic_bundle, bundle.manifest.licence.id)


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
async def test_an_accelerator_that_is_not_there_fails_the_start(settings: Settings, backend: str) -> None:
    before = lanes()
    if _gpu():
        pytest.skip("there is a GPU here: this test is about its absence")
    with pytest.raises(StartFailed, match="FACET_BACKEND"):
        await assemble(settings.model_copy(update={"backend": backend}))
    assert lanes() == before


async def test_a_bundle_that_does_not_run_fails_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    facet = await assemble(settings)
    try:
        wrong = facet.bundle.manifest.embedder.model_copy(update={"dimension": 7})
        manifest = facet.bundle.manifest.model_copy(update={"embedder": wrong})
        with pytest.raises(StartFailed, match="shape"):
            await bootstrap.warm_up(facet.engines, manifest)

        def fail(batch: Any) -> Any:
            raise RuntimeError("no device")

        monkeypatch.setattr(facet.engines.detector, "backend", _Broken(facet.engines.detector.backend, fail))
        with pytest.raises(StartFailed, match="does not run on"):
            await facet.start()
    finally:
        await facet.close()


async def test_a_data_dir_that_cannot_be_made_fails_the_start(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match="FACET_DATA_DIR"):
        await assemble(settings.model_copy(update={"data_dir": tmp_path / "file" / "data"}))


async def test_maintenance_sees_what_the_service_wrote(settings: Settings) -> None:
    facet = await build(settings)
    vector = np.eye(1, facet.bundle.manifest.embedder.dimension, dtype=np.float32)[0]
    face = NewFace(vector, "digest", (0.0, 0.0, 9.0, 9.0), 0.9, {"overall": 1.0})
    await facet.sync.add_faces("default", PersonRef(name="Ada"), [face])
    await facet.close()

    async with open_sync(settings) as sync:
        assert (sync.snapshot("default").size, sync.snapshot("default").templates) == (1, 1)


@dataclasses.dataclass
class _Broken:
    """A backend whose runs fail."""

    of: Any
    run: Any

    def close(self) -> None:
        self.of.close()


def _gpu() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
