"""Where our findings model parts from the reference on purpose."""

from __future__ import annotations

from inference.parity.rows import Chapter, Difference

CHAPTERS = (
    Chapter(
        "Findings model: where we differ on purpose",
        "Of `load_vlm` and of the agent's own drafts.",
        (
            Difference(
                "Missing or un-prefixed weights",
                "goes on with random weights and a warning, or none",
                "refused; missing, unexpected and mis-shaped keys are named",
                "a random encoder writes findings that read like any other",
            ),
            Difference(
                "Wording of the prompt",
                "in the source",
                "data of the pack, or a file given to `load_vlm`",
                "it belongs to what the checkpoint learned",
            ),
            Difference(
                "Empty series at the end of a study",
                "ambiguous bounds, the study fails",
                "one study owns all its series; several say `series_per_study`",
                "an empty series is an answer of its own: the projection of zeros",
            ),
            Difference(
                "Settings of generation",
                "those of one call stay for the next: greedy after beams keeps the penalties",
                "each call has its own",
                "the same study must get the same draft, whatever came before it",
            ),
            Difference(
                "Ban of repeated n-grams under a JSON form",
                "may forbid the one token that the form allows",
                "gives way where nothing else is left",
                "what follows would be token 0, not a draft",
            ),
            Difference(
                "Special tokens in the indication",
                "open turns and images",
                "are broken up and stay text",
                "an order must not write the prompt",
            ),
            Difference(
                "Form of the answer",
                "JSON of any length; what does not parse is handed out as it is",
                "bounded lists and texts; a draft must end by itself and parse strictly "
                "(`load_vlm` hands out the text, as the reference)",
                "a draft that broke off is no draft",
            ),
            Difference(
                "bfloat16",
                "always",
                "on a GPU; float32 on a CPU, tables rounded where the pack asks for it",
                "a CPU needs float32; the language model was trained on rounded tables",
            ),
        ),
    ),
)
