from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.preprocess import CANVASES, Letterbox, canvas_for, canvases_of, enclosing, letterbox

sides = st.integers(1, 1500)


def dot(width: int, height: int, x: int, y: int, radius: int) -> np.ndarray:
    """A black picture with a white square of odd side around pixel (x, y)."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    return picture


def centre_of_mass(picture: np.ndarray) -> np.ndarray:
    """(x, y), pixel centres at integers."""
    weight = picture[..., 0].astype(float)
    ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()


@given(width=sides, height=sides, points=st.lists(st.floats(-50, 1500), min_size=2, max_size=2))
def test_the_way_back_undoes_the_way_there(width: int, height: int, points: list[float]) -> None:
    placed = Letterbox(min(640 / width, 480 / height, 1.0), width, height)
    there = placed.to_canvas(np.array([points]))
    np.testing.assert_allclose(placed.to_picture(there), [points], atol=2e-3 * max(1, 1 / placed.scale))


@settings(max_examples=25, deadline=None)
@given(width=st.integers(200, 1400), height=st.integers(200, 1100), data=st.data())
def test_a_dot_is_found_where_it_was(width: int, height: int, data: st.DataObject) -> None:
    """Half a pixel of the canvas wrong, and this fails: it measures pixels, not the formula."""
    x, y = (data.draw(st.integers(20, side - 21)) for side in (width, height))
    canvas, placed = letterbox(dot(width, height, x, y, radius=9), (640, 480))
    np.testing.assert_allclose(placed.to_picture(centre_of_mass(canvas)), [x, y], atol=0.1 / placed.scale)


@settings(max_examples=40, deadline=None)
@given(width=sides, height=sides, size=st.sampled_from(CANVASES))
def test_the_picture_lies_at_the_top_left_and_the_rest_is_black(
    width: int, height: int, size: tuple[int, int]
) -> None:
    canvas, placed = letterbox(np.full((height, width, 3), 200, np.uint8), size)
    across, down = placed.content
    assert canvas.shape == (size[1], size[0], 3)
    assert across <= size[0]
    assert down <= size[1]
    assert (canvas[:down, :across] == 200).all()
    assert not canvas[down:].any()
    assert not canvas[:, across:].any()


def test_a_small_picture_is_not_enlarged_unless_allowed() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    canvas, placed = letterbox(picture, (640, 480))
    assert placed.scale == 1
    np.testing.assert_array_equal(canvas[:60, :80], picture)
    _, enlarged = letterbox(picture, (640, 480), max_upscale=2.0)
    assert enlarged.content == (160, 120)


def test_boxes_map_as_their_corners_do() -> None:
    placed = Letterbox(0.5, 1280, 960)
    boxes = np.array([[10, 20, 30, 40]], np.float32)
    np.testing.assert_array_equal(
        placed.to_picture(boxes).reshape(2, 2), placed.to_picture(boxes.reshape(2, 2))
    )
    assert placed.to_picture(np.zeros((3, 5, 2))).shape == (3, 5, 2)
    assert placed.to_picture(np.zeros((0, 4))).shape == (0, 4)


@given(width=sides, height=sides)
def test_the_chosen_canvas_keeps_most_of_the_picture(width: int, height: int) -> None:
    chosen = canvas_for(width, height)
    kept = [min(size[0] / width, size[1] / height, 1.0) for size in CANVASES]
    assert min(chosen[0] / width, chosen[1] / height, 1.0) == max(kept)


@pytest.mark.parametrize(
    ("width", "height", "canvas"),
    [(1920, 1080, (640, 480)), (1080, 1920, (480, 640)), (100, 100, (640, 480))],
)
def test_lying_pictures_lie_and_standing_ones_stand(width: int, height: int, canvas: tuple[int, int]) -> None:
    assert canvas_for(width, height) == canvas


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),  # grey and alpha
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        ([[1, 2, 3]], "uint8"),
    ],
)
def test_what_is_no_picture_is_refused(picture: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        letterbox(picture, (640, 480))


@pytest.mark.parametrize("coarsest", [4, 8, 16, 32])
def test_the_usual_strides_have_the_usual_canvases(coarsest: int) -> None:
    assert canvases_of(coarsest) == CANVASES


@pytest.mark.parametrize("coarsest", [64, 128])
def test_coarser_strides_have_canvases_that_they_divide_and_no_picture_is_seen_smaller(coarsest: int) -> None:
    canvases = canvases_of(coarsest)
    assert canvases == ((640, 512), (512, 640))
    assert not any(side % coarsest for size in canvases for side in size)
    # The service says how small a picture would be seen by the longer side alone.
    assert max(map(max, canvases)) == max(map(max, CANVASES))


@given(width=sides, height=sides, multiple=st.integers(1, 128))
def test_what_encloses_a_size_is_less_than_a_multiple_larger(width: int, height: int, multiple: int) -> None:
    around = enclosing((width, height), multiple)
    for side, of in zip(around, (width, height), strict=True):
        assert side % multiple == 0
        assert 0 <= side - of < multiple


def test_impossible_sizes_and_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        letterbox(np.zeros((4, 4, 3), np.uint8), (0, 480))
    with pytest.raises(ValueError, match="positive"):
        canvas_for(0, 10)
    with pytest.raises(ValueError, match="no canvas"):
        canvas_for(10, 10, ())
    with pytest.raises(ValueError, match="x and y"):
        Letterbox(1.0, 10, 10).to_picture(np.zeros((2, 3)))
