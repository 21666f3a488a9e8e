"""MATLAB's files are read as SciPy reads them, and never but as what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, integer_dtypes
from scipy.io import loadmat, savemat

from tests.training.data.annotations.drawn_set import cells
from training.data.annotations.mat import load
from training.data.pictures import BadData

numbers = st.one_of(
    arrays(st.sampled_from([np.float32, np.float64]), array_shapes(min_dims=2, max_dims=3)),
    arrays(integer_dtypes(endianness="<") | st.just(np.dtype("u1")), array_shapes(min_dims=2, min_side=0)),
)


@pytest.mark.parametrize("compressed", [False, True])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(numbers, min_size=1, max_size=4))
def test_numbers_in_cells_are_what_scipy_reads(
    tmp_path: Path, compressed: bool, values: list[np.ndarray]
) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {"alone": values[0], "within": cells([cells(values)])}, do_compression=compressed)
    found, expected = load(file, ("alone", "within")), loadmat(file)
    np.testing.assert_array_equal(found["alone"], expected["alone"])
    inner, scipys = found["within"][0, 0], expected["within"][0, 0]
    assert inner.shape == scipys.shape == (len(values), 1)
    for one, other in zip(inner[:, 0], scipys[:, 0], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == other.shape


def test_texts_are_texts_and_other_variables_are_not_looked_at(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"names": cells(["a", "0--Tür", "long" * 40]), "other": {"a": 1}})
    found = load(tmp_path / "a.mat", ("names", "absent"))
    assert found.keys() == {"names"}
    assert found["names"][:, 0].tolist() == ["a", "0--Tür", "long" * 40]


@pytest.mark.parametrize("value", [{"a": 1}, np.array(["one", "two"])])
def test_what_no_list_has_is_refused(tmp_path: Path, value: object) -> None:
    savemat(tmp_path / "a.mat", {"a": value})
    with pytest.raises(BadData, match=r"a\.mat: cannot be read \(ValueError: .*\); copy it again"):
        load(tmp_path / "a.mat", ("a",))


def test_older_and_absent_files_are_refused_by_name(tmp_path: Path) -> None:
    savemat(tmp_path / "four.mat", {"a": 1.0}, format="4")
    with pytest.raises(BadData, match=r"four\.mat: .*no MATLAB file of version 5 to 7.*-v7"):
        load(tmp_path / "four.mat", ("a",))
    with pytest.raises(BadData, match=r"none\.mat: cannot be read \(No such file or directory\)"):
        load(tmp_path / "none.mat", ("a",))


@pytest.mark.parametrize("compressed", [False, True])
def test_no_beginning_of_a_file_is_taken_for_all_of_it(tmp_path: Path, compressed: bool) -> None:
    savemat(tmp_path / "a.mat", {"a": cells(["one", np.arange(5.0)])}, do_compression=compressed)
    whole = (tmp_path / "a.mat").read_bytes()
    for length in range(129, len(whole)):
        (tmp_path / "b.mat").write_bytes(whole[:length])
        with pytest.raises(BadData, match=r"b\.mat: cannot be read"):
            load(tmp_path / "b.mat", ("a",))
