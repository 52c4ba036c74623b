"""Made series are the same for the same seed, and their labels are true."""

from __future__ import annotations

import json

import numpy as np

from bench import made_series
from bench.parts import made_machines, made_series_kinds


def test_the_same_seed_makes_the_same_values_and_another_others():
    one, two, other = (made_machines.make(seed, 4, 8) for seed in (1, 1, 2))
    assert one.values.tobytes() == two.values.tobytes()
    assert one.events == two.events
    assert one.values.tobytes() != other.values.tobytes()


def test_labels_lie_in_the_scored_part_apart_from_each_other_and_name_columns_that_move():
    for made in (made_machines.make(3, 3, 19), made_series_kinds.make(3, "server5", "cpu", 0)):
        last = made.scored_from
        for event in made.events:
            assert last < event.first <= event.last < len(made.values)
            last = event.last
            for column in event.causes:
                assert np.nanmax(made.values[:, column]) > np.nanmin(made.values[:, column])


def test_the_folder_has_a_manifest_that_says_what_each_file_holds(tmp_path):
    made = made_series.write(tmp_path, [5], ["requests"])
    said = json.loads((tmp_path / "manifest.json").read_text())["series"]
    assert [each["id"] for each in said] == [each.name for each in made]
    for each in said:
        assert (tmp_path / each["file"]).stat().st_size > 1000
        assert each["dims"] == 1
        assert len(each["events"]) == len(each["kinds"])
