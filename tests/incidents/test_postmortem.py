import re
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from incidents.adapters.report_files import to_html, write_report
from incidents.incident import Incident
from incidents.markdown import escape, ranges, to_markdown
from incidents.postmortem import build_report
from incidents.report import Fold, Report, Row, Sentence
from incidents.timeline import Entry, EntryKind
from incidents.words import clean, spell, web_link
from kernel.errors import PermanentError
from tests.incidents.backing import unbacked
from tests.incidents.timelines import SAMPLES, Scribe, at

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1))",
    "a | b | c",
    "one\n## two\n\n| x |",
    "u\u2028v\u2029w\u0085x",
    "\u202egnp.exe",
    "`code` **bold** ~~gone~~ $x$ @team",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 100_000,
    "</style></title><svg onload=alert(1)>",
    "1. list",
    "",
]


def report_of(name: str, **kwargs: str) -> tuple[Report, list[Entry]]:
    incident, entries = SAMPLES[name]()
    return build_report(incident, entries, at(100), **kwargs), entries


def hostile(text: str) -> tuple[Incident, list[Entry]]:
    write = Scribe("INC-20260302-0666")
    write.opened(0, text, 1, text, text)
    write.alert(0.1, text, service=text, replica=text, symbol=text)
    write(0.2, EntryKind.ALERT_FIRING, text, text, fingerprint="f", alertname=text, labels={text: text},
          annotations={"summary": text, "runbook_url": text, "dashboard": f"javascript:{text}"}, starts_at=at(0.2))  # fmt: skip  # noqa: E501 - a sentence or a table row stays whole
    write.run(0.3, text, text, text)
    write.read(0.4, "proof", text, text, text, 1, 0.5, holds=False)
    write.act(0.5, 0.1, {"type": text, "workload": text}, {text: text}, {text: text + "2"})
    write(0.8, EntryKind.RUN_DECLINED, text, text, runbook=text, reason=text, detail=text)
    write.ended(0.9, text, text, text, text)
    write(1.0, EntryKind.HANDED_OVER, text, text, reason=text, what_to_do=text)
    marks = {text: at(0.1)}
    write(
        1.1, EntryKind.CURVE, text, text, name=text, unit=text, query=text, points=[[at(0), 1], [at(1), 2]], marks=marks
    )
    write(1.2, EntryKind.IMPACT, text, text, orders=text, notional_ticks=None, minutes=text, source=text)
    return write.seal()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in {"href", "src"}]


def page_of(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    page.close()
    return page


# --- every sentence is backed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sentence_says_only_what_its_entries_hold(name):
    report, entries = report_of(name)
    said = list(report.sentences())
    assert said
    assert {sentence.text: wrong for sentence in said if (wrong := unbacked(sentence, entries))} == {}


def _with_wrong_numbers(report: Report) -> Iterator[tuple[Sentence, Sentence]]:
    for sentence in report.sentences():
        for found in re.finditer(r"\d+", sentence.text):
            text = f"{sentence.text[: found.end()]}73{sentence.text[found.end() :]}"
            yield sentence, Sentence(text, sentence.backed_by)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_check_finds_every_planted_wrong_number(name):
    report, entries = report_of(name)
    planted = list(_with_wrong_numbers(report))
    assert planted
    assert [wrong.text for _, wrong in planted if not unbacked(wrong, entries)] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("41788", "41789"),
        ("gateway-2", "gateway-7"),
        ("gateway-down", "engine-melt"),
        ("09:30:03.200", "09:30:03.201"),
        ("1,204", "0"),
    ],
)
def test_the_check_finds_a_wrong_pid_name_time_or_count(right, wrong):
    report, entries = report_of("gateway-hang")
    holding = [sentence for sentence in report.sentences() if right in sentence.text]
    assert holding
    for sentence in holding:
        assert unbacked(Sentence(sentence.text.replace(right, wrong), sentence.backed_by), entries)


def test_the_check_finds_a_sentence_that_cites_nothing_or_another_entry():
    report, entries = report_of("gateway-hang")
    action = next(sentence for sentence in report.tried[0].sentences if "41788" in sentence.text)
    assert unbacked(Sentence(action.text, ()), entries) == ["no entry"]
    assert unbacked(Sentence(action.text, (999,)), entries) == ["t999"]
    assert unbacked(Sentence(action.text, (1,)), entries)


def test_every_sentence_still_is_backed_when_the_timeline_stops_at_any_entry():
    """An incident still open is told from what there is, whatever came last."""
    for name in ("gateway-hang", "wrong-remedy", "no-evidence"):
        incident, entries = SAMPLES[name]()
        for end in range(1, len(entries) + 1):
            report = build_report(incident, entries[:end], at(100))
            assert all(not unbacked(sentence, entries[:end]) for sentence in report.sentences())


# --- what is told ---------------------------------------------------------------------------------------------------


def texts(sentences) -> str:
    return "\n".join(sentence.text for sentence in sentences)


def test_a_mended_incident_tells_fault_action_and_proof():
    report, _ = report_of("gateway-hang")
    assert (report.status, report.tone, report.level) == ("Resolved", "good", "2")
    assert "pid 41235 → 41788" in texts(report.tried[0].sentences)
    timings = {item.name.split(" (")[0]: item.value for item in report.timings}
    assert timings == {
        "Time to detect": "3.2 s", "Alert firing to alert received": "200 ms", "Time to acknowledge": "800 ms",
        "Incident opened to first action": "570 ms", "First action to proof": "8.8 s", "Time to mitigate": "9.4 s",
        "Fault to proof": "12.6 s", "Time to resolve": "20.9 s", "Fault to resolved": "24.1 s",
    }  # fmt: skip
    assert not any((report.undone, report.refused, report.went_poorly, report.follow_ups))


def test_a_wrong_remedy_is_told_as_undone_and_handed_over():
    report, _ = report_of("wrong-remedy")
    assert report.status == "Open, with a person"
    assert "replicas 3 → 2" in texts(report.undone)
    assert "The proof did not hold" in texts(report.tried[0].sentences)
    assert "had run before without helping" in texts(report.refused)
    assert "Detection took 16.0 s" in texts(report.went_poorly)
    assert {item.owner for item in report.follow_ups} == {"the person on call", "trading-platform", "monitoring"}


def test_missing_evidence_is_told_as_a_refusal_with_work_for_monitoring():
    report, _ = report_of("no-evidence")
    assert "carried out no action: it was refused by a guard" in texts(report.summary)
    assert "monitoring gave no data" in texts(report.refused)
    assert "Nothing was touched" in texts(report.went_well)
    assert "monitoring" in {item.owner for item in report.follow_ups}
    assert not any("Detect" in item.name for item in report.timings), "no fault is known, so no time to detect"


def test_a_storm_is_folded_and_counted_and_a_halted_symbol_stays_a_follow_up():
    report, entries = report_of("storm")
    folds = [item for item in report.timeline if isinstance(item, Fold)]
    rows = [item for item in report.timeline if isinstance(item, Row)]
    assert len(rows) < 60
    assert sorted([row.n for row in rows] + [n for fold in folds for n in fold.numbers]) == [
        entry.n for entry in entries
    ]
    assert sum(count for fold in folds for _, count in fold.counts) == sum(len(fold.numbers) for fold in folds)
    assert "Alerts were received 401 times" in texts(report.summary)
    assert "Trading in ACME is halted" in texts(item.sentence for item in report.follow_ups)
    assert "came back" in texts(report.causes)


def test_an_incident_without_anything_but_its_opening_is_told():
    report, _ = report_of("bare")
    assert report.status == "Open"
    assert "No automatic action was taken." in texts(report.summary)
    assert not any((report.tried, report.plots, report.impact))


def test_a_tampered_timeline_is_the_first_thing_read():
    report, _ = report_of("gateway-hang", tamper="entry 7 is not what was written")
    html, markdown = to_html(report), to_markdown(report)
    assert html.index("entry 7 is not what was written") < html.index("<h1>")
    assert markdown.startswith("> [!CAUTION]\n")
    untouched, _ = report_of("gateway-hang")
    assert 'class="tamper"' not in to_html(untouched)


# --- the renderings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_every_reference_leads_to_a_row(name):
    report, _ = report_of(name)
    html, markdown = to_html(report), to_markdown(report)
    page = page_of(html)
    assert len(page.ids) == len(set(page.ids))
    assert {link for link in page.links if link.startswith("#")} <= {f"#{name}" for name in page.ids}
    anchors = re.findall(r'<a id="(t\d+)"></a>', markdown)
    assert len(anchors) == len(set(anchors)) == report.entries
    assert set(re.findall(r"\]\(#(t\d+)\)", markdown)) <= set(anchors)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_fetches_nothing_and_runs_nothing(name):
    html = to_html(report_of(name)[0])
    page = page_of(html)
    assert "default-src 'none'" in html
    assert page.tags.isdisjoint({"script", "iframe", "object", "embed", "link", "img", "base", "form"})
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "url(" not in html
    assert "@import" not in html


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:18]))
def test_hostile_labels_are_inert(text):
    incident, entries = hostile(text)
    report = build_report(incident, entries, at(100), tamper=text)
    html, markdown = to_html(report), to_markdown(report)
    page = page_of(html)
    assert page.tags.isdisjoint({"script", "img", "iframe", "object"})
    assert not [name for name in page.attributes if name.startswith("on")]
    assert all(re.match(r"#t\d+$|https?://", link) for link in page.links)
    assert re.findall(r"<(?!a id=\"t\d+\"></a>|/a>|https?://)", markdown) == []
    assert re.findall(r"(?<!\\)\]\((?!#t\d+\)|<https?://)", markdown) == []
    assert len(html) < 200_000, "long texts are cut"
    for table_row in (line for line in markdown.split("\n") if line.startswith('| <a id="t')):
        assert len(re.findall(r"(?<!\\)\|", table_row)) == 7
    assert not set(markdown + html) & set("\u2028\u2029\u0085\u202e")
    headings = [line for line in markdown.split("\n") if line.startswith("## ")]
    assert "## two" not in headings


def test_data_of_the_wrong_shape_does_not_stop_a_report():
    write = Scribe("INC-20260302-0007")
    write.opened(0, "x", 3, "engine")
    incident, entries = write.seal()
    odd_values: list[object] = [None, 7, "text", [], {}, [[1]], {"a": {"b": []}}, True]
    for wrong in odd_values:
        keys = (
            "run",
            "runbook",
            "action",
            "before",
            "after",
            "by",
            "marks",
            "points",
            "labels",
            "annotations",
            "orders",
            "value",
            "to",
        )
        odd = [
            replace(entries[0], n=n, kind=kind, data=dict.fromkeys(keys, wrong))
            for n, kind in enumerate(EntryKind, start=1)
        ]
        report = build_report(incident, odd, at(1))
        assert to_html(report)
        assert to_markdown(report)


@given(st.text(max_size=80))
@settings(max_examples=150, deadline=None)
def test_cleaned_texts_are_one_visible_line(text):
    line = clean(text)
    assert line.isprintable()
    assert clean(line) == line
    assert "\n" not in escape(text)


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "data:text/html,x", "//evil.example", "ftp://x.example", "http://", "https://a b", "https://u@x.example",
     'https://x.example/"onload=', "https://x.example/<b>", " https://x.example", "https://[", None, 7, "https://x.example/" + "a" * 3000],  # noqa: E501 - a sentence or a table row stays whole
)  # fmt: skip
def test_only_plain_web_addresses_become_links(url):
    assert web_link(url) is None


def test_web_addresses_stay_as_they_are():
    assert web_link("https://runbooks.example/x?y=1&z=(2)") == "https://runbooks.example/x?y=1&z=(2)"


def test_entry_numbers_are_put_together():
    assert ranges((9, 3, 5, 4, 4)) == [(3, 5), (9, 9)]


@pytest.mark.parametrize(
    ("ns", "told"),
    [
        (0, "0 s"),
        (850_000, "850 µs"),
        (420_000_000, "420 ms"),
        (9_990_000_000, "9.9 s"),
        (125 * 10**9, "2 min 5 s"),
        (3_780 * 10**9, "1 h 3 min"),
    ],
)
def test_durations_read_as_people_say_them(ns, told):
    assert spell(ns) == told


def test_reports_are_written_whole_under_a_safe_name(tmp_path):
    report, _ = report_of("gateway-hang")
    page, text = write_report(replace(report, id="../../etc/INC 1"), tmp_path / "reports")
    assert (page.parent, page.name, text.name) == (tmp_path / "reports", "etc-INC-1.html", "etc-INC-1.md")
    assert page.read_text(encoding="utf-8") == to_html(replace(report, id="../../etc/INC 1"))
    assert sorted(path.name for path in page.parent.iterdir()) == ["etc-INC-1.html", "etc-INC-1.md"]


def test_a_folder_that_cannot_be_written_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermanentError, match="cannot write the post-mortem of INC-20260302-0001 into"):
        write_report(report_of("gateway-hang")[0], tmp_path / "file" / "reports")


def test_drawings_are_well_formed_and_described():
    html = to_html(report_of("gateway-hang")[0])
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        root = ET.fromstring(drawing)
        names = [child.tag.rpartition("}")[2] for child in root]
        assert names[:2] == ["title", "desc"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("1. list", "1\\. list"), ("- item", "\\- item"), ("16.0 s", "16.0 s"), ("-3", "-3"), ("a|b", "a\\|b")],
)
def test_only_what_would_be_markup_is_escaped(text, told):
    assert escape(text) == told
