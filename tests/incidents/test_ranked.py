"""What moved first in a report: every sentence backed, hostile texts inert, a failure told."""

import re

import msgspec
import pytest

from incidents.adapters.report_files import to_html
from incidents.incident import Incident, fold
from incidents.markdown import to_markdown
from incidents.postmortem import build_report
from incidents.ranked import Hypothesis, Ranked, ranked_draft, ranked_of
from incidents.timeline import Entry
from tests.incidents.backing import unbacked
from tests.incidents.timelines import Scribe, at

RANKED = Ranked(
    sentence="engine is the likeliest cause (0.84, next gateway 0.52): commit-time rose to 0.21 s from 09:29:51 UTC.",
    basis="57 of 59 series could be judged from 09:10:00 to 09:30:05 UTC, 6 of them moved.",
    stands_out=True,
    hypotheses=(
        Hypothesis(
            service="engine", metric="commit-time", score=0.84, at=at(-9),
            sentence="commit-time rose to 0.21 s from 09:29:51 UTC on, usual before 1.9 ms to 4.1 ms.",
            speaks_for=("It moved first: 4 s before gateway.", "It moved most: 41 deviations from its usual value."),
            speaks_against=("Should have moved and did not: settlement, which stand directly on it.",),
        ),
        Hypothesis(service="", score=0.12, sentence="Something that no watched series shows.",
                   speaks_against=("engine moved 41 deviations from its usual value.",)),
    ),
)  # fmt: skip


def told(*rankings: Ranked) -> tuple[Incident, list[Entry]]:
    write = Scribe("INC-20260302-0009")
    write.opened(0, "Orders are answered slowly", 2, "gateway")
    write.alert(0.1, "OrderLatencyHigh", service="gateway")
    for place, ranked in enumerate(rankings):
        write.drafts.append(ranked_draft(ranked, at(5.0 + 20 * place)))
    return write.seal()


def test_every_sentence_about_causes_says_only_what_its_entry_holds():
    incident, entries = told(msgspec.structs.replace(RANKED, stands_out=False, sentence="No hypothesis."), RANKED)
    report = build_report(incident, entries, at(100))
    assert len(report.moved) == 3
    assert [one.name for one in report.suspicions] == ["engine", "outside of what is watched"]
    assert {one.text: wrong for one in report.sentences() if (wrong := unbacked(one, entries))} == {}


def test_a_wrong_figure_about_causes_would_be_found():
    incident, entries = told(RANKED)
    report = build_report(incident, entries, at(100))
    for one in report.suspicions[0].speaks_for:
        wrong = msgspec.structs.replace(one, text=re.sub(r"(\d+)", r"\g<1>7", one.text, count=1))
        assert unbacked(wrong, entries), wrong.text


def test_markdown_and_page_show_hypotheses_with_what_speaks_for_and_against():
    incident, entries = told(RANKED)
    report = build_report(incident, entries, at(100))
    text, page = to_markdown(report), to_html(report)
    assert "## What moved first" in text
    assert "### Hypothesis 1: engine (0.84 points)" in text
    assert "- Against: Should have moved and did not: settlement" in text
    assert "<h2>What moved first</h2>" in page
    assert page.count("<b>For</b>") == 2
    assert page.count("<b>Against</b>") == 2


def test_a_ranking_that_could_not_be_made_is_one_sentence_in_the_report():
    incident, entries = told(Ranked(trouble="Prometheus at http://p does not answer"))
    report = build_report(incident, entries, at(100))
    assert [one.text for one in report.moved] == ["It could not be told: Prometheus at http://p does not answer."]
    assert report.suspicions == ()
    assert incident.likely_cause == ""


def test_a_later_failure_takes_nothing_back():
    incident, entries = told(RANKED, Ranked(trouble="it does not answer"))
    assert incident.likely_cause == RANKED.sentence
    assert build_report(incident, entries, at(100)).suspicions[0].name == "engine"


def test_an_incident_without_a_ranking_has_no_such_section():
    incident, entries = told()
    assert "moved first" not in to_markdown(build_report(incident, entries, at(100)))


def test_a_ranking_reads_back_as_it_was_written():
    assert ranked_of(ranked_draft(RANKED, at(1))) == RANKED


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"hypotheses": "x", "sentence": 7, "stands_out": "yes", "trouble": None},
        {"hypotheses": [1, None, {"score": True, "at": "then", "speaks_for": {"a": 1}, "speaks_against": [None, 3]}]},
        {
            "hypotheses": [{"service": "<script>alert(1)</script>", "sentence": "a | b\u202e\n## c"}],
            "sentence": "x" * 9_999,
        },
    ],
)
def test_data_of_the_wrong_shape_or_hostile_text_does_no_harm(data):
    incident, entries = told(RANKED)
    bent = [msgspec.structs.replace(one, data=data) if one.kind == "causes_ranked" else one for one in entries]
    report = build_report(fold(bent), bent, at(100))
    assert "<script>" not in to_html(report)
    assert "<script>" not in to_markdown(report)
    assert incident.likely_cause
