"""The drawn faces and their models do what the service's tests take for granted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from bundle.align import align
from bundle.decode import Detections, detections
from bundle.folder import Bundle, open_bundle
from bundle.preprocess import canvas_for, letterbox
from tests.synthetic_bundle import (
    blank,
    detector_model,
    draw_person,
    draw_scene,
    embedder_model,
    place_people,
    write_synthetic_bundle,
)

SIZES = (40, 56, 80, 160, 300)


class Eyes:
    """The way of one picture, without a service."""

    def __init__(self, bundle: Bundle) -> None:
        self.spec = bundle.manifest.detector
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.detector, self.embedder = (
            onnxruntime.InferenceSession(bundle.file(name), options, providers=["CPUExecutionProvider"])
            for name in (self.spec.file, bundle.manifest.embedder.file)
        )

    def detect(self, picture: np.ndarray) -> Detections:
        """Faces in the picture's pixels."""
        of = self.spec
        size = canvas_for(picture.shape[1], picture.shape[0], of.canvases)
        canvas, placed = letterbox(picture, size)
        outputs = self.detector.run(list(of.outputs), {of.input: canvas[None]})
        found = detections(
            *(output[0] for output in outputs), *size, of.anchors, of.min_score, of.nms_iou, of.top_k
        )
        return Detections(placed.to_picture(found.boxes), placed.to_picture(found.landmarks), found.scores)

    def embed(self, picture: np.ndarray) -> np.ndarray:
        """(faces, d), the picture's left and upper faces first."""
        found = self.detect(picture)
        order = np.lexsort((found.boxes[:, 0].round(-1), found.boxes[:, 1].round(-1)))
        crops = [align(picture, found.landmarks[index]) for index in order]
        return np.asarray(self.embedder.run(None, {"image": np.stack(crops)})[0])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_synthetic_bundle(tmp_path_factory.mktemp("synthetic") / "bundle")


@pytest.fixture(scope="module")
def eyes(bundle: Bundle) -> Eyes:
    return Eyes(bundle)


def as_jpeg(picture: np.ndarray, quality: int = 80) -> np.ndarray:
    data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


def test_the_bundle_opens_and_its_models_never_change(bundle: Bundle, tmp_path: Path) -> None:
    again = write_synthetic_bundle(tmp_path / "again")
    assert open_bundle(bundle.path).manifest == again.manifest == bundle.manifest
    detector_model.cache_clear()
    embedder_model.cache_clear()
    assert (bundle.path / "detector.onnx").read_bytes() == detector_model()
    assert (bundle.path / "embedder.onnx").read_bytes() == embedder_model()


@pytest.mark.parametrize("size", SIZES)
def test_one_person_is_nearer_to_itself_than_to_others_after_jpeg(eyes: Eyes, size: int) -> None:
    people = [
        [eyes.embed(as_jpeg(draw_person(identity, variation, size))) for variation in range(3)]
        for identity in range(6)
    ]
    assert all(len(faces) == 1 for variations in people for faces in variations)
    vectors = np.array(people)[:, :, 0]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
    similarity = np.einsum("ivd,jwd->ijvw", vectors, vectors)
    same = np.eye(6, dtype=bool)
    assert similarity[same].min() > 0.75
    assert similarity[~same].max() < 0.45


@pytest.mark.parametrize("size", [24, *SIZES, 700])
def test_boxes_are_where_the_faces_were_drawn(eyes: Eyes, size: int) -> None:
    found = eyes.detect(draw_person(3, 0, size))
    left = (round(2.2 * size) - size) // 2
    expected = [left - 0.5, left - 0.5, left + size - 0.5, left + size - 0.5]
    np.testing.assert_allclose(found.boxes, [expected], atol=0.5 + 0.01 * size)


def test_a_scene_shows_each_face_once_at_its_place(eyes: Eyes) -> None:
    people = [1, (2, 5), 3, (4, 1), 5, 6, 7]
    picture, boxes = place_people(people, size=64)
    np.testing.assert_array_equal(picture, draw_scene(people, size=64))
    vectors = eyes.embed(picture)
    assert len(vectors) == len(eyes.detect(picture)) == len(people) == len(boxes)
    for place, person in enumerate(people):
        alone = eyes.embed(draw_person(person if isinstance(person, int) else person[0]))[0]
        similarity = vectors @ alone
        assert similarity.argmax() == place
        assert similarity[place] > 0.75


@pytest.mark.parametrize("size", [(320, 240), (37, 500), (1, 1), (1500, 900)])
def test_a_blank_picture_has_no_face(eyes: Eyes, size: tuple[int, int]) -> None:
    assert len(eyes.detect(blank(*size))) == 0


@pytest.mark.parametrize("level", [0, 60, 255])
def test_plain_grey_and_noise_have_no_face(eyes: Eyes, level: int) -> None:
    assert len(eyes.detect(np.full((480, 640, 3), level, np.uint8))) == 0
    noise = np.random.default_rng(level).integers(0, 256, (480, 640, 3), np.uint8)
    assert len(eyes.detect(noise)) == 0


def test_a_grey_picture_still_shows_who_it_is(eyes: Eyes) -> None:
    for identity in range(4):
        coloured = draw_person(identity)
        grey = cv2.cvtColor(cv2.cvtColor(coloured, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        (vector,) = eyes.embed(as_jpeg(grey))
        others = np.concatenate([eyes.embed(draw_person(other)) for other in range(4)])
        assert (others @ vector).argmax() == identity
        assert (others @ vector)[identity] > 0.55


def test_a_batch_answers_each_picture_as_if_alone(eyes: Eyes) -> None:
    canvases = np.stack([letterbox(draw_person(i), (640, 480))[0] for i in range(3)])
    together = eyes.detector.run(None, {"image": canvases})
    for index in range(3):
        alone = eyes.detector.run(None, {"image": canvases[index : index + 1]})
        for of_batch, own in zip(together, alone, strict=True):
            np.testing.assert_allclose(of_batch[index], own[0], atol=1e-4)


@pytest.mark.parametrize("dimension", [64, 512])
def test_other_dimensions_work(tmp_path: Path, dimension: int) -> None:
    other = Eyes(write_synthetic_bundle(tmp_path / "other", dimension=dimension))
    vectors = np.concatenate([other.embed(draw_person(i, v)) for i in range(3) for v in range(2)])
    assert vectors.shape == (6, dimension)
    similarity = vectors @ vectors.T
    same = np.kron(np.eye(3), np.ones((2, 2))) > 0
    assert similarity[same].min() > 0.7
    assert similarity[~same].max() < 0.5


def test_the_calibration_separates_what_the_embedder_separates(bundle: Bundle) -> None:
    of = bundle.manifest.calibration
    assert of.threshold_for_fpir(0.01, {1: 100}).value < 0.7
    assert of.threshold_for_fpir(1e-3, {1: 500}).value < 0.75
    assert of.threshold_for_fmr(1e-4).value < 0.65
