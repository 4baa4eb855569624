"""Composing: order, switches, repeatability, and a report that no picture can hold up."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Never

import pytest
from factories import result_cases

from agent.errors import ComposeError
from agent.results import compose, registry
from agent.results.context import KINDS, ComposedObject, ResultContext


def test_the_report_comes_first(context: ResultContext):
    """Routing rules read the SR, so it is delivered before what it refers to."""
    assert [made.kind for made in compose.compose(context)] == ["sr", "sc", "seg", "pm"]


@pytest.mark.parametrize("left_out", KINDS)
def test_every_kind_can_be_switched_off(left_out: str, context: ResultContext):
    """The context's options, or the argument, say which kinds are made."""
    kinds = tuple(kind for kind in KINDS if kind != left_out)
    options = dataclasses.replace(context.options, kinds=kinds)

    by_option = compose.compose(dataclasses.replace(context, options=options))
    by_argument = compose.compose(context, kinds)

    assert list(kinds) == [made.kind for made in by_option]
    assert list(kinds) == [made.kind for made in by_argument]


def test_an_unknown_kind_is_refused_with_the_known_ones(context: ResultContext):
    """A typing error in the configuration does not silently drop an object."""
    with pytest.raises(ComposeError, match="known kinds: pm, sc, seg, sr"):
        compose.compose(context, ["sr", "pdf"])


@pytest.mark.parametrize("case", ["axial_ct", "enhanced_mr", "second_revision", "failed"])
def test_repeating_gives_the_same_bytes(case: str, tmp_path: Path):
    """A retry writes what the first try wrote, so a destination sees one object."""
    context = result_cases.CASES[case](tmp_path / "source")

    first = compose.compose_files(context, tmp_path / "first")
    second = compose.compose_files(context, tmp_path / "second")

    assert [path.name for _, path in first] == [path.name for _, path in second]
    for (_, one), (_, other) in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_another_process_gives_the_same_bytes(tmp_path: Path):
    """Neither the clock, the hash seed, the time zone nor the process enters the files."""
    folder = tmp_path / "source"
    context = result_cases.axial_ct(folder)
    here = compose.compose_files(context, tmp_path / "here")
    script = textwrap.dedent(f"""
        from pathlib import Path
        from factories import result_cases
        from agent.results import compose
        context = result_cases.axial_ct(Path({str(folder)!r}))
        compose.compose_files(context, Path({str(tmp_path / "there")!r}))
    """)
    root = Path(__file__).resolve().parents[4]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}",
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
    }
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)

    for _, path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


def test_writing_one_by_one_equals_writing_all(context: ResultContext, tmp_path: Path):
    """The memory-saving way gives the same files in the same order."""
    objects = compose.compose(context)
    paths = compose.write(objects, tmp_path / "all")

    one_by_one = compose.compose_files(context, tmp_path / "one")

    assert [p.name for p in paths] == [p.name for _, p in one_by_one]
    assert [o.sop_uid for o in objects] == [o.sop_uid for o, _ in one_by_one]
    assert all(made.dataset is None for made, _ in one_by_one)
    for path, (_, other) in zip(paths, one_by_one, strict=True):
        assert path.read_bytes() == other.read_bytes()


def test_files_are_named_by_their_uid_and_nothing_else_is_left(
    context: ResultContext, tmp_path: Path
):
    """No temporary file remains, and writing again replaces."""
    objects = compose.compose(context, ["sr", "seg"])
    compose.write(objects, tmp_path / "out")
    compose.write(objects, tmp_path / "out")

    assert {f"{o.sop_uid}.dcm" for o in objects} == {p.name for p in (tmp_path / "out").iterdir()}


def test_a_fault_in_a_picture_does_not_hold_back_the_report(
    context: ResultContext, monkeypatch: pytest.MonkeyPatch
):
    """An optional kind that cannot be made is left out."""
    real = registry.composer

    def broken(kind: str) -> registry.Composer:
        def fail(_material: object, _made: object) -> Never:
            raise ValueError("no such code")

        return fail if kind in ("sc", "pm") else real(kind)

    monkeypatch.setattr(registry, "composer", broken)

    assert [made.kind for made in compose.compose(context)] == ["sr", "seg"]


def test_a_fault_in_the_report_is_a_compose_error_without_content(
    context: ResultContext, monkeypatch: pytest.MonkeyPatch
):
    """A library's message may quote the header, so only its type is passed on."""

    def broken(_kind: str) -> registry.Composer:
        def fail(_material: object, _made: object) -> Never:
            raise ValueError("Test^Patient1")

        return fail

    monkeypatch.setattr(registry, "composer", broken)

    with pytest.raises(ComposeError, match="ValueError") as caught:
        compose.compose(context, ["sr"])
    assert "Patient1" not in str(caught.value)


def test_a_source_larger_than_the_limit_gets_the_report_alone(context: ResultContext):
    """`max_frames` bounds what a SEG or map can weigh."""
    options = dataclasses.replace(context.options, max_frames=8)
    made = compose.compose(dataclasses.replace(context, options=options))

    assert [one.kind for one in made] == ["sr", "sc"]


def test_source_files_are_never_changed(context: ResultContext, tmp_path: Path):
    """Composing reads the spool and writes elsewhere."""
    files = context.sources[0].files
    before = [path.read_bytes() for path in files]

    compose.compose_files(context, tmp_path / "out")

    assert before == [path.read_bytes() for path in files]


def test_an_unreadable_source_file_is_passed_over(context: ResultContext, tmp_path: Path):
    """A damaged file among the sources costs that file, not the report."""
    damaged = tmp_path / "0.dcm"
    damaged.write_bytes(b"not dicom")
    source = dataclasses.replace(
        context.sources[0], files=(damaged, *context.sources[0].files, tmp_path / "gone.dcm")
    )

    made = compose.compose(dataclasses.replace(context, sources=(source,)))

    assert [one.kind for one in made] == ["sr", "sc", "seg", "pm"]


def test_one_dataset_at_a_time_is_held(
    context: ResultContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Masks and maps of many findings never lie in memory together."""
    located = context.findings.findings[0]
    found = tuple(dataclasses.replace(located, label=f"label{n}") for n in range(3))
    many = dataclasses.replace(
        context, findings=dataclasses.replace(context.findings, findings=found)
    )
    write, held = compose.write, []
    alive_at_write = []

    def observe(objects: list[ComposedObject], directory: Path) -> list[Path]:
        gc.collect()
        alive_at_write.append(sum(reference() is not None for reference in held))
        held.append(weakref.ref(objects[0].dataset))
        return write(objects, directory)

    monkeypatch.setattr(compose, "write", observe)
    compose.compose_files(many, tmp_path / "out", ["seg", "pm"])

    assert len(held) == 6
    assert max(alive_at_write) <= 1
