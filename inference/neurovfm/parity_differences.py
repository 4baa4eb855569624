"""Where this implementation of NeuroVFM parts from the reference on purpose."""

from __future__ import annotations

from inference.parity.rows import Chapter, Difference

ALWAYS = (
    Difference(
        "Whole CT values below -800 HU",
        "as ITK's order of additions truncates them",
        "may be 1 HU off where the volume is resampled",
        "no window and no mask tells them apart: the tokens are the same bits, in less time",
    ),
    Difference(
        "Normalisation",
        "writes into the caller's batch: a second `embed` normalises twice",
        "leaves the batch as it was",
        "the same call must give the same answer",
    ),
    Difference(
        "Loading weights",
        "`strict=False`: keys that do not fit are skipped in silence",
        "every missing, unexpected or mis-shaped key is an error that names it; no pickled code",
        "a half-loaded model gives numbers that look like findings",
    ),
    Difference(
        "`use_amp=False`",
        "fails: float32 activations meet bfloat16 weights",
        "float32 throughout, attention weights rounded to bfloat16 as they are meant",
        "a CPU needs float32; the golden set rounds in the same way",
    ),
    Difference(
        "`aggregate_then_classify` heads",
        "cannot be loaded by the official pipeline",
        "load and pool; `predict` says that such a head has no classifier",
        "the layout is published",
    ),
    Difference(
        "Volumes that crop to nothing",
        "fewer than 4 slices or one short side fail the whole study",
        "the volume is skipped with its reason, the rest of the study is read",
        "one bad series must not cost a study",
    ),
    Difference(
        "Directory of loose DICOM slices",
        "every slice is a volume of its own, which fails",
        "slices are gathered into their series; multi-frame files stay volumes",
        "it is what such a directory means",
    ),
    Difference(
        "Label names",
        'chosen by "mri" or "ct" anywhere in the path ("/project/" holds "ct")',
        "explicit, from the configuration or by the number of outputs (82 CT, 74 MRI)",
        "a folder's name must not decide what a finding is called",
    ),
    Difference(
        "Token coordinates outside the position grid",
        "read another row of the table",
        "refused",
        "a wrong position is a wrong answer without a trace",
    ),
    Difference(
        "Background kept, masks given",
        "statistics are applied by the bounds of the filtered tokens to unfiltered ones",
        "tokens are filtered first, then normalised",
        "each token gets the statistics of its own series",
    ),
    Difference(
        "Modality names",
        'only "ct" and "mri" can be embedded',
        "any case, and DICOM's MR",
        "a PACS writes CT and MR",
    ),
)

SAFE = (
    Difference(
        "Slice axis",
        "the smallest side length that occurs once; none of it when all sides are equal",
        "the direction of acquisition; top to bottom for isotropic volumes, as the reference",
        "the reference cuts 52 x 44 x 64 voxels along the wrong axis and skips equal sides",
    ),
    Difference(
        "Samples beyond the last slice",
        "0, which is soft tissue in a CT (slices thicker than 8 mm)",
        "air (-1000 HU) for CT, the darkest voxel for MR",
        "an invented slab of tissue is foreground to the model",
    ),
    Difference(
        "Constant volumes",
        "become a series without tokens",
        "skipped with that reason",
        "the reader is told what was not read",
    ),
    Difference(
        "Volumes without a foreground token",
        "become a series without tokens",
        "skipped with that reason",
        "the reader is told what was not read",
    ),
    Difference(
        "NaN and infinite voxels",
        "spread through percentiles and interpolation",
        "refused",
        "the findings would mean nothing",
    ),
    Difference(
        "Side lengths",
        "`int(size * spacing / target)` as floats fall",
        "the same with 1e-6 voxel of slack",
        "spacings worked out from positions miss whole numbers by rounding",
    ),
)

CHAPTERS = (
    Chapter("NeuroVFM: where we differ on purpose, always", "", ALWAYS),
    Chapter(
        "NeuroVFM: where the agent's own path differs (`safe` rules)",
        'The official interface keeps the reference\'s rules unless `rules="safe"` is asked for.',
        SAFE,
    ),
)
