"""Training data: tables, splits without leaks, a cache that survives a kill, honest variations."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
from factories import dicom
from factories.training import series, token_cache
from hypothesis import given
from hypothesis import strategies as st

from inference.neurovfm.tokens import CT_WINDOWS, tokenize
from training.data import splits
from training.data.build import build_cache
from training.data.errors import DataError
from training.data.sampling import (
    Augmentation,
    Batching,
    Sampler,
    SeriesSample,
    prefetch,
    read_sample,
    vary,
)
from training.data.shards import Cache, CacheWriter, read_index, shard_path
from training.data.splits import Split, SplitRules, split_studies
from training.data.table import StudyRow, read_table, write_table

DAY = dt.date(2024, 6, 1)


def row(study: str, patient: str = "p", date: dt.date | None = None, split: str = "") -> StudyRow:
    """A row with nothing but what splits look at."""
    return StudyRow(study, Path(), patient, date=date, split=split)


def test_a_table_reads_back_as_written(tmp_path: Path) -> None:
    """Labels keep present, absent and unknown apart."""
    rows = [
        StudyRow("1.2", tmp_path / "a", "p1", "MR", DAY, "F", 61.0, "S", "A", "Text, with comma."),
        StudyRow("1.3", tmp_path / "b", "p2", labels={"bleed": 1, "normal": 0}),
    ]
    write_table(tmp_path / "t.csv", rows)

    assert read_table(tmp_path / "t.csv") == rows


def test_parquet_gives_the_same_rows_as_csv(tmp_path: Path) -> None:
    """A missing value is unknown in both."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table(
        {
            "study": ["1"],
            "path": ["a"],
            "patient": ["p"],
            "date": [DAY],
            "bleed": [1.0],
            "tumor": pa.array([None], pa.float64()),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    (read,) = read_table(tmp_path / "t.parquet")

    assert (read.date, dict(read.labels), read.path) == (DAY, {"bleed": 1}, tmp_path / "a")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,a,,MR,,1", "'patient' is missing"),
        ("1,a,p,XR,,1", "'XR' is not CT or MR"),
        ("1,a,p,MR,1.1.2020,1", "is not YYYY-MM-DD"),
        ("1,a,p,MR,,maybe", "bleed is 'maybe'"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, line: str, said: str) -> None:
    """With its line."""
    (tmp_path / "t.csv").write_text(f"study,path,patient,modality,date,bleed\n{line}\n")
    with pytest.raises(DataError, match=said) as failed:
        read_table(tmp_path / "t.csv")
    assert "line 2" in str(failed.value)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(-400, 400)), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_no_patient_is_in_two_sets(studies: list[tuple[int, int]], seed: int) -> None:
    """Whatever the dates; and nothing of the prospective set is older than its first day."""
    rows = [row(str(i), f"p{p}", DAY + dt.timedelta(days=d)) for i, (p, d) in enumerate(studies)]
    made = split_studies(rows, SplitRules(DAY, 0.3, seed))
    taking_part = [(r.patient, made[r.study]) for r in rows if made[r.study] != Split.LEFT_OUT]

    assert len({p for p, _ in taking_part}) == len(set(taking_part))
    for one in rows:
        assert (made[one.study] == Split.PROSPECTIVE) <= (one.date >= DAY)


def test_more_studies_move_no_patient() -> None:
    """The division is a function of the pseudonym."""
    few = [row(f"s{i}", f"p{i}") for i in range(50)]
    more = few + [row(f"t{i}", f"q{i}") for i in range(50)]
    rules = SplitRules(validation_share=0.2)
    whole = split_studies(more, rules)

    assert {k: whole[k] for k in split_studies(few, rules)} == split_studies(few, rules)
    assert 10 <= sum(v == Split.VALIDATION for v in whole.values()) <= 32


def test_a_table_that_leaks_is_refused_without_naming_the_patient() -> None:
    """A fixed split across one patient."""
    rows = [row("a", "MRN77", split="train"), row("b", "MRN77", split="prospective")]
    with pytest.raises(DataError, match="several sets") as failed:
        split_studies(rows, SplitRules())
    assert "MRN77" not in str(failed.value)
    with pytest.raises(DataError, match="have no date"):
        split_studies([row("a")], SplitRules(DAY))
    assert splits.Split("train") is Split.TRAIN


def test_a_cache_reads_back_the_tokens_of_a_volume(tmp_path: Path) -> None:
    """NIfTI and DICOM files, from a table, in two processes; a bad study says why."""
    rng = np.random.default_rng(5)
    values = np.zeros((16, 64, 64), np.int16)
    values[:, 12:52, 12:52] = rng.integers(90, 110, (16, 40, 40))
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.0, 1.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "one.nii.gz"))
    dicom.study_dir(tmp_path / "two", dicom.ct_series())
    (tmp_path / "three").mkdir()
    rows = [
        StudyRow("1", tmp_path / "one.nii.gz", "p1", "MR"),
        StudyRow("2", tmp_path / "two", "p2"),
        StudyRow("3", tmp_path / "three", "p3"),
    ]
    told: list[int] = []
    report = build_cache(rows, tmp_path / "c", 2, lambda done, of, left: told.append(done))
    cache = Cache(tmp_path / "c")

    assert (report.stored, report.known, list(report.refused)) == (2, 0, ["3"])
    assert told == [1, 2, 3]
    assert [s.window for s in cache.studies["2"].series] == [w.value for w in CT_WINDOWS]
    (stored,) = cache.studies["1"].series
    assert cache.tokens(stored).shape == (stored.count, 1024)
    again = build_cache(rows, tmp_path / "c", 1)
    assert (again.stored, again.known) == (0, 3)


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    """Bytes behind the last indexed study and a torn line are cut off."""
    writer = CacheWriter(tmp_path)
    writer.add("a", series("va", "MR", 1))
    writer.close()
    for kind in ("tokens", "coords"):
        with shard_path(tmp_path, 0, kind).open("ab") as file:
            file.write(b"torn")
    with (tmp_path / "index.jsonl").open("ab") as file:
        file.write(b'{"study": "b", "ser')
    writer = CacheWriter(tmp_path)
    writer.add("b", series("vb", "MR", 2))
    writer.close()
    cache = Cache(tmp_path)
    (stored,) = cache.studies["b"].series

    assert [study.study for study in read_index(tmp_path)] == ["a", "b"]
    assert np.array_equal(cache.tokens(stored), series("vb", "MR", 2)[0].tokens)
    assert np.array_equal(cache.coords(stored), series("vb", "MR", 2)[0].coords)


def test_a_full_shard_is_followed_by_another(tmp_path: Path) -> None:
    """Series are never cut."""
    writer = CacheWriter(tmp_path, shard_tokens=100)
    for number in range(4):
        writer.add(str(number), series("v", "MR", number))
    writer.close()
    cache = Cache(tmp_path)
    made = [cache.studies[str(n)].series[0] for n in range(4)]

    assert len({one.shard for one in made}) > 1
    for number, one in enumerate(made):
        assert np.array_equal(cache.tokens(one), series("v", "MR", number)[0].tokens)


def test_an_epoch_shows_one_window_of_every_volume(tmp_path: Path) -> None:
    """Each volume once, over all processes together, in another order each epoch."""
    cache = token_cache(tmp_path, studies=8)
    studies = list(cache.studies.values())
    parts = [
        Sampler(studies, Batching(series=2, rank=rank, world=2), seed=3).epoch(0) for rank in (0, 1)
    ]
    drawn = [one.name.rpartition("_")[0] for part in parts for batch in part for one in batch]

    assert sorted(drawn) == [f"v{n}" for n in range(8)]
    assert [len(part) for part in parts] == [2, 2]
    one = Sampler(studies, Batching(series=2), seed=3)
    assert one.epoch(0) == one.epoch(0) != one.epoch(1)


def test_a_varied_volume_is_the_varied_image() -> None:
    """Mirroring tokens, coordinates and grid is tokenizing the mirrored volume."""
    volume = np.random.default_rng(0).random((8, 48, 32)) * 100 + 5

    def sample(values: np.ndarray) -> SeriesSample:
        (made,) = tokenize(values, "MR", remove_background=False)
        return SeriesSample(made.tokens, made.coords, made.grid, made.window.value, "mri")

    always = Augmentation(swap=1.0, flip=(1.0, 0.0, 1.0))
    varied = vary(sample(volume), always, np.random.default_rng(1))
    wanted = sample(np.flip(volume.swapaxes(1, 2), (0, 2)).copy())

    assert varied.grid == wanted.grid
    assert np.array_equal(varied.coords, wanted.coords)
    assert np.allclose(varied.tokens, wanted.tokens, atol=1e-6)


def test_a_sample_is_what_the_cache_holds_divided_by_255(tmp_path: Path) -> None:
    """And its foreground mask has one cell a token."""
    cache = token_cache(tmp_path, studies=1)
    (stored,) = cache.studies["s0"].series
    sample = read_sample(cache, stored)

    assert np.array_equal(sample.tokens * 255, cache.tokens(stored))
    assert sample.foreground.sum() == stored.count


def test_prefetching_keeps_order_and_raises_what_was_raised() -> None:
    """Items in order; an error of the maker reaches the user."""
    assert list(prefetch(range(7))) == list(range(7))

    def broken() -> object:
        yield 1
        raise DataError("gone")

    with pytest.raises(DataError, match="gone"):
        list(prefetch(broken()))
