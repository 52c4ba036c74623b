"""Following objects through whatever befalls an API server."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import contextlib

from kernel.adapters.clock import SystemClock
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.objects import ConfigMap
from runbooks.adapters.kubernetes.watch import Watch


@contextlib.asynccontextmanager
async def following(kube, path):
    told, errors = [], []
    async with Api(connect(kube.kubeconfig)) as api:
        watch = Watch(
            api,
            path,
            ConfigMap,
            SystemClock(),
            on_change=lambda key, new: told.append((key, new)),
            on_error=errors.append,
        )
        watch.start()
        await asyncio.wait_for(watch.ready(), 90)
        yield watch, told, errors
        watch.stop()


async def until(holds, within_s=90.0):
    for _ in range(int(within_s / 0.05)):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not in time")


def put(kube, ns, name, value):
    kube.kubectl("-n", ns, "create", "configmap", name, f"--from-literal=a={value}")


async def test_what_comes_changes_and_goes_is_told_once_each(kube, ns):
    async with following(kube, f"/api/v1/namespaces/{ns}/configmaps") as (watch, told, _):
        told.clear()
        put(kube, ns, "one", "1")
        await until(lambda: f"{ns}/one" in watch.objects)
        kube.kubectl("-n", ns, "patch", "configmap", "one", "-p", '{"data":{"a":"2"}}')
        await until(lambda: watch.objects[f"{ns}/one"].data == {"a": "2"})
        kube.kubectl("-n", ns, "delete", "configmap", "one")
        await until(lambda: f"{ns}/one" not in watch.objects)
        mine = [new and dict(new.data) for key, new in told if key == f"{ns}/one"]
        assert mine == [{"a": "1"}, {"a": "2"}, None]


async def test_nothing_is_missed_while_the_api_server_is_down_and_what_went_meanwhile_is_told(own_kube):
    put(own_kube, "default", "stays", "1")
    put(own_kube, "default", "goes", "1")
    async with following(own_kube, "/api/v1/namespaces/default/configmaps") as (watch, told, errors):
        own_kube.kill("kube-apiserver")
        await until(lambda: errors)
        own_kube.heal()
        own_kube.kubectl("delete", "configmap", "goes")
        put(own_kube, "default", "comes", "1")
        await until(lambda: "default/comes" in watch.objects and "default/goes" not in watch.objects)
        assert watch.restarts >= 1
        assert ("default/goes", None) in told
        assert "default/stays" in watch.objects


async def test_a_version_that_is_gone_is_answered_by_a_new_list(own_kube):
    async with following(own_kube, "/api/v1/namespaces/default/configmaps") as (watch, _, _):
        list_, asked = watch._list, []

        def old():
            asked.append(list_())
            return "1" if len(asked) == 1 else asked[-1]  # a version from before all history

        watch._list = old
        own_kube.kill("kube-apiserver")
        own_kube.heal()
        await until(lambda: len(asked) >= 2)
        put(own_kube, "default", "later", "1")
        await until(lambda: "default/later" in watch.objects)
