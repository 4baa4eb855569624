"""A pack loads only when its manifest is right, and verifies only when its files are."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inference import packs
from inference.errors import PackError
from inference.findings import Acuity, Code

FILES = (
    "encoder/config.json",
    "encoder/model.safetensors",
    "ct/config.json",
    "ct/model.safetensors",
)
BLEED = packs.Label(
    id="intracranial_hemorrhage",
    display='Intracranial "acute" hemorrhage, é',
    acuity=Acuity.URGENT,
    threshold=0.4,
    code=Code("1386000", "SCT", "Intracranial hemorrhage"),
    site=Code("12738006", "SCT", "Brain"),
    saliency_threshold=0.35,
)
ATROPHY = packs.Label(
    id="cerebral_atrophy",
    display="Atrophy",
    acuity=Acuity.ROUTINE,
    threshold=1.0,
    code=Code("278849000", "SCT", "Cerebral atrophy"),
    localized=False,
)
MANIFEST = packs.Manifest(
    name="demo-head",
    version="1.0.0",
    family="neurovfm",
    title="Demonstration",
    licence="MIT",
    notice="Research use only.\nNot for clinical use.",
    created=dt.date(2026, 11, 23),
    demonstration=True,
    encoder=packs.ModelFiles(*FILES[:2]),
    heads=(packs.Head("ct", "CT", packs.ModelFiles(*FILES[2:]), (BLEED, ATROPHY)),),
)


@pytest.fixture
def pack(tmp_path: Path):
    """A pack with made-up weights."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content of {name}")
    packs.write_manifest(tmp_path, MANIFEST)
    return tmp_path


def edit(pack: Path, old: str, new: str):
    """Replace text in the manifest."""
    path = pack / "pack.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_written_manifest_loads_as_it_was(pack: Path):
    """Everything survives the file, and files carry size and SHA-256."""
    loaded = packs.load_manifest(pack)
    assert replace(loaded, files=(), digest="") == MANIFEST
    assert {file.path for file in loaded.files} == set(FILES)
    assert all(len(file.sha256) == 64 and file.size_bytes > 0 for file in loaded.files)
    packs.verify(pack)


def test_the_digest_changes_with_any_file(pack: Path):
    """The reference that results carry identifies the exact weights."""
    before = packs.load_manifest(pack)
    (pack / FILES[3]).write_text("retrained")
    after = packs.write_manifest(pack, MANIFEST)
    assert before.digest != after.digest
    assert after.ref.digest == after.digest
    assert after.ref.notice == MANIFEST.notice


def test_heads_are_found_by_modality(pack: Path):
    """A modality without a head gives None."""
    loaded = packs.load_manifest(pack)
    head = loaded.head_for("CT")
    assert head is not None
    assert head.name == "ct"
    assert loaded.head_for("MR") is None


def test_a_missing_file_is_named(pack: Path):
    """Verification names what is gone."""
    (pack / FILES[1]).unlink()
    with pytest.raises(PackError, match=r"encoder/model\.safetensors: missing"):
        packs.verify(pack)


def test_an_altered_file_is_named(pack: Path):
    """One changed byte of equal length is found by the hash, another length by the size."""
    path = pack / FILES[2]
    original = path.read_bytes()
    path.write_bytes(original[:-1] + b"X")
    with pytest.raises(PackError, match=r"ct/config\.json: SHA-256 differs"):
        packs.verify(pack)
    path.write_bytes(original + b"X")
    with pytest.raises(PackError, match=r"ct/config\.json: \d+ bytes instead of"):
        packs.verify(pack)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "demo-head"\n', "", r"pack\.toml: name: missing"),
        ("format = 1", "format = 2", r"format: 2 is not 1"),
        ("format = 1", "format = 1\ncolour = 1", r"colour: unknown key"),
        ("threshold = 0.4", "threshold = 1.4", r"heads\[0\]\.labels\[0\]\.threshold: 1.4"),
        ("threshold = 0.4", "threshold = true", r"labels\[0\]\.threshold: True is not a valid"),
        ('acuity = "urgent"', 'acuity = "soon"', r"acuity: 'soon' is none of urgent, routine"),
        ('modality = "CT"', 'modality = "US"', r"heads\[0\]\.modality: 'US' is none of CT, MR"),
        ('scheme = "SCT", ', "", r"labels\[0\]\.code\.scheme: missing"),
        ('"ct/config.json"', '"../config.json"', r"not a path inside the pack"),
        ('"ct/config.json"', '"/etc/config.json"', r"not a path inside the pack"),
        ('path = "ct/config.json"', 'path = "ct/other.json"', r"ct/config\.json is used but not"),
        ('id = "cerebral_atrophy"', 'id = "intracranial_hemorrhage"', r"occurs twice"),
        ("created = 2026-11-23", 'created = "today"', r"created: 'today' is not a valid date"),
        ("[encoder]", "[encoder", r"not readable as TOML"),
        ('title = "Demonstration"', 'title = ""', r"title: '' is not a valid str"),
        (
            'modality = "CT"',
            'modality = "CT"\nkind = "guess"',
            r"heads\[0\]\.kind: 'guess' is none",
        ),
        ('modality = "CT"', 'modality = "CT"\nlevels = ["a", "b"]', r"heads\[0\]\.levels: unknown"),
        ('acuity = "urgent"', 'acuity = "urgent"\nindex = -1', r"labels\[0\]\.index: -1 is below"),
    ],
)
def test_a_wrong_key_is_named(pack: Path, old: str, new: str, message: str):
    """The error names the file, the key and what is wrong with it."""
    edit(pack, old, new)
    with pytest.raises(PackError, match=message) as caught:
        packs.load_manifest(pack)
    assert "pack.toml" in str(caught.value)
    assert caught.value.permanent


def test_a_folder_without_a_manifest_is_no_pack(tmp_path: Path):
    """The error says what is missing."""
    with pytest.raises(PackError, match=r"holds no pack\.toml"):
        packs.load_manifest(tmp_path)


def test_the_manifest_is_not_written_for_absent_weights(tmp_path: Path):
    """A pack never promises a file it does not have."""
    with pytest.raises(PackError, match="missing; write it before the manifest"):
        packs.write_manifest(tmp_path, MANIFEST)
    assert not (tmp_path / "pack.toml").exists()


def test_reading_a_manifest_loads_no_model_library():
    """The command line lists packs without importing torch."""
    code = "import sys, inference.packs; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


TWO_STAGE = replace(
    MANIFEST,
    family="prima",
    tokenizer=packs.ModelFiles("tokenizer/config.json", "tokenizer/model.safetensors"),
    heads=(
        packs.Head("diagnoses", "MR", packs.ModelFiles(*FILES[2:]), (replace(BLEED, index=3),)),
        packs.Head(
            "referral", "MR", packs.ModelFiles(*FILES[2:]), (ATROPHY,), packs.HeadKind.REFERRAL
        ),
        packs.Head(
            "priority",
            "MR",
            packs.ModelFiles(*FILES[2:]),
            labels=(),
            kind=packs.HeadKind.PRIORITY,
            levels=("none", "low", "high"),
        ),
    ),
)


@pytest.fixture
def two_stage(pack: Path):
    """A pack with a tokenizer and one head of each kind."""
    (pack / "tokenizer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (pack / "tokenizer" / name).write_text(name)
    packs.write_manifest(pack, TWO_STAGE)
    return pack


def test_tokenizer_head_kinds_levels_and_indices_survive_the_file(two_stage: Path):
    """A family with several heads per modality describes each by its kind."""
    loaded = packs.load_manifest(two_stage)
    assert replace(loaded, files=(), digest="") == TWO_STAGE
    assert loaded.head_for("MR").name == "diagnoses"
    assert loaded.head_for("MR", packs.HeadKind.PRIORITY).levels == ("none", "low", "high")
    assert "tokenizer/model.safetensors" in loaded.model_files


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["none", "low", "high"]', '["none", "low", "none"]', r"heads\[2\]\.levels: expected two"),
        ('["none", "low", "high"]', '["none"]', r"heads\[2\]\.levels: expected two"),
        ('["none", "low", "high"]', "[]", r"heads\[2\]\.levels: expected at least one"),
        (
            'kind = "referral"',
            'kind = "diagnoses"',
            r"heads\.modality: 'MR diagnoses' occurs twice",
        ),
        ("[tokenizer]", "[tokenizer]\nbits = 13", r"tokenizer\.bits: unknown key"),
    ],
)
def test_what_only_some_families_have_is_checked_too(
    two_stage: Path, old: str, new: str, message: str
):
    """Levels are named, different and at least two; kinds are unique per modality."""
    edit(two_stage, old, new)
    with pytest.raises(PackError, match=message):
        packs.load_manifest(two_stage)
