"""The board of what stands before the gateways."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import (
    BAD,
    GOOD,
    ONE,
    PLAIN,
    Board,
    Row,
    above,
    ask,
    below,
    gauge,
    graph,
    stat,
)

EDGE: Final = Board(
    name="edge",
    title="Edge",
    about="The load balancer before the gateways: whether it serves, whom it sends to, its cache, its certificate.",
    jobs=("edge", "edge-server"),
    rows=(
        Row("The edge itself", (
            stat("Serves", "Whether it answers over TLS, whatever the gateways do. Red: its runbook restarts it.",
                 "short", "min(tapewatch_edge_serves{$})", ONE, words=(("1", "serves", GOOD), ("0", "silent", BAD)),
                 width=6),
            stat("Gateways it sends to", "Of one edge, the fewest. Red: none, every order is answered 503; amber: one "
                 "is left.", "short", 'min(haproxy_backend_active_servers{$,proxy="gateways"})', below(1, 2), width=6),
            stat("Certificate lasts", "Of the certificate that is really shown. Amber: renew it; red: nobody "
                 "trusts it soon.", "s", "min(tapewatch_edge_certificate_not_after_timestamp_seconds{$}) - time()",
                 below(259_200, 604_800), width=6),
            gauge("Connections", "Against those it may have. Red: whoever comes waits.", "percentunit",
                  "max(haproxy_process_current_connections{$} / haproxy_process_max_connections{$})",
                  above(0.6, 0.8), low=0.0, high=1.0, width=6),
            graph("Answers", "A second, by class. 5xx: no gateway had an answer; 4xx: refused or turned away.", "reqps",
                  ask('sum by (code) (rate(haproxy_frontend_http_responses_total{$,proxy="orders"}[$r]))', "{{code}}"),
                  stacked=True, width=12),
            graph("Sent once more", "Requests a second that were lost under a gateway and sent again, and of these to "
                  "another one. Lasting: a gateway is sick.", "reqps",
                  ask('sum(rate(haproxy_backend_retry_warnings_total{$,proxy="gateways"}[$r]))', "again"),
                  ask('sum(rate(haproxy_backend_redispatch_warnings_total{$,proxy="gateways"}[$r]))', "to another"),
                  width=12),
            stat("New certificate", "Red: one was refused, and the one before is shown on; `certificate-refused` in "
                 "the log says why.", "short", "max(tapewatch_edge_certificate_refused{$})", above(1, 1),
                 words=(("0", "none refused", GOOD), ("1", "refused", BAD)), width=12),
            graph("Certificates", "New ones an hour, shown and refused. Lasting refusals: nothing good was put there.",
                  "short", ask("sum by (result) (increase(tapewatch_edge_certificates_total{$}[1h]))", "{{result}}"),
                  steps=PLAIN, width=12),
        )),
        Row("Each gateway, as the edge sees it", (
            graph("Gets requests", "1 while it is sent to. 0 of one that runs: EdgeBackendDown; slots without a "
                  "gateway are 0, too.", "short",
                  ask('max by (server) (haproxy_server_status{$,proxy="gateways",state="UP"})', "{{server}}")),
            graph("Requests", "A second. One apart from the others is out, or slow.", "reqps",
                  ask('sum by (server) (rate(haproxy_server_http_responses_total{$,proxy="gateways"}[$r]))',
                      "{{server}}")),
            graph("Failed health checks", "A second. Those of slots without a gateway do not mean anything.", "ops",
                  ask('sum by (server) (rate(haproxy_server_check_failures_total{$,proxy="gateways"}[$r]))',
                      "{{server}}")),
        )),
        Row("Reference data", (
            graph("Asked for, and had", "A second. Far apart: somebody goes past the cache, and gateways answer.",
                  "reqps",
                  ask('sum(rate(haproxy_frontend_http_cache_lookups_total{$,proxy="orders"}[$r]))', "asked for"),
                  ask('sum(rate(haproxy_frontend_http_cache_hits_total{$,proxy="orders"}[$r]))', "accepted: had"),
                  width=12),
            graph("Sessions", "Connections of clients now open at the edge.", "short",
                  ask('sum(haproxy_frontend_current_sessions{$,proxy="orders"})', "open"), steps=PLAIN, width=12),
        )),
    ),
)  # fmt: skip
