"""Where this implementation of Prima parts from the reference on purpose."""

from __future__ import annotations

from inference.parity.rows import Chapter, Difference

ALWAYS = (
    Difference(
        "Series of 256 slices",
        "no axis counts as the thin one; a TypeError ends the run",
        "the direction of acquisition is the thin axis",
        "one series must not cost a study",
    ),
    Difference(
        "Tokens enclosed by others",
        "a KeyError ends the run as soon as a series has one (coordinates arrive as tensors)",
        "taken, after the bin that encloses them, as the code means to",
        "the golden filter cases, made without the data loader, say what is meant",
    ),
    Difference(
        "Holes in the token mask",
        "filled voxel by voxel, 21 times a series",
        "filled on the grid of tokens, with the same result",
        "blocks touch by faces exactly where their voxels do; it costs nothing",
    ),
    Difference(
        "Tokens below the foreground threshold",
        "encoded, then dropped",
        "never encoded; a token that stands twice is encoded once",
        "the tokenizer reads each token alone, so the numbers are the same",
    ),
    Difference(
        "Series that fail",
        "an unreadable one is skipped; one that fails later (colors, 256 slices, no token) ends "
        "the run",
        "each is skipped with its reason, the study goes on",
        "the reader is told what was not read",
    ),
    Difference(
        "Files against the slices' normal",
        "turned by SimpleITK after 2.5.3, upside down with the version of the golden set",
        "upside down as in the golden set, with any version (official rules only)",
        "published numbers must not depend on the version of a library",
    ),
    Difference(
        "Texts of more than 199 characters",
        "outside the position table: the run ends",
        "cut off at 199 and the end",
        "protocol names grow long where every + becomes _plus_",
    ),
    Difference(
        "Series without SeriesInstanceUID and names",
        "a random name, another one in each run",
        "`UNK-`",
        "the same study must give the same answer",
    ),
    Difference(
        "`ckpt_path` of the tokenizer missing",
        "random weights",
        "refused",
        "an answer from random weights looks like any other",
    ),
    Difference(
        "Keys of the pipeline configuration",
        "relative paths from the working directory, some from the file's",
        "beside the file, then from the working directory; unknown keys are refused by name",
        "both layouts in use are read; a typing error is told",
    ),
    Difference(
        "Loading the full checkpoint",
        "unpickled whole: code in the file runs",
        "tensors and numbers only; every other name is refused",
        "a download must not run code in a hospital",
    ),
    Difference(
        "Components (`clip_ckpt` and heads)",
        "cannot be loaded as shipped (torch's weights_only, renamed modules)",
        "load, by the same restricted reader",
        "the layout is published",
    ),
    Difference(
        "Study lengths given to the model",
        "raised by one in the caller's tensor: a second call answers otherwise",
        "left as they are",
        "the same call must give the same answer",
    ),
)

SAFE = (
    Difference(
        "Order of slices",
        "natural order of the file names",
        "position along the slices' normal",
        "a PACS names files as it likes; the golden case 5_reversed_names comes out upside down",
    ),
    Difference(
        "Voxels beyond the source's last row and column",
        "the number of the pixel type (2 for int16, 3 for uint16, 8 for float32)",
        "the edge is repeated",
        "an invented line is no anatomy; below 256 x 256 every image has one",
    ),
    Difference(
        "Images of 256 x 256",
        "resampled onto their own grid, rounding included",
        "left alone",
        "oblique series lose a gray level here and there for nothing",
    ),
    Difference(
        "Several stacks in a series",
        "one volume of all files of the most common size",
        "echoes, b-values and repetitions are volumes of their own, at most four a series",
        "stacked through each other they are no anatomy",
    ),
    Difference(
        "Several series in a directory",
        "the first one is read",
        "series are told apart by SeriesInstanceUID, whatever the files' place",
        "the spool knows no directories",
    ),
    Difference(
        "Tilted or uneven slices",
        "read as if they were not",
        "brought to right angles and even spacing first, up to what can be told",
        "coordinates of tokens and overlays must lie where the anatomy is",
    ),
    Difference(
        "Localizers, derived projections, fewer than 4 slices",
        "read",
        "skipped with that reason",
        "nothing the model was meant to read",
    ),
    Difference(
        "Volumes without a positive value, constant ones, NaN",
        "become tokens without meaning",
        "skipped with that reason",
        "the findings would mean nothing",
    ),
    Difference(
        "StudyDescription",
        "one text for all studies, from the configuration",
        "the study's own; MR BRAIN where it has none",
        "the model reads it beside the images",
    ),
)

CHAPTERS = (
    Chapter(
        "Prima: where we differ on purpose, always",
        "`worklist-agent prima run` gives the reference's numbers without its crashes.",
        ALWAYS,
    ),
    Chapter(
        "Prima: where the agent's own path differs (`safe` rules)",
        "Studies from the spool, as against directories of the published pipeline.",
        SAFE,
    ),
)
