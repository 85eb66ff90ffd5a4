"""Files of rows are cut to whole rows of a checkpoint; what is missing is reported."""

from pathlib import Path

import pytest

from rl_runner.run.rows import cut_rows

HEADER, ROW = b"step,return,seed\n", rb"\d+,[^,\n]+,\d+\n"


@pytest.mark.parametrize(
    ("on_disk", "kept", "missing"),
    [
        (b"7,1.5,3\n9,2.5,4\n", b"7,1.5,3\n", None),  # a row after the checkpoint
        (b"7,1.5,3\n", b"7,1.5,3\n", None),
        (b"7,1.5,", b"", "it holds no row"),
    ],
)
def test_a_file_is_cut_to_whole_rows(tmp_path: Path, on_disk: bytes, kept: bytes, missing: str | None) -> None:
    file, said = tmp_path / "episodes.csv", []
    file.write_bytes(HEADER + on_disk)
    cut_rows(file, HEADER, ROW, len(HEADER + b"7,1.5,3\n"), 8, said.append)
    assert file.read_bytes() == HEADER + kept
    wanted = f"{file} is shorter than at the checkpoint: {missing}, what followed up to step 8 is missing"
    assert said == ([wanted] if missing else [])


@pytest.mark.parametrize("bad", [b"5,\0\0\0\0\0\n", b"5,1.5\n", b"\n", b"5,1\r.5,3,4\n"])
def test_rows_after_one_that_is_damaged_stay(tmp_path: Path, bad: bytes) -> None:
    file, said = tmp_path / "episodes.csv", []
    written = HEADER + b"3,1.0,1\n" + bad + b"7,1.5,3\n"
    file.write_bytes(written + b"9,2.5,4\n")
    cut_rows(file, HEADER, ROW, len(written), 8, said.append)
    assert file.read_bytes() == written
    assert said == [f"{file}: lines that cannot be read as rows: 1, the first is line 3"]


def test_rows_stay_where_the_header_is_damaged(tmp_path: Path) -> None:
    file, said = tmp_path / "episodes.csv", []
    file.write_bytes(b"step;return;seed\n7,1.5,3\n")
    cut_rows(file, HEADER, ROW, file.stat().st_size, 8, said.append)
    assert file.read_bytes() == b"step;return;seed\n7,1.5,3\n"
    assert said == [f"{file}: lines that cannot be read as rows: 1, the first is line 1"]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    said: list[str] = []
    cut_rows(tmp_path / "episodes.csv", HEADER, ROW, 20, 1_000, said.append)
    assert said == [f"{tmp_path}/episodes.csv is missing: it starts again, without the rows up to step 1,000"]
    assert not list(tmp_path.iterdir())
