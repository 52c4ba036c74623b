"""The verbs `kube` when something is wrong: one sentence, the exit code that says whose turn it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from control.plan import free_ports
from control.testbed import background, build
from control.testbed.build import Recipe
from control.testbed.cluster import Cluster, _sweep
from kernel.errors import InputError, PermanentError
from tests.control.test_cli import run

VERBS = ["kube up", "kube down", "kube status", "kube build"]


def program(path, text: str):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def kubeconfig(path, **cluster: str):
    value = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """No binary, a cache of its own, and a PATH with nothing but what a test puts into `bin`."""
    monkeypatch.delenv("TAPEWATCH_TESTBED", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    for name in ("setpriv", "nice", "sh", "sleep", "mkdir", "chmod"):
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        (tmp_path / "bin" / name).symlink_to(found.stdout.strip())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


# --- the verbs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    code, out, _ = run(*verb.split(), "--help")
    assert (code, "Example: tapewatch kube" in out) == (0, True)


@pytest.mark.parametrize("verb", ["kube down", "kube status"])
def test_where_no_test_bed_runs_the_verb_says_so(tmp_path, verb):
    code, out, err = run(*verb.split(), "--state", tmp_path)
    assert (code, out) == (4, "")
    assert err == f"tapewatch: no test bed runs in {tmp_path}: start one with `tapewatch kube up`\n"
    assert list(tmp_path.iterdir()) == []


def test_status_tells_scripts_what_it_tells_people(tmp_path):
    code, out, err = run("kube", "status", "--state", tmp_path, "--json")
    assert (code, err) == (4, "")
    told = json.loads(out)
    assert (told["running"], told["components"]) == (False, [])
    assert "no test bed runs" in told["problem"]


@pytest.mark.parametrize("nodes", ["0", "-1", "501", "three"])
def test_a_number_of_nodes_that_cannot_be_is_refused(tmp_path, nodes):
    code, _, err = run("kube", "up", "--state", tmp_path, "--nodes", nodes)
    assert (code, "--nodes" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_binary_that_is_none_is_named_with_its_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEWATCH_TESTBED", str(tmp_path / "none"))
    code, _, err = run("kube", "up", "--state", tmp_path / "s")
    assert code == 2
    assert f"setting testbed (TAPEWATCH_TESTBED): {tmp_path}/none: is no program" in err


def test_a_binary_that_is_another_program_is_told_by_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEWATCH_TESTBED", str(program(tmp_path / "other", "echo I am somebody else; exit 3")))
    code, _, err = run("kube", "up", "--state", tmp_path / "s")
    assert (code, err) == (1, "tapewatch: etcd ended with 3: I am somebody else\n")
    assert background.running(tmp_path / "s") is None


def test_a_directory_with_other_files_and_a_file_in_its_place_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEWATCH_TESTBED", sys.executable)
    (tmp_path / "diary").write_text("mine")
    code, _, err = run("kube", "up", "--state", tmp_path)
    assert (code, err) == (2, f"tapewatch: {tmp_path}: holds other files; name an empty directory\n")
    code, _, err = run("kube", "up", "--state", tmp_path / "diary")
    assert (code, "cannot be used: File exists" in err) == (1, True)
    assert (tmp_path / "diary").read_text() == "mine"


def test_what_another_process_left_behind_is_no_running_test_bed(tmp_path):
    kept = background.Kept(
        pid=os.getpid(), created_s=0.0, since=0, url="https://127.0.0.1:1", kubeconfig="x", binary="x", version="v1",
        components={}, times_s={},
    )  # fmt: skip
    assert background._keeper(kept) is None
    held = Cluster(tmp_path, tmp_path / "bed")
    held._take_directory()
    (tmp_path / "bed" / "testbed.json").write_text("half")
    code, _, err = run("kube", "down", "--state", tmp_path / "bed")
    assert (code, "is being started or stopped just now" in err) == (4, True)
    held.stop()


# --- another cluster ------------------------------------------------------------------------------------------------


def test_a_kubeconfig_that_is_missing_broken_or_without_the_context_is_named(tmp_path):
    code, _, err = run("kube", "status", "--kubeconfig", tmp_path / "none")
    assert (code, err) == (2, f"tapewatch: kubeconfig {tmp_path}/none: is not there; name another with --kubeconfig\n")
    for text in ("{", "words", "[]", "\x00", "clusters: 3"):
        (tmp_path / "broken").write_text(text)
        code, _, err = run("kube", "status", "--kubeconfig", tmp_path / "broken")
        assert (code, err.count("\n")) == (2, 1), text
    good = kubeconfig(tmp_path / "good", server="https://127.0.0.1:1")
    code, _, err = run("kube", "status", "--kubeconfig", good, "--context", "there")
    assert (code, "there" in err, "`kubectl config get-contexts`" in err) == (2, True, True)


def test_a_cluster_that_does_not_answer_is_one_sentence_and_exit_4(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # must not be asked for what is on this machine
    server = f"https://127.0.0.1:{free_ports(1)[0]}"
    code, out, err = run("kube", "status", "--kubeconfig", kubeconfig(tmp_path / "k", server=server))
    assert (code, out) == (4, "")
    assert err == f"tapewatch: the cluster at {server} cannot be reached: [Errno 111] Connection refused\n"


# --- the build ------------------------------------------------------------------------------------------------------


def test_the_binary_is_named_after_the_version_and_the_sources(tmp_path):
    found = build.recipe()
    assert found.name == f"testbed-{found.kubernetes}-{found.key}"
    assert found.go >= (1, 26)
    for name in ("go.mod", "go.sum", "main.go", "stages.yaml"):
        (tmp_path / name).write_bytes((build.SOURCE / name).read_bytes())
    (tmp_path / "stages.yaml").write_text("other")
    assert build.recipe(tmp_path) == found, "how kubelets behave is read at each start"
    (tmp_path / "main.go").write_text("other")
    assert build.recipe(tmp_path).key != found.key


def test_the_binary_named_comes_before_the_one_in_the_cache(nothing_built):
    assert build.find() is None
    target = build.cache() / build.recipe().name
    target.parent.mkdir(parents=True)
    assert build.find() is None
    program(target, "")
    assert build.find() == target
    assert run("kube", "build") == (0, f"{target}\n", "")
    named = program(nothing_built / "mine", "")
    assert build.find(str(named)) == named
    named.chmod(stat.S_IRUSR)
    if os.geteuid():
        with pytest.raises(InputError, match="is no program"):
            build.find(str(named))


def test_without_go_or_with_an_old_one_the_sentence_says_what_to_install(nothing_built):
    need = ".".join(map(str, build.recipe().go))
    code, _, err = run("kube", "up", "--state", nothing_built / "s")
    assert (code, f"there is no program go, which builds the test bed: install Go {need} or newer" in err) == (1, True)
    program(nothing_built / "bin" / "go", "echo go1.19.8")
    code, _, err = run("kube", "up", "--state", nothing_built / "s")
    assert (code, "go is 1.19.8, too old" in err, f"install Go {need}" in err) == (1, True, True)
    assert not (nothing_built / "cache").exists()


def go(place, build_does: str):
    text = f'if [ "$1" = env ]; then echo go9.9.9; exit; fi\nwhile [ "$1" != -o ]; do shift; done\n{build_does}'
    return program(place / "bin" / "go", text)


def test_a_build_leaves_the_binary_and_nothing_else(nothing_built):
    go(
        nothing_built,
        '[ -d "$GOTMPDIR" ] && echo x > "$2" && chmod +x "$2" && [ "$GOFLAGS $CGO_ENABLED" = "-modcacherw 0" ]',
    )
    told: list[str] = []
    found = build.find_or_build(tell=told.append)
    assert found.read_text() == "x\n"
    assert {path.name for path in build.cache().iterdir()} == {found.name, "lock", "build.log"}
    assert "6 to 12 minutes" in told[0]
    assert told[1].startswith(f"built {found} in 0:0")


def test_a_failed_build_tells_its_last_words_and_keeps_what_it_compiled(nothing_built):
    go(nothing_built, 'mkdir -p "$GOCACHE"; echo k8s.io/api/apps/v1; echo "main.go:3: undefined: x"; exit 1')
    with pytest.raises(PermanentError) as told:
        build.find_or_build(tell=print)
    assert "main.go:3: undefined: x" in str(told.value)
    assert "k8s.io/api/apps/v1" not in str(told.value), "what was compiled well is no error"
    assert build.find() is None
    assert (build.cache() / "go-build").is_dir()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_full_disk_is_told_as_one(nothing_built, monkeypatch, when):
    go(nothing_built, "echo link: write: no space left on device; exit 1")
    if when == "before":
        monkeypatch.setattr(build, "DISK_BYTES", 2**60)
    with pytest.raises(PermanentError, match=r"no room to build the test bed: .* in .*/tapewatch/testbed, it needs"):
        build.find_or_build(tell=print)


def test_a_build_that_runs_is_waited_for(nothing_built):
    go(nothing_built, 'sleep 1; echo x > "$2"; chmod +x "$2"')
    code = "import sys; from control.testbed import build; print(build.find_or_build())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        while not (build.cache() / "build.log").exists():
            assert other.poll() is None
        told: list[str] = []
        found = build.find_or_build(tell=told.append)
        assert other.wait(10) == 0
    assert told == ["another process builds it; waiting for that (0:00)"]
    assert found.read_text() == "x\n"


def test_an_interrupted_build_leaves_no_binary_and_no_lock(nothing_built, monkeypatch):
    go(nothing_built, 'echo x > "$2"; sleep 60')

    def interrupt(process, log):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_watch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.find_or_build(tell=print)
    assert build.find() is None
    go(nothing_built, 'echo y > "$2"; chmod +x "$2"')
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(nothing_built / "cache"))
    monkeypatch.setenv("PATH", str(nothing_built / "bin"))
    assert build.find_or_build(tell=print).read_text() == "y\n"


def test_what_killed_test_beds_left_in_memory_is_swept_and_what_runs_is_not(tmp_path):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    held = Cluster(tmp_path, tmp_path / f"tapewatch-testbed-{dead.pid}-held")
    held._take_directory()
    for name in (f"{dead.pid}-left", f"{os.getpid()}-ours"):
        (tmp_path / f"tapewatch-testbed-{name}").mkdir()
    _sweep(tmp_path)
    held.stop()
    left = sorted(path.name.partition("-testbed-")[2] for path in tmp_path.iterdir())
    assert left == sorted([f"{dead.pid}-held", f"{os.getpid()}-ours"])


def test_sources_that_are_none_are_named(tmp_path):
    with pytest.raises(PermanentError, match=r"the test bed's sources in .* cannot be read"):
        build.recipe(tmp_path)
    for name in ("go.sum", "main.go", "go.mod"):
        (tmp_path / name).write_text("module x\n")
    with pytest.raises(PermanentError, match=r"go.mod names no k8s.io/kubernetes or no version of Go"):
        build.recipe(tmp_path)


def test_the_build_is_reproducible_and_needs_no_compiler_of_c():
    words = build.command(Recipe("v1.36.3", (1, 26, 0), "k"), build.cache() / "x.part")
    assert {"-trimpath", "-buildvcs=false", "-mod=readonly"} <= set(words)
    assert "gitMinor=36" in " ".join(words)
