"""The report for people: Enhanced SR, TID 2000, texts under the standard's headings.

No image reference in the tree: text viewers print it as an unsupported item. The source image is
named as evidence (PS3.3 C.17.2.3).
"""

from __future__ import annotations

from collections.abc import Iterable

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from sr_templates import concepts
from sr_templates.content import NotAssessedContent, ReportContent
from sr_templates.document import NARRATIVE, build_document, device_observer, language_item
from sr_templates.source import Source
from sr_templates.statements import statements


def build_narrative(source: Source, content: ReportContent) -> Dataset:
    """The whole document. Raises :class:`InvalidContent` for codes without a text."""
    said = statements(content)
    root = ContainerContentItem(
        concepts.DIAGNOSTIC_IMAGING_REPORT, is_content_continuous=False, template_id="2000"
    )
    root.ContentSequence = ContentSequence(
        [
            *language_item(content),
            *device_observer(content),
            _section(
                concepts.PROCEDURE_DESCRIPTIONS,
                _texts(concepts.PROCEDURE_DESCRIPTION, (*said.notices, *said.examination)),
            ),
            _section(
                concepts.FINDINGS,
                [*_texts(concepts.FINDING, said.findings), *_coded_reasons(content)],
            ),
            _section(
                concepts.IMPRESSIONS,
                _texts(concepts.IMPRESSION, (*said.conclusion, *said.notices)),
            ),
        ]
    )
    return build_document(NARRATIVE, root, source, content)


def _section(heading: Code, items: Iterable[ContentItem]) -> ContainerContentItem:
    section = ContainerContentItem(
        heading, is_content_continuous=False, relationship_type=RelationshipTypeValues.CONTAINS
    )
    section.ContentSequence = ContentSequence(list(items))
    return section


def _texts(name: Code, sentences: Iterable[str]) -> list[ContentItem]:
    return [
        TextContentItem(name, sentence, relationship_type=RelationshipTypeValues.CONTAINS)
        for sentence in sentences
    ]


def _coded_reasons(content: ReportContent) -> list[ContentItem]:
    """Status of the analysis (CID 6042) and, where it has one, the reason of CID 7011."""
    if not isinstance(content, NotAssessedContent):
        return []
    failed = content.reason in concepts.ANALYSIS_FAILURES
    codes = [concepts.FAILED if failed else concepts.NOT_ATTEMPTED]
    codes += [concepts.REJECTIONS[r] for r in (content.reason,) if r in concepts.REJECTIONS]
    return [
        CodeContentItem(concepts.FINDING, code, relationship_type=RelationshipTypeValues.CONTAINS)
        for code in codes
    ]
