"""NeuroVFM inference beside the reference's algorithm, in one run, on the same weights and input.

    python bench/neurovfm.py [--series 1 4 12] [--depth 12] [--scale 1.0] [--json FILE]

The reference's algorithm is re-created here from its description: padded attention that forms every
L x L score matrix with a mask, a pooler that loops over classes, and preprocessing that windows and
cuts whole volumes in float64. Each measurement runs in a process of its own, so that peak memory is
its own; ours and theirs take turns, and the table shows medians. All layers of the encoder are
alike: fewer of them (--depth) shorten the run and change neither ratio nor peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import neurovfm_inputs
import neurovfm_reference
from neurovfm_inputs import HEADS, LABELS, VOLUMES, WIDTH

from inference.neurovfm import preprocess
from inference.neurovfm.batching import embed
from inference.neurovfm.tokens import normalise

MIB = 1024 * 1024


def main() -> None:
    arguments = _arguments()
    results = []
    if "encoder" in arguments.parts:
        results += [_encoder(count, arguments) for count in arguments.series]
    if "pooler" in arguments.parts:
        results.append(_pooler(arguments))
    if "preprocessing" in arguments.parts:
        results += _preprocessing(arguments)
    if torch.cuda.is_available():
        results.append(_gpu(arguments))
    _print(results)
    if arguments.json:
        made = {"results": results, "machine": platform.machine(), "torch": torch.__version__}
        made |= {"threads": torch.get_num_threads(), "load": os.getloadavg()}
        arguments.json.write_text(json.dumps(made, indent=1), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--depth", type=int, default=12, help="layers of the encoder")
    parser.add_argument("--scale", type=float, default=1.0, help="share of 1500-4000 tokens")
    parser.add_argument("--parts", nargs="+", default=["encoder", "pooler", "preprocessing"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# --- the encoder --------------------------------------------------------------------------------


def _encoder(count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    lengths = neurovfm_inputs.lengths(count, arguments.scale)
    options = (lengths, arguments.depth)
    name = f"encoder, {count} series, {sum(lengths)} tokens"
    needed = count * HEADS * max(lengths) ** 2 * 4 * 3
    if needed > _available_bytes() * 0.8:
        ours = [_apart(_ours_encoder, *options) for _ in range(arguments.rounds)]
        reason = f"not run: its score matrices alone need {needed / MIB:.0f} MiB"
        return _result(name, ours, None, reason)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(_apart(_ours_encoder, *options))
        theirs.append(_apart(_their_encoder, *options))
    return _result(name, ours, theirs)


def _ours_encoder(lengths: tuple[int, ...], depth: int) -> dict[str, float]:
    model, packed = neurovfm_inputs.study(lengths, depth)
    return _timed(lambda: embed(model, packed))


def _their_encoder(lengths: tuple[int, ...], depth: int) -> dict[str, float]:
    model, packed = neurovfm_inputs.study(lengths, depth)
    for block in model.blocks:
        block.mixer = neurovfm_reference.PaddedAttention(block.mixer, lengths)  # type: ignore[arg-type,assignment]
    edges = torch.tensor([0, *lengths]).cumsum(0)

    def run() -> Tensor:
        with torch.inference_mode():
            tokens = packed.tokens.clone()
            parts = zip(tokens.split(list(lengths)), packed.windows, strict=True)
            normal = torch.cat([normalise(part, window) for part, window in parts])
            return model(normal, packed.coords, edges)

    return _timed(run)


# --- the pooler ---------------------------------------------------------------------------------


def _pooler(arguments: argparse.Namespace) -> dict[str, Any]:
    tokens = int(33_000 * arguments.scale)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(_apart(_ours_pooler, tokens))
        theirs.append(_apart(_their_pooler, tokens))
    return _result(f"pooler, {tokens} tokens, {LABELS} labels", ours, theirs)


def _ours_pooler(tokens: int) -> dict[str, float]:
    head, x = neurovfm_inputs.head(tokens)
    return _timed(lambda: head(x, torch.tensor([0, tokens])).logits)


def _their_pooler(tokens: int) -> dict[str, float]:
    head, x = neurovfm_inputs.head(tokens)

    return _timed(lambda: neurovfm_reference.pool(head, x, LABELS))


# --- preprocessing ------------------------------------------------------------------------------


def _preprocessing(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for name in VOLUMES:
        ours, theirs, spline = [], [], []
        for _ in range(arguments.rounds):
            ours.append(_apart(_ours_preprocessing, name))
            theirs.append(_apart(_their_preprocessing, name))
            spline.append(_apart(_spline_alone, name))
        bound = statistics.median(run["seconds"] for run in spline)
        note = f"SimpleITK's B-spline alone takes {bound:.2f} s"
        found.append(_result(f"preprocessing, {name}", ours, theirs, note))
    return found


def _ours_preprocessing(name: str) -> dict[str, float]:
    array, affine, modality = neurovfm_inputs.volume(name)
    return _timed(lambda: preprocess.preprocess_volume(array, affine, modality, "reference"))


def _spline_alone(name: str) -> dict[str, float]:
    array, affine, _ = neurovfm_inputs.volume(name)
    image = preprocess.image_from_array(array, affine)
    return _timed(lambda: neurovfm_reference.resample(image))


def _their_preprocessing(name: str) -> dict[str, float]:
    """From a NIfTI file, as the reference has to: write it, read it, preprocess whole volumes."""
    array, affine, modality = neurovfm_inputs.volume(name)
    file = f"{tempfile.gettempdir()}/bench-neurovfm-{os.getpid()}.nii"

    def run() -> list[Tensor]:
        sitk.WriteImage(preprocess.image_from_array(array, affine), file)
        return neurovfm_reference.preprocess_file(file, modality)

    try:
        return _timed(run)
    finally:
        Path(file).unlink(missing_ok=True)


# --- a GPU, where there is one ------------------------------------------------------------------


def _gpu(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second in bfloat16 with variable-length attention, and the share of the ceiling."""
    lengths = neurovfm_inputs.lengths(12, arguments.scale)
    model, packed = neurovfm_inputs.study(lengths, arguments.depth)
    device = torch.device("cuda")
    model.to(device)
    seconds = min(
        _cuda_seconds(lambda: embed(model, packed, device=device, use_amp=True)) for _ in range(5)
    )
    size = 8192
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    ceiling = 2 * size**3 / min(_cuda_seconds(lambda: a @ a) for _ in range(5))
    layer = 2 * 12 * WIDTH * WIDTH * sum(lengths) + 4 * WIDTH * sum(n * n for n in lengths)
    share = layer * arguments.depth / seconds / ceiling
    note = f"{torch.cuda.get_device_name()}: {share:.0%} of the measured matrix-product ceiling"
    run = {"seconds": seconds, "peak_mib": torch.cuda.max_memory_allocated() / MIB}
    return _result(f"encoder on GPU, 12 series, {sum(lengths)} tokens", [run], None, note)


def _cuda_seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


# --- measuring ----------------------------------------------------------------------------------


def _apart(work: Callable[..., dict[str, float]], *options: Any) -> dict[str, float]:
    """Run in a fresh process, whose peak memory is then its own."""
    # A server process has imported everything once; its children start clean and at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "neurovfm_reference"])
    with context.Pool(1) as pool:
        return pool.apply(work, options)


def _timed(work: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds, and how far peak memory rose above where it stood."""
    before = _reset_peak_mib()
    started, used = time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "peak_mib": _peak_mib() - before,
    }


def _peak_mib() -> float:
    """Highest resident memory since the last reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _reset_peak_mib() -> float:
    """Let the kernel count the peak from here; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_mib()


def _available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _result(
    name: str,
    ours: list[dict[str, float]],
    theirs: list[dict[str, float]] | None,
    note: str = "",
) -> dict[str, Any]:
    def median(runs: list[dict[str, float]], key: str) -> float:
        return statistics.median(run.get(key, float("nan")) for run in runs)

    found: dict[str, Any] = {"name": name, "note": note}
    for key in ("seconds", "cpu_seconds", "peak_mib"):
        found[f"ours_{key}"] = median(ours, key)
        if theirs:
            found[f"theirs_{key}"] = median(theirs, key)
    return found


def _print(results: list[dict[str, Any]]) -> None:
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, {threads} threads, load {load:.1f}; medians, ours / reference"
    )
    print(f"{'':<44}{'wall s':>16}{'':>7}{'CPU s':>16}{'':>7}{'peak MiB':>14}{'share':>7}")
    for r in results:
        line = f"{r['name']:<44}"
        for key, width in (("seconds", 8.2), ("cpu_seconds", 8.2), ("peak_mib", 7.0)):
            ours, theirs = r[f"ours_{key}"], r.get(f"theirs_{key}", float("nan"))
            ratio = ours / max(theirs, 1) if key == "peak_mib" else theirs / max(ours, 1e-9)
            shown = f"{ratio:6.2f}" if key == "peak_mib" else f"{ratio:5.1f}x"
            line += f"{ours:{width}f}{theirs:{width}f} {shown}".replace("nan", "  -")
        print(f"{line}  {r['note']}")


if __name__ == "__main__":
    main()
