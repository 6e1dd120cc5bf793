"""From content to sentences: what the narrative and the picture say, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sr_templates.content import AssessedContent, InvalidContent, NotAssessedContent, ReportContent
from sr_templates.wording import Wording, wording


@dataclass(frozen=True, kw_only=True)
class Statements:
    """The sentences of one report."""

    title: str
    headline: str
    """The one thing a reader looks for: the bone age, or that there is none."""
    examination: tuple[str, ...]
    findings: tuple[str, ...]
    conclusion: tuple[str, ...]
    notices: tuple[str, ...]


def statements(content: ReportContent) -> Statements:
    """Everything the report says. Raises :class:`InvalidContent` for codes without a text."""
    words = wording(content.language)
    if isinstance(content, AssessedContent):
        return Statements(
            title=words.text("title", "report"),
            headline=words.nearest_age(content.bone_age_months),
            examination=(*_examination(content, words), _origin(content, words)),
            findings=tuple(_findings(content, words)),
            conclusion=(
                _bone_age(content, words),
                words.text("determination", content.determination),
            ),
            notices=notices(content),
        )
    if isinstance(content, NotAssessedContent):
        reason = words.text("reason", content.reason)
        return Statements(
            title=words.text("title", "report"),
            headline=words.text("title", "not_assessed"),
            examination=(words.text("examination", "not_assessed"), _origin(content, words)),
            findings=(words.text("not_assessed", "reason", reason=reason),),
            conclusion=(words.text("not_assessed", "statement"),),
            notices=notices(content),
        )
    raise InvalidContent(f"{type(content).__name__} has no report")


def notices(content: ReportContent) -> tuple[str, ...]:
    """What every reader must know first: artificial intelligence, unverified, research only."""
    words = wording(content.language)
    research = words.text(
        "notice",
        "research",
        product=content.device.model_name,
        version=content.device.software_version,
    )
    return (research, words.text("notice", "synthetic")) if content.synthetic else (research,)


def _origin(content: ReportContent, words: Wording) -> str:
    time = words.time(content.reported_at)
    return words.text("examination", "reported_at", time=time, device=content.device.name)


def _examination(content: AssessedContent, words: Wording) -> Iterator[str]:
    hand = words.text("hand", content.laterality)
    if content.view_position:
        yield words.text("examination", "hand_and_view", hand=hand, view=content.view_position)
    else:
        yield words.text("examination", "hand", hand=hand)
    yield words.text("examination", "method")
    yield words.text(
        "examination",
        "model",
        name=content.model.name,
        version=content.model.version,
        sha256=content.model.sha256,
    )


def _findings(content: AssessedContent, words: Wording) -> Iterator[str]:
    yield _bone_age(content, words)
    yield words.text("finding", "uncertainty", sd=words.number(content.sd_months))
    yield from _comparison(content, words)
    yield words.text("finding", "reference", title=content.reference_title)
    yield from _growth(content, words)
    for note in content.notes:
        yield words.text("note", note)


def _growth(content: AssessedContent, words: Wording) -> Iterator[str]:
    """The last earlier exam, and how much the bone age has changed since."""
    if not content.priors:
        return
    prior = content.priors[-1]
    yield words.text(
        "finding",
        "prior",
        date=words.date(prior.study_date),
        age=words.nearest_age(prior.bone_age_months),
        months=words.number(prior.bone_age_months),
        change=words.signed(content.bone_age_months - prior.bone_age_months),
        interval=words.number(prior.months_before),
    )
    if not prior.same_model:
        yield words.text("finding", "prior_other_model")


def _bone_age(content: AssessedContent, words: Wording) -> str:
    months = content.bone_age_months
    return words.text(
        "finding", "bone_age", age=words.nearest_age(months), months=words.number(months)
    )


def _comparison(content: AssessedContent, words: Wording) -> Iterator[str]:
    age = content.chronological_age_months
    if age is None:
        yield words.text("finding", "chronological_age_unknown")
        return
    yield words.text(
        "finding", "chronological_age", age=words.completed_age(age), months=words.number(age)
    )
    if content.difference_months is not None:
        difference = words.signed(content.difference_months)
        yield words.text("finding", "difference", difference=difference)
    if content.population_sd_months is not None and content.z_score is not None:
        yield words.text(
            "finding",
            "population",
            sex=words.text("sex", content.sex),
            sd=words.number(content.population_sd_months),
            z=words.signed(content.z_score, digits=2),
        )
