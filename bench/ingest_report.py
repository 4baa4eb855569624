"""The tables of the ingest benchmark, and each target with what was reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """A promise about ours: at least (or at most) so much, perhaps in relation to a peer."""

    text: str
    cell: str
    at_least: float
    peer: str


INTRODUCTION = """# Ingest benchmark

C-STORE receive beside Orthanc, DCMTK's `storescp` and pynetdicom's own application. Written by
`python -m bench.ingest --markdown docs/benchmarks-ingest.md`; how it measures stands in
[bench/README.md](../bench/README.md).

Before it says success, this agent syncs file and directory and commits the index. Orthanc syncs the
file only; `storescp` and pynetdicom sync and index nothing. *shipped* sets nothing: DCMTK and
Orthanc leave Nagle's algorithm on, as in hospitals. *nodelay* sets `TCP_NODELAY=1` for sender and
receiver. A sync waits for the disk and then for a free core: on a loaded machine one association's
rate is the number of syncs, three of ours to one of Orthanc's, times that wait.
"""

TARGETS = (
    Target("CT, 8 associations, as shipped", "CT 8 shipped", 3.0, "orthanc"),
    Target("CT, 1 association, as shipped", "CT 1 shipped", 8.0, "orthanc"),
    Target("CT, 8 associations, nodelay", "CT 8 nodelay", 1.3, "orthanc"),
    Target("CT, 1 association, nodelay", "CT 1 nodelay", 2.0, "orthanc"),
    Target("MR, 8 associations, nodelay", "MR 8 nodelay", 1.2, "orthanc"),
)
MAX_CPU_S_PER_GB, MAX_MORE_MIB = 4.5, 128.0
MAX_SETUP_MS = {1: 3.0, 128: 10.0}


def document(results: dict[str, Any]) -> str:
    """Return everything as a Markdown page: targets first, then the tables."""
    return "\n".join(
        (
            INTRODUCTION,
            *_environment(results["environment"]),
            *_targets(results),
            *_multiframe(results["multiframe"]),
            *_setup(results["association_setup"]),
            *_throughput(results),
        )
    )


def _environment(env: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Measured {env['date']}: {env['cores']} cores (sender and receiver share them), kernel "
        f"{env['kernel']}, Python {env['python']}, {env['dcmtk']}, {env['orthanc']}, TCP "
        f"{env['congestion_control']} over loopback; medians of {env['repeats']}, interleaved; "
        f"machine load {env['load_before']:.1f} before and {env['load_after']:.1f} after the run; "
        f"fdatasync of 8 KB {env['sync_ms'][0]:.2f} ms before and {env['sync_ms'][1]:.2f} ms "
        f"after; {env['took_s']} s in all."
    )


def _throughput(results: dict[str, Any]) -> Iterator[str]:
    for cell in results["cells"]:
        yield ""
        yield f"## {cell['modality']}, {cell['associations']} associations, {cell['tcp']}"
        yield ""
        yield "| receiver | images/s | range | MB/s | receiver CPU s/GB | vs Orthanc |"
        yield "|---|--:|--:|--:|--:|--:|"
        base = _median(results, cell["name"], "orthanc", "images_per_s")
        for receiver in cell["receivers"]:
            rates = _values(results, cell["name"], receiver, "images_per_s")
            megabytes = _median(results, cell["name"], receiver, "mb_per_s")
            cpu = _median(results, cell["name"], receiver, "cpu_s_per_gb")
            rate = statistics.median(rates)
            yield (
                f"| {receiver} | {rate:.0f} | {min(rates):.0f}-{max(rates):.0f} "
                f"| {megabytes:.0f} | {cpu:.1f} | {rate / base:.2f} |"
            )


def _multiframe(memory: dict[str, dict[str, float]]) -> Iterator[str]:
    yield from ("", "## One instance of 419 MB (multi-frame)", "")
    yield "| receiver | seconds | more memory MiB | peak memory MiB |"
    yield "|---|--:|--:|--:|"
    for name, found in memory.items():
        yield (
            f"| {name} | {found['seconds']:.2f} | {found['more_mib']:.0f} "
            f"| {found['peak_mib']:.0f} |"
        )


def _setup(setup: dict[str, dict[str, float]]) -> Iterator[str]:
    yield from ("", "## Association setup and release, one after the other", "")
    yield "| receiver | 1 context: wall ms | CPU ms | 128 contexts: wall ms | CPU ms |"
    yield "|---|--:|--:|--:|--:|"
    for name, found in setup.items():
        yield (
            f"| {name} | {found['wall_ms_1']:.1f} | {found['cpu_ms_1']:.1f} "
            f"| {found['wall_ms_128']:.1f} | {found['cpu_ms_128']:.1f} |"
        )


def _targets(results: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Targets", "", "| target | wanted | measured | |", "|---|--:|--:|---|")
    measured = {cell["name"] for cell in results["cells"]}
    for target in TARGETS:
        if target.cell not in measured:
            continue
        mine = _median(results, target.cell, "ours", "images_per_s")
        ratio = mine / _median(results, target.cell, target.peer, "images_per_s")
        yield _line(
            f"{target.text}: ratio to Orthanc",
            f"≥ {target.at_least}",
            ratio,
            reached=ratio >= target.at_least,
        )
    if "CT 8 nodelay" in measured:
        cpu = _median(results, "CT 8 nodelay", "ours", "cpu_s_per_gb")
        yield _line(
            "CT, 8 associations, nodelay: CPU s/GB",
            f"≤ {MAX_CPU_S_PER_GB}",
            cpu,
            reached=cpu <= MAX_CPU_S_PER_GB,
        )
    more = results["multiframe"]["ours"]["more_mib"]
    yield _line(
        "419 MB multi-frame: more memory, MiB",
        f"≤ {MAX_MORE_MIB:.0f}",
        more,
        reached=more <= MAX_MORE_MIB,
    )
    for contexts, limit in MAX_SETUP_MS.items():
        took = results["association_setup"]["ours"][f"wall_ms_{contexts}"]
        yield _line(
            f"association setup, {contexts} contexts: wall ms",
            f"≤ {limit:.0f}",
            took,
            reached=took <= limit,
        )


def _line(text: str, wanted: str, measured: float, *, reached: bool) -> str:
    return f"| {text} | {wanted} | {measured:.2f} | {'reached' if reached else '**missed**'} |"


def _values(results: dict[str, Any], cell: str, receiver: str, key: str) -> list[float]:
    return [
        run[key] for run in results["runs"] if run["cell"] == cell and run["receiver"] == receiver
    ]


def _median(results: dict[str, Any], cell: str, receiver: str, key: str) -> float:
    return statistics.median(_values(results, cell, receiver, key))
