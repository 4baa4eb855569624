"""Files in the spool are complete or absent, never overwritten, and named without patient data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.errors import SpoolError
from agent.intake.spool import Placed, Refused, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    return Spool(tmp_path / "spool")


def temporary(spool: Spool, content: bytes = b"data", name: str = "a.part") -> Path:
    """A finished temporary file."""
    path = spool.incoming / name
    path.write_bytes(content)
    return path


def test_a_file_is_placed_by_its_uids(spool: Spool):
    """Study/series/instance.dcm, the temporary file gone."""
    source = temporary(spool)
    placed = spool.place(source, "1.2", "3.4", "5.6")

    assert placed == Placed("1.2/3.4/5.6.dcm", is_new=True)
    assert (spool.root / placed.path).read_bytes() == b"data"
    assert not source.exists()


def test_the_same_bytes_are_a_no_op(spool: Spool):
    """The second file is recognized by its content and dropped."""
    spool.place(temporary(spool), "1.2", "3.4", "5.6")
    placed = spool.place(temporary(spool), "1.2", "3.4", "5.6")

    assert placed == Placed("1.2/3.4/5.6.dcm", is_new=False)
    assert len(spool.files_of("1.2")) == 1


def test_other_bytes_get_another_name(spool: Spool):
    """Nothing is overwritten; each version is found again."""
    contents = [b"data", b"date", b"longer", b"date"]
    placed = [spool.place(temporary(spool, c), "1.2", "3.4", "5.6") for c in contents]

    assert [p.path.rpartition("/")[2] for p in placed] == [
        "5.6.dcm",
        "5.6.v1.dcm",
        "5.6.v2.dcm",
        "5.6.v1.dcm",
    ]
    assert [p.is_new for p in placed] == [True, True, True, False]
    assert (spool.root / placed[0].path).read_bytes() == b"data"


@pytest.mark.parametrize("uid", ["../../etc", "Doe^John", "", "..", "1.2/3", "1.2\0"])
def test_unusual_uids_stay_inside_and_say_nothing(spool: Spool, uid: str):
    """Path characters and names become a hash."""
    placed = spool.place(temporary(spool), uid, uid, uid)

    target = (spool.root / placed.path).resolve()
    assert target.is_relative_to(spool.root.resolve())
    assert "Doe" not in placed.path
    assert len(Path(placed.path).parts) == 3


def test_the_bytes_are_synced_before_the_name_and_the_name_before_success(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
):
    """fsync(file), link, fsync(directory and the new ones above): the order of durability."""
    order: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        order.append("sync " + Path(f"/proc/self/fd/{fd}").readlink().name)
        real_fsync(fd)

    def link(source: Path, target: str) -> None:
        real_link(source, target)
        order.append(f"link {Path(target).name}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    placed = spool.place(temporary(spool), "1.2", "3.4", "5.6")
    spool.sync([placed.path])
    first, order[:] = list(order), []
    spool.sync([spool.place(temporary(spool), "1.2", "3.4", "5.7").path])

    assert first[:2] == ["sync a.part", "link 5.6.dcm"]
    assert set(first[2:]) == {"sync 3.4", "sync 1.2", "sync spool"}
    assert order == ["sync a.part", "link 5.7.dcm", "sync 3.4"]


def test_a_directory_made_again_is_synced_again(spool: Spool, monkeypatch: pytest.MonkeyPatch):
    """Retention removed it; its name is no longer durable."""
    placed = spool.place(temporary(spool), "1.2", "3.4", "5.6")
    spool.sync([placed.path])
    target = spool.root / placed.path
    target.unlink()
    target.parent.rmdir()
    target.parent.parent.rmdir()
    synced: list[Path] = []
    spool.place(temporary(spool), "1.2", "3.4", "5.6")
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), real(fd))
    )
    spool.sync([placed.path])

    assert spool.root in synced


def test_quarantine_keeps_the_file_and_the_reason(spool: Spool):
    """A JSON beside the file says why, without patient data."""
    why = Refused("0xC001", "no", "1", "2", "3", "SCANNER", "127.0.0.1", "2026")
    spool.refuse(temporary(spool), why)

    assert (spool.quarantine / "a.dcm").read_bytes() == b"data"
    assert json.loads((spool.quarantine / "a.json").read_text())["status"] == "0xC001"


def test_sweep_removes_what_is_old_enough(spool: Spool):
    """Interrupted transfers go, running ones stay."""
    old, young = temporary(spool, name="old.part"), temporary(spool, name="young.part")
    os.utime(old, (1000, 1000))
    os.utime(young, (2000, 2000))

    assert spool.sweep(spool.incoming, older_than_s=500, now_s=2100) == 1
    assert [path.name for path in spool.incoming.iterdir()] == ["young.part"]


def test_only_the_owner_may_read(spool: Spool):
    """The spool holds patient data: directories are 0700, files 0600 by their writer."""
    placed = spool.place(temporary(spool), "1.2", "3.4", "5.6")

    for directory in (spool.incoming, spool.quarantine, (spool.root / placed.path).parent):
        assert directory.stat().st_mode & 0o077 == 0


def test_an_impossible_directory_is_named_with_its_setting(tmp_path: Path):
    """The error says what to check."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match="data_dir"):
        Spool(tmp_path / "file" / "spool")
