"""How values look on the page: names, dates, durations, probabilities. Pure."""

from __future__ import annotations

import datetime as dt

from jinja2 import Environment, PackageLoader, StrictUndefined

STATE_TEXT = {
    "receiving": "Receiving images",
    "assembled": "Waiting for routing",
    "queued": "Waiting for the model",
    "analysing": "Being analysed",
    "composing": "Writing results",
    "delivering": "Sending results",
    "done": "Done",
    "skipped": "Not analysed",
    "failed": "Failed",
}
STATUS_TEXT = {
    "succeeded": "Analysed",
    "partial": "Analysed in part",
    "failed": "Analysis failed",
    "not_attempted": "Analysis not attempted",
}
SEX_TEXT = {"F": "female", "M": "male", "O": "other"}


def environment() -> Environment:
    """Templates with escaping always on; a misspelt variable is an error, not an empty string."""
    env = Environment(
        loader=PackageLoader("agent.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        person=person_name,
        da=dicom_date,
        tm=dicom_time,
        duration=duration,
        percent=percent,
        local=local_time,
        iso=lambda moment: moment.isoformat(timespec="seconds"),
        state=lambda value: STATE_TEXT.get(value, value),
        status=lambda value: STATUS_TEXT.get(value, value),
        sex=lambda value: SEX_TEXT.get(value, value),
        words=lambda value: value.replace("_", " "),
        size=size,
    )
    env.globals["age"] = age
    return env


def person_name(value: str) -> str:
    """A DICOM PN as people write it: ``Family, Given Middle`` (alphabetic group)."""
    alphabetic = next((group for group in value.split("=") if group.strip("^ ")), "")
    family, *rest = [part.strip() for part in alphabetic.split("^")]
    given = " ".join(part for part in rest[:2] if part)
    return ", ".join(part for part in (family, given) if part)


def dicom_date(value: str) -> str:
    """DA as ISO 8601; anything odd as it is."""
    return (
        f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value
    )


def dicom_time(value: str) -> str:
    """TM as HH:MM; anything odd as it is."""
    return f"{value[:2]}:{value[2:4]}" if len(value) >= 4 and value[:4].isdigit() else value


def age(birth_date: str, on: dt.datetime) -> str:
    """Completed years (months below two years) from a DICOM birth date; empty when unknown."""
    try:  # not strptime: fifty a page took a tenth of its time
        born = dt.date(int(birth_date[:4]), int(birth_date[4:6]), int(birth_date[6:8]))
    except ValueError:
        return ""
    if len(birth_date) != 8:
        return ""
    months = (on.year - born.year) * 12 + on.month - born.month - (on.day < born.day)
    if months < 0:
        return ""
    return f"{months // 12} y" if months >= 24 else f"{months} mo"


def duration(minutes: float) -> str:
    """Minutes in words of at most two units."""
    whole = int(minutes)
    if whole < 60:
        return f"{whole} min"
    big, small = ("h", "min") if whole < 48 * 60 else ("d", "h")
    if big == "d":
        whole //= 60
    whole, rest = divmod(whole, 60 if big == "h" else 24)
    return f"{whole} {big} {rest} {small}" if rest else f"{whole} {big}"


def percent(probability: float) -> str:
    """A probability without false certainty: never 0 % or 100 %."""
    if probability >= 0.995:
        return "> 99 %"
    if probability < 0.005:
        return "< 1 %"
    return f"{probability:.0%}".replace("%", " %")


def local_time(moment: dt.datetime) -> str:
    """Date and time of day where the server stands."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(size_bytes: int) -> str:
    """Bytes for people."""
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.0f} kB"
    if size_bytes < 10_000_000_000:
        return f"{size_bytes / 1_000_000:.1f} MB"
    return f"{size_bytes / 1_000_000_000:.0f} GB"
