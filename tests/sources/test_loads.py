"""Tables and arrays of recorded loads, and what is refused."""

import numpy as np
import pytest

from balancesim.errors import InputError
from balancesim.sources.files import read_csv_rows
from balancesim.sources.loads import read_loads

TABLE = "layer,expert,count\n0,0,5\n0,1,7\n1,1,4\n1,0,8\n"


def file(folder, text, name="loads.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_bundled_table():
    found = read_loads("expert-loads")
    assert len(found) == 18
    assert list(found[0].labels) == ["model", "domain", "layer"]
    for one in found:
        k = {"olmoe": 8, "mixtral": 2}[one.labels["model"]]
        assert one.loads.size == {"olmoe": 64, "mixtral": 8}[one.labels["model"]]
        assert one.loads.sum() == 208_896 * k
    (one,) = read_loads("expert-loads", {"model": "olmoe", "domain": "arxiv", "layer": 0})
    assert one.loads.max() / one.loads.mean() - 1 == pytest.approx(6.813, abs=5e-4)


def test_a_table_of_one_s_own(tmp_path):
    first, second = read_loads(file(tmp_path, TABLE))
    assert first.labels == {"layer": "0"}
    assert first.loads.tolist() == [5.0, 7.0]
    assert second.loads.tolist() == [8.0, 4.0]
    (one,) = read_loads(file(tmp_path, "\ufeffcount , expert\n\n3,0\n 4 , 1\n"))
    assert one.labels == {}
    assert one.loads.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("text", ["5\n7\n0\n", "load\n5\n7\n0", "5.0\r\n7e0\r\n0\r\n"])
def test_one_column(tmp_path, text):
    (one,) = read_loads(str(file(tmp_path, text)))
    assert one.loads.tolist() == [5.0, 7.0, 0.0]


def test_arrays(tmp_path):
    np.save(tmp_path / "one.npy", np.array([5, 7]))
    np.savez(tmp_path / "several.npz", loads=np.array([[5, 7], [1.5, 2.5]]))
    (one,) = read_loads(tmp_path / "one.npy")
    assert (one.labels, one.loads.tolist()) == ({}, [5.0, 7.0])
    (second,) = read_loads(tmp_path / "several.npz", {"row": 1})
    assert second.loads.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "must have the columns expert and count, or one column of loads, got a, b"),
        ("1,2\n3,4\n", "got 1, 2; name the columns in its first row"),
        ("expert,count\n", "no rows below its header"),
        ("expert,count\n0,5\n1\n", "line 3: expected 2 columns, got 1"),
        ("expert,count\nx,5\n", "line 2: expert must be an index from 0 on, got 'x'"),
        ("expert,count\n-1,5\n", "got '-1'"),
        ("expert,count\n0,five\n", "line 2: a load must be a number of at least 0, got 'five'"),
        ("expert,count\n0,-5\n", "got '-5'"),
        ("expert,count\n0,nan\n", "got 'nan'"),
        ("expert,count\n0,5\n0,6\n", "line 3: expert 0 occurs twice"),
        ("expert,count\n0,5\n2,6\n", "has no row for expert 1, but one for expert 2; write a count of 0"),
        ("layer,expert,count\n3,1,6\n", "layer=3 has no row for expert 0"),
        ("5\n\n7\nx\n", "line 4: a load must be a number"),
    ],
)  # fmt: skip
def test_bad_tables(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_loads(file(tmp_path, text))


def test_other_bad_input(tmp_path):
    with pytest.raises(InputError, match="unknown name 'expert-lods'; did you mean 'expert-loads'"):
        read_loads("expert-lods")
    with pytest.raises(InputError, match=r"unknown column of 'expert-loads' 'modl'; did you mean 'model'"):
        read_loads("expert-loads", {"modl": "olmoe"})
    with pytest.raises(
        InputError, match="leaves nothing of 'expert-loads', which has layer: 0, 7, 15, first"
    ):
        read_loads("expert-loads", {"layer": 3})
    for array in (np.zeros((2, 2, 2)), np.zeros(0), np.array(["a", "b"])):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(InputError, match=r"must hold numbers of shape \(E,\) or \(recordings, E\)"):
            read_loads(tmp_path / "bad.npy")
    (tmp_path / "bytes.csv").write_bytes(b"expert,count\n\xff,1\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_loads(tmp_path / "bytes.csv")


def test_rows_of_numbers(tmp_path):
    expected = [[1.0, 2.5], [-np.inf, 4.0]]
    assert read_csv_rows(file(tmp_path, "1,2.5\n\n-inf, 4\n")).tolist() == expected
    assert read_csv_rows(file(tmp_path, "a,b\n1,2.5\n-inf,4\n")).tolist() == expected
    for text, message in (
        ("", "holds no numbers"),
        ("a,b\n", "holds no numbers"),
        ("a,b\nc,d\n", "line 2: column 1 must be a number, got 'c'"),
        ("1,2\n3,x\n", "line 2: column 2 must be a number, got 'x'"),
        ("1,2\n3,\n", "line 2: column 2 must be a number, got ''"),
        ("1,2\n3\n", "line 2: expected 2 columns, got 1"),
    ):
        with pytest.raises(InputError, match=message):
            read_csv_rows(file(tmp_path, text))
