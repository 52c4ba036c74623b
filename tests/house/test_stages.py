"""Every test that has a run of its own (an estate, Elasticsearch, Kubernetes) is in a file that this run reads."""

from tests.stages import STAGES, UNNAMED, names, pytest_ignore_collect


def test_no_run_leaves_out_a_file_that_holds_one_of_its_tests(request):
    """Where every file was read, as in `make test`: the others were deselected."""
    assert request.config.stash.get(UNNAMED, []) == []


def test_a_run_for_one_kind_of_server_reads_the_files_that_name_it_and_their_place(tmp_path):
    class Config:
        def __init__(self, chosen):
            self.chosen = chosen

        def getoption(self, _):
            return self.chosen

    (tmp_path / "kube").mkdir()
    files = {
        stage: tmp_path / f"test_{stage}.py" for stage in STAGES
    } | {"placed": tmp_path / "kube" / "test_placed.py", "plain": tmp_path / "test_plain.py"}  # fmt: skip
    for stage, path in files.items():
        path.write_text(f"pytestmark = pytest.mark.{stage}\n")
    read = {
        stage: {
            name for name, path in files.items() if not pytest_ignore_collect(path, Config(f"{stage} and not long"))
        }
        for stage in (*STAGES, "not")
    }
    alone = {stage: {stage} for stage in STAGES if stage != "kube"}
    assert read == alone | {"kube": {"kube", "placed"}, "not": set(files)}
    several = Config("(elastic or lb) and not long")
    assert {name for name, path in files.items() if not pytest_ignore_collect(path, several)} == {"elastic", "lb"}
    assert pytest_ignore_collect(tmp_path / "conftest.py", Config("kube")) is None
    assert names(files["placed"], "kube")
