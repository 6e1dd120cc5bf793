"""The report for people: Enhanced SR, TID 2000, texts under the standard's headings.

No image reference in the tree: text viewers print it as an unsupported item. The source image is
named as evidence (PS3.3 C.17.2.3).
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.sr.coding import Code

from sr_templates import concepts
from sr_templates.content import NotAssessedContent, ReportContent
from sr_templates.content_items import code, container, root, text
from sr_templates.document import NARRATIVE, device_observer, language_item, sr_document
from sr_templates.encoding import Item
from sr_templates.source import Source
from sr_templates.statements import statements


def build_narrative(source: Source, content: ReportContent) -> Item:
    """The whole document. Raises :class:`InvalidContent` for codes without a text."""
    said = statements(content)
    described = _texts(concepts.PROCEDURE_DESCRIPTION, (*said.notices, *said.examination))
    found = [*_texts(concepts.FINDING, said.findings), *_coded_reasons(content)]
    concluded = _texts(concepts.IMPRESSION, (*said.conclusion, *said.notices))
    tree = root(
        concepts.DIAGNOSTIC_IMAGING_REPORT,
        [
            language_item(content),
            *device_observer(content),
            container(concepts.PROCEDURE_DESCRIPTIONS, described, continuous=False),
            container(concepts.FINDINGS, found, continuous=False),
            container(concepts.IMPRESSIONS, concluded, continuous=False),
        ],
        template="2000",
        continuous=False,
    )
    return sr_document(NARRATIVE, tree, source, content)


def _texts(name: Code, sentences: Iterable[str]) -> list[Item]:
    return [text("CONTAINS", name, sentence) for sentence in sentences]


def _coded_reasons(content: ReportContent) -> list[Item]:
    """Status of the analysis (CID 6042) and, where it has one, the reason of CID 7011."""
    if not isinstance(content, NotAssessedContent):
        return []
    failed = content.reason in concepts.ANALYSIS_FAILURES
    codes = [concepts.FAILED if failed else concepts.NOT_ATTEMPTED]
    codes += [concepts.REJECTIONS[r] for r in (content.reason,) if r in concepts.REJECTIONS]
    return [code("CONTAINS", concepts.FINDING, reason) for reason in codes]
