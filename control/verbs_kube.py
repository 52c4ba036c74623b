"""The verbs `kube`: a real Kubernetes control plane on this machine, to try runbooks on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control.settings import Settings, load_settings
from control.terminal import EXIT_CODES, FAILED, UNREACHABLE, AsJson, err, guarded, out, print_json
from control.testbed import background, build
from control.testbed.reach import Reached, reach
from kernel.errors import PermanentError

MAX_NODES: Final = 500
"""A simulated node costs the control plane a quarter of a megabyte; 500 are Ready 20 s after the start."""
app = typer.Typer(
    no_args_is_help=True, help="A real Kubernetes control plane here, to try runbooks on.", epilog=EXIT_CODES
)
Directory = Annotated[Path, typer.Option("--state", help="Directory of the test bed.")]


@app.command("up", epilog="Example: tapewatch kube up --nodes 5")
def up(
    nodes: Annotated[int, typer.Option(help=f"Simulated nodes, 1 to {MAX_NODES}.", min=1, max=MAX_NODES)] = 3,
    state: Directory = background.DIRECTORY,
    *,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C.")] = False,
) -> None:
    """Start the test bed, empty; the first time it is built, which takes minutes. One that is broken is mended."""
    there = background.running(state)
    if there is not None:
        mended = ", ".join(guarded(lambda: background.heal(state)))
        told = f"; mended {mended}" if mended else ""
        out.print(markup(f"a test bed runs in {state} already (pid {there.pid}){told}"), soft_wrap=True)
        _print_where(there, state)
        return
    binary = guarded(lambda: build.find_or_build(load_settings().testbed))
    if foreground:
        guarded(lambda: background.keep(binary, state, nodes, lambda kept: _announce(kept, state, foreground=True)))
        out.print("stopped")
    else:
        _announce(guarded(lambda: background.start(binary, state, nodes)), state, foreground=False)


@app.command("build", epilog="Example: tapewatch kube build")
def build_() -> None:
    """Build the test bed's one binary, if it is not there, and print its path."""
    typer.echo(guarded(lambda: build.find_or_build(load_settings().testbed)))


@app.command("down", epilog="Example: tapewatch kube down")
def down(state: Directory = background.DIRECTORY) -> None:
    """Stop the test bed that `up` started, and wait until its processes are gone."""
    pid = guarded(lambda: background.stop(state))
    out.print(markup(f"stopped (pid {pid}); its logs stay in {state}"), soft_wrap=True)


@app.command("status", epilog="Example: tapewatch kube status --context kind-kind")
def status(
    state: Directory = background.DIRECTORY,
    context: Annotated[str, typer.Option(help="Look at this context's cluster instead.", show_default=False)] = "",
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Kubeconfig of that cluster; else kubectl's.", show_default=False)
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the test bed's processes, memory and nodes; or, of another cluster, whether it can be reached."""
    if context or kubeconfig is not None:
        reached = guarded(lambda: reach(kubeconfig, context))
        if as_json:
            print_json(reached)
        else:
            _print_reached(reached)
        return
    condition = background.condition(state)
    if as_json:
        print_json(condition)
    elif condition.running:
        _print_condition(condition)
    if condition.problem:
        if not as_json:
            err.print(f"[bold red]tapewatch:[/] {markup(condition.problem)}")
        raise typer.Exit(FAILED if condition.running else UNREACHABLE)


def with_binary(settings: Settings) -> Settings:
    """Return settings that name the test bed's binary where one is needed; the first time it is built.

    Raises:
        InputError: the binary named is no program.
        PermanentError: it cannot be built; says what to install.
    """
    if settings.on == "local":
        return settings
    return settings.model_copy(update={"testbed": str(build.find_or_build(settings.testbed))})


def refuse_context(context: str) -> None:
    """Say what a cluster that is there already needs; an empty context is none.

    Its pods have no addresses on this machine, and nobody here may start or end their processes: so control belongs
    into that cluster, not beside it.

    Raises:
        TapewatchError: it cannot be reached, or, where it can, what is to be done.
    """
    if not context:
        return
    reached = reach(None, context)
    raise PermanentError(
        f"{reached.server} (Kubernetes {reached.version}, id {reached.cluster_id}) is reached, but its pods are not: "
        f"put control into it with `kubectl --context {context} apply -k "
        "deploy/kubernetes/overlays/production`, its secrets and its Prometheus beside it; leave --context out for the "
        "test bed"
    )


def _announce(kept: background.Kept, state: Path, *, foreground: bool) -> None:
    took = ", ".join(f"{name} after {seconds:.1f} s" for name, seconds in kept.times_s.items())
    out.print(markup(f"Kubernetes {kept.version} is ready: {took}"), soft_wrap=True)
    _print_where(kept, state)
    if foreground:
        out.print("Ctrl-C stops it")


def _print_where(kept: background.Kept, state: Path) -> None:
    option = "" if state == background.DIRECTORY else f" --state {state}"
    rows = [("server", kept.url), ("kubeconfig", kept.kubeconfig), ("next", f"export KUBECONFIG={kept.kubeconfig}")]
    if shutil.which("kubectl") is None:
        rows.append(("", f"alias kubectl='{kept.binary} kubectl'"))
    rows.append(("", f"kubectl get nodes; tapewatch kube status{option}; tapewatch kube down{option}"))
    for name, text in rows:
        out.print(f"{name:13}{markup(text)}", soft_wrap=True)


def _print_condition(condition: background.Condition) -> None:
    out.print(f"Kubernetes {condition.version} in {markup(condition.state)}", soft_wrap=True)
    rows = {
        "since": condition.since,
        "server": condition.url,
        "kubeconfig": condition.kubeconfig,
        "nodes": _nodes(condition.nodes),
    }
    for name, text in rows.items():
        out.print(f"{name:13}{markup(text)}", soft_wrap=True)
    table = Table()
    for column in ("component", "pid", "runs", "memory"):
        table.add_column(column, no_wrap=True)
    for one in condition.components:
        runs = "[red]stopped[/]" if one.stopped else "[green]yes[/]" if one.alive else "[red]no[/]"
        table.add_row(one.name, str(one.pid or "-"), runs, f"{one.memory_bytes / 2**20:.0f} MiB")
    total = sum(one.memory_bytes for one in condition.components)
    table.add_row("together", "", "", f"{total / 2**20:.0f} MiB")
    out.print(table)


def _print_reached(reached: Reached) -> None:
    rows: dict[str, Any] = {
        "server": reached.server,
        "version": reached.version,
        "cluster id": reached.cluster_id,
        "nodes": _nodes(reached.nodes),
    }
    for name, text in rows.items():
        out.print(f"{name:13}{markup(text)}", soft_wrap=True)


def _nodes(nodes: dict[str, bool]) -> str:
    sick = ", ".join(name for name, ready in nodes.items() if not ready)
    return f"{sum(nodes.values())} of {len(nodes)} Ready" + (f"; not {sick}" if sick else "")
