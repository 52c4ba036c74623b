"""What the detectors found, in a report: their own sentence, backed; a failure told; hostile texts inert."""

import msgspec
import pytest

from incidents.adapters.report_files import to_html
from incidents.found import Found, found_draft, found_of
from incidents.incident import fold
from incidents.markdown import to_markdown
from incidents.postmortem import FOUND_TOLD, build_report
from incidents.timeline import EntryKind
from tests.incidents.backing import unbacked
from tests.incidents.timelines import Scribe, at

FOUND = Found(
    fingerprint="f1", starts_at=at(-1), series="gateway-latency", item="gateway-1", page="A-20260302T092954Z-7",
    found_at=at(-6), channel="level_up", value=0.0521, low=0.0049, high=0.0051,
    sentence="52.1 ms over 20 s, expected 4.9 to 5.1 ms: a new level, above its usual one",
)  # fmt: skip


def told(*found):
    write = Scribe("INC-20260302-0009")
    write.opened(0, "gateway-latency is unlike its own past", 3, "gateway")
    write.alert(0.1, "SeriesAnomalous", service="gateway", series="gateway-latency", item="gateway-1")
    for place, one in enumerate(found):
        write.drafts.append(found_draft(one, at(1.0 + place)))
    return write.seal()


def causes(*found):
    incident, entries = told(*found)
    report = build_report(incident, entries, at(100))
    assert {one.text: wrong for one in report.sentences() if (wrong := unbacked(one, entries))} == {}
    return [one.text for one in report.causes]


def test_a_report_tells_what_was_found_in_the_detectors_own_words():
    said = causes(FOUND)
    assert (
        "The detectors found gateway-latency of gateway-1 unusual: 52.1 ms over 20 s, expected 4.9 to 5.1 ms: "
        "a new level, above its usual one." in said
    )
    incident, entries = told(FOUND)
    text = to_markdown(build_report(incident, entries, at(100)))
    assert "52.1 ms over 20 s" in text
    assert entries[-1].source == "detectors"
    assert incident.likely_cause == ""


def test_what_could_not_be_read_is_told_until_it_was_read_after_all():
    failed = msgspec.structs.replace(FOUND, sentence="", page="", trouble="127.0.0.1:9 does not answer")
    wanted = "What the detectors found of gateway-latency of gateway-1 could not be read: 127.0.0.1:9 does not answer."
    assert wanted in causes(failed)
    after = causes(failed, FOUND)
    assert wanted not in after
    assert any(one.startswith("The detectors found") for one in after)


def test_many_series_are_told_shortly():
    said = causes(*(msgspec.structs.replace(FOUND, fingerprint=f"f{n}", item=f"gateway-{n}") for n in range(30)))
    assert sum(one.startswith("The detectors found") for one in said) == FOUND_TOLD
    assert "They were asked about 30 alerts in all." in said


def test_an_incident_that_no_detector_opened_says_nothing_of_them():
    assert not any("detectors" in one for one in causes())


def test_what_was_found_reads_back_as_it_was_written():
    assert found_of(found_draft(FOUND, at(1))) == FOUND


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"starts_at": "then", "value": True, "low": "x", "series": None, "found_at": 1.5},
        {"series": "<script>alert(1)</script>", "sentence": "a | b\u202e\n## c" + "x" * 9_999, "value": float("nan")},
    ],
)
def test_data_of_the_wrong_shape_or_hostile_text_does_no_harm(data):
    _, entries = told(FOUND)
    bent = [msgspec.structs.replace(e, data=data) if e.kind is EntryKind.ANOMALY_FOUND else e for e in entries]
    report = build_report(fold(bent), bent, at(100))
    assert "<script>" not in to_html(report)
    assert "<script>" not in to_markdown(report)
    assert max(len(one.text) for one in report.causes) < 800
