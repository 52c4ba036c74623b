"""Facts of a Kubernetes cluster, under the names that kube-state-metrics gives them."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge

KUBERNETES: Final[tuple[Metric, ...]] = (
    # --- kube-state: facts of a Kubernetes cluster, under kube-state-metrics' own names -------------------------------
    *(
        gauge(Role.KUBE_STATE, f"kube_deployment_{name}", help_, "namespace", "deployment")
        for name, help_ in (
            ("spec_replicas", "Pods a Deployment should have."),
            ("spec_paused", "1 while its rollout is paused."),
            ("metadata_generation", "Grows with every change of its specification."),
            ("status_observed_generation", "The generation its controller has seen."),
            ("status_replicas", "Pods it has."),
            ("status_replicas_ready", "Pods of it that are ready."),
            ("status_replicas_available", "Pods of it that have been ready long enough."),
            ("status_replicas_updated", "Pods of it that have its present template."),
            ("status_replicas_unavailable", "Pods it still lacks."),
        )
    ),
    gauge(
        Role.KUBE_STATE,
        "kube_deployment_status_condition",
        "1 for the status a condition has, 0 for the others.",
        "namespace",
        "deployment",
        "reason",
        "condition",
        "status",
    ),
    *(
        gauge(Role.KUBE_STATE, f"kube_statefulset_{name}", help_, "namespace", "statefulset")
        for name, help_ in (
            ("replicas", "Pods a StatefulSet should have."),
            ("metadata_generation", "Grows with every change of its specification."),
            ("status_observed_generation", "The generation its controller has seen."),
            ("status_replicas_ready", "Pods of it that are ready."),
            ("status_replicas_available", "Pods of it that have been ready long enough."),
            ("status_replicas_updated", "Pods of it that have its present template."),
        )
    ),
    *(
        gauge(Role.KUBE_STATE, f"kube_horizontalpodautoscaler_{name}", help_, "namespace", "horizontalpodautoscaler")
        for name, help_ in (
            ("spec_min_replicas", "Lower bound of an autoscaler."),
            ("spec_max_replicas", "Upper bound of an autoscaler."),
            ("status_current_replicas", "Pods it last saw."),
            ("status_desired_replicas", "Pods it last wanted."),
        )
    ),
    gauge(
        Role.KUBE_STATE,
        "kube_horizontalpodautoscaler_info",
        "What an autoscaler scales.",
        "namespace",
        "horizontalpodautoscaler",
        "scaletargetref_kind",
        "scaletargetref_name",
    ),
    gauge(
        Role.KUBE_STATE,
        "kube_poddisruptionbudget_status_pod_disruptions_allowed",
        "Pods that may be ended now.",
        "namespace",
        "poddisruptionbudget",
    ),
    *(
        gauge(Role.KUBE_STATE, f"kube_pod_{name}", help_, "namespace", "pod", "uid", *labels)
        for name, help_, labels in (
            ("info", "Where a pod runs.", ("node",)),
            (
                "labels",
                "Which workload a pod belongs to, by its labels.",
                (
                    "label_app_kubernetes_io_name",
                    "label_app_kubernetes_io_part_of",
                ),
            ),
            ("owner", "What made a pod.", ("owner_kind", "owner_name", "owner_is_controller")),
            ("deletion_timestamp", "When a pod that is being deleted must have ended, in seconds.", ()),
            ("status_phase", "1 for the phase a pod is in, 0 for the others.", ("phase",)),
            ("status_ready", "1 for the status its readiness has, 0 for the others.", ("condition",)),
            (
                "container_resource_limits",
                "What a container may use at most.",
                (
                    "container",
                    "node",
                    "resource",
                    "unit",
                ),
            ),
            ("container_status_waiting_reason", "1 for the reason why a container waits.", ("container", "reason")),
            ("container_status_last_terminated_exitcode", "How a container's last run ended.", ("container",)),
        )
    ),
    counter(
        Role.KUBE_STATE,
        "kube_pod_container_status_restarts_total",
        "How often a container was started anew.",
        "namespace",
        "pod",
        "uid",
        "container",
    ),
    gauge(
        Role.KUBE_STATE,
        "kube_node_status_condition",
        "1 for the status a node's condition has, 0 for the others.",
        "node",
        "condition",
        "status",
    ),
    gauge(Role.KUBE_STATE, "kube_node_spec_unschedulable", "1 while nothing new starts on a node.", "node"),
    gauge(
        Role.KUBE_STATE,
        "tapewatch_kube_service_colour",
        "1 for the colour a service leads to; none: the pods of its own name.",
        "namespace",
        "service",
        "colour",
    ),
    gauge(Role.KUBE_STATE, "tapewatch_kube_heard_timestamp_seconds", "When the API server was last heard from."),
    gauge(
        Role.KUBE_STATE,
        "tapewatch_kube_certificate_expiry_timestamp_seconds",
        "When a certificate ends.",
        "certificate",
    ),
    gauge(Role.KUBE_STATE, "tapewatch_kube_objects", "Objects watched, by kind.", "kind"),
    gauge(Role.KUBE_STATE, "tapewatch_kube_objects_left_out", "Objects above the bound, which are not shown.", "kind"),
)
