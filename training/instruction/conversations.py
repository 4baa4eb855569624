"""Conversations about studies: the JSON file, and their ids with labels on the answers alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.report.prompt import IGNORED, TURN, TURN_END, PromptWriter, plain
from training.data.errors import DataError
from training.data.table import StudyRow

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Turn:
    """A question and its answer; an empty question is asked in the style's own wording."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Turns about one study."""

    study: str
    turns: tuple[Turn, ...]
    indication: str = ""


def read_conversations(file: Path, rows: Sequence[StudyRow] = ()) -> list[Conversation]:
    """Read a conversations file.

    It holds a list of ``{"study": id, "conversations": [{"from": "human", "value": ...}, {"from":
    "gpt", "value": ...}], "indication": ...}``. Instead of `study`, ``"image"`` may name a path or
    a list of paths; the table then says to which study they belong. ``"messages"`` with ``role``
    and ``content`` is read too, and an answer may be an object, which is taught as JSON.

    Args:
        file: JSON.
        rows: of the table; needed for image paths.

    Raises:
        DataError: the file or an entry cannot be used; the message names the entry.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file.name}: no readable JSON file") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{file.name}: must hold a list of conversations")
    places = {row.path.resolve(): row.study for row in rows}
    found = []
    for number, entry in enumerate(entries):
        where = f"{file.name}, entry {number}"
        if not isinstance(entry, Mapping):
            raise DataError(f"{where}: no object")
        study = str(entry.get("study") or "") or _study_of(entry, places, file.parent, where)
        found.append(Conversation(study, _turns(entry, where), str(entry.get("indication") or "")))
    return found


def taught(
    writer: PromptWriter, series: int, conversation: Conversation
) -> tuple[list[int], list[int]] | None:
    """Ids and labels of a conversation about a study of `series` series.

    The images stand in the first question. None = nothing of an answer, or not every image, is
    left within the style's length.
    """
    first, *rest = conversation.turns
    if first.question:
        ids, labels = _asked(writer, _own_head(writer, series, first.question), first.answer)
    else:
        ids, labels = writer.taught(series, conversation.indication, first.answer)
    for turn in rest:
        more, learned = _asked(writer, _head(turn.question), turn.answer)
        ids, labels = ids + more, labels + learned
    limit = writer.style.max_tokens
    ids, labels = ids[:limit], labels[:limit]
    if ids.count(writer.image_id) != series or all(label == IGNORED for label in labels):
        return None
    return ids, labels


def _own_head(writer: PromptWriter, series: int, question: str) -> tuple[str, ...]:
    system = TURN.format(role="system") + writer.style.system + TURN_END
    return (system, *_head(question, writer.style.image * series))


def _head(question: str, images: str = "") -> tuple[str, ...]:
    asked = TURN.format(role="user") + images + plain(question) + TURN_END
    return asked, TURN.format(role="assistant")


def _asked(writer: PromptWriter, given: Sequence[str], answer: str) -> tuple[list[int], list[int]]:
    """Segments are encoded one by one, as the prompt's own are."""
    encode = writer.vocabulary.encode
    head = [i for part in given for i in encode(part)]
    learned = encode(plain(answer) + TURN_END)
    return head + learned, [IGNORED] * len(head) + learned


def _turns(entry: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    given = entry.get("conversations") or entry.get("messages")
    if not isinstance(given, list) or not given:
        raise DataError(f"{where}: conversations is missing or empty")
    spoken = [_spoken(one, where) for one in given]
    roles = [role for role, _ in spoken]
    if len(spoken) % 2 or roles != ["user", "assistant"] * (len(spoken) // 2):
        raise DataError(f"{where}: questions and answers must take turns, a question first")
    texts = [text for _, text in spoken]
    if not all(texts[1::2]):
        raise DataError(f"{where}: an answer is empty")
    return tuple(Turn(q, a) for q, a in zip(texts[::2], texts[1::2], strict=True))


def _spoken(one: Any, where: str) -> tuple[str, str]:
    if not isinstance(one, Mapping):
        raise DataError(f"{where}: a turn is no object")
    role = ROLES.get(str(one.get("from", one.get("role", ""))))
    if role is None:
        raise DataError(f"{where}: a turn is from neither human nor gpt (user nor assistant)")
    value = one.get("value", one.get("content", ""))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return role, text.replace(PLACEHOLDER, "").strip()


def _study_of(
    entry: Mapping[str, Any], places: Mapping[Path, str], folder: Path, where: str
) -> str:
    images = entry.get("image") or entry.get("images")
    if not images:
        raise DataError(f"{where}: names neither study nor image")
    listed = images if isinstance(images, list) else [images]
    paths = [(folder / str(one)).resolve() for one in listed]
    found = {next((places[p] for p in (path, *path.parents) if p in places), "") for path in paths}
    if len(found) != 1 or "" in found:
        raise DataError(f"{where}: its images belong to no study of the table, or to several")
    return found.pop()
