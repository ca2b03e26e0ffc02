#!/usr/bin/env python3
"""Writes the dashboards in dashboards/ from the definitions below.

    pip install -r requirements.txt
    ./dashboards.py            # writes
    ./dashboards.py --check    # fails if a file is not what this would write

A panel is one line or a few: title, what it shows, unit, queries. Every panel has a description,
every query uses the dashboard's data source and $__rate_interval.
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphGradientMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    GridPos,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

FOLDER = pathlib.Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

# The roles that a dashboard is about, as chosen above it.
ROLES = 'job=~"$job", instance=~"$instance"'

# Histograms whose buckets name a trace: their graphs show the points of exemplars.
TRACED = (
    "baton_http_request_duration_seconds",
    "baton_ingress_first_event_seconds",
    "baton_run_duration_seconds",
    "baton_model_first_token_seconds",
    "baton_model_turn_duration_seconds",
    "baton_tool_call_duration_seconds",
)


def rate(metric, labels="", by="", roles=False):
    """The rate of a counter, summed over roles and the labels that are not in `by`."""
    chosen = ", ".join(part for part in (labels, ROLES if roles else "") if part)
    selector = f"{{{chosen}}}" if chosen else ""
    return f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))"


def quantiles(metric, labels="", by=(), qs=(0.5, 0.95, 0.99)):
    """Quantiles of a histogram: pairs of a query and its legend."""
    selector = f"{{{labels}}}" if labels else ""
    groups = ", ".join(["le", *by])
    series = "".join(f"{{{{{name}}}}} " for name in by)
    return [
        (
            f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{selector}[$__rate_interval])))",
            f"{series}p{round(q * 100)}",
        )
        for q in qs
    ]


def target(expr, legend, ref, instant):
    query = prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id(ref)
    if instant:
        return query.instant()
    is_traced = any(f"{metric}_bucket" in expr for metric in TRACED)
    return query.range().exemplar(True) if is_traced else query.range()


def finished(panel, title, about, unit, queries, instant):
    panel.title(title).description(about).unit(unit).datasource(SOURCE)
    for number, (expr, legend) in enumerate(queries):
        panel.with_target(target(expr, legend, chr(ord("A") + number), instant))
    return panel


def graph(title, about, unit, *queries, stacked=False, least=0):
    panel = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(40 if stacked else 8)
        .gradient_mode(GraphGradientMode.NONE)
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if least is not None:
        panel.min(least)
    if stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return 8, 7, finished(panel, title, about, unit, queries, False)


def number(title, about, unit, expr, *, decimals=None):
    panel = stat.Panel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    if decimals is not None:
        panel.decimals(decimals)
    return 4, 4, finished(panel, title, about, unit, [(expr, "")], True)


def variables(names):
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    choices = {
        "job": ("Role", "label_values(baton_build_info, job)"),
        "instance": ("Instance", 'label_values(baton_build_info{job=~"$job"}, instance)'),
        "lane": ("Lane", "label_values(baton_queue_runs, lane)"),
        "model": ("Model", "label_values(baton_model_turns_total, model)"),
    }
    for name in names:
        label, query = choices[name]
        yield (
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text="All", value="$__all"))
            .hide(VariableHide.DONT_HIDE)
        )


def build(uid, title, about, names, rows):
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["baton"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["baton"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Deploys")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("blue")
            .expr("sum by (job, version, commit) (changes(process_start_time_seconds[2m]) > 0) or count by (job, version, commit) (baton_build_info unless baton_build_info offset 2m)")
        )
    )
    for variable in variables(names):
        board.with_variable(variable)
    y, identity = 0, 1
    for row, panels in rows:
        board.with_row(dashboard.Row(row).grid_pos(GridPos(x=0, y=y, w=24, h=1)).id(identity))
        y, x, tallest, identity = y + 1, 0, 0, identity + 1
        for width, height, panel in panels:
            if x + width > 24:
                x, y, tallest = 0, y + tallest, 0
            panel.id(identity).grid_pos(GridPos(x=x, y=y, w=width, h=height))
            board.with_panel(panel)
            x, tallest, identity = x + width, max(tallest, height), identity + 1
        y += tallest
    return json.dumps(board.build(), cls=JSONEncoder, sort_keys=True, indent=2) + "\n"


SERVICE = build(
    "baton-service",
    "Baton: Service",
    "Whether the service keeps its promises, and who suffers if not. Begin here.",
    ["job", "instance"],
    [
        (
            "Promises",
            [
                number("Requests answered", "Share of HTTP requests in the last hour that were not answered with a 5xx. Objective: 99.9 %.", "percentunit", "1 - baton:http_errors:ratio_rate1h", decimals=3),
                number("Runs that end well", "Share of ended runs in the last hour that did not fail; cancelled ones do not count. Objective: 99 %.", "percentunit", "1 - baton:run_failures:ratio_rate1h", decimals=2),
                number("First event within 5 s", "Share of chats in the last hour whose client was shown something within 5 s. Objective: 95 %.", "percentunit", "1 - baton:first_event_slow:ratio_rate1h", decimals=2),
                number("Alerts", "Alerts of Baton that fire now. Each has a runbook.", "none", 'count(ALERTS{alertname=~"Baton.*", alertstate="firing"}) or vector(0)'),
                number("Roles up", "Processes of Baton that Prometheus reaches.", "none", 'sum(up{job=~"baton-.*"})'),
                number("Open streams", "Clients that follow a run at this moment.", "none", "sum(baton_ingress_streams)"),
            ],
        ),
        (
            "Error budgets",
            [
                graph("Burn rate, 1 h", "How many times faster than the objective allows the error budget is used up: 1 uses it up in exactly 30 days, 14.4 in two.", "none", ("baton:http_errors:ratio_rate1h / 0.001", "requests"), ("baton:run_failures:ratio_rate1h / 0.01", "runs"), ("baton:first_event_slow:ratio_rate1h / 0.05", "first event")),
                graph("Runs accepted", "Runs accepted by the way they came in.", "reqps", (rate("baton_ingress_runs_accepted_total", 'kind="new"', "route"), "{{route}}"), (rate("baton_ingress_runs_accepted_total", 'kind="replay"'), "repeated")),
                graph("Runs ended", "Runs ended by terminal status.", "reqps", (rate("baton_runs_ended_total", by="status"), "{{status}}")),
            ],
        ),
        (
            "Speed",
            [
                graph("First event of a chat", "From acceptance to the first event that the client is shown: queue, claim, and the model's first token.", "s", *quantiles("baton_ingress_first_event_seconds")),
                graph("Whole runs", "From acceptance to the end of a run; waits for people are included.", "s", *quantiles("baton_run_duration_seconds")),
                graph("Answer heads by route", "95th percentile until the response head; a stream's head comes before its events.", "s", *quantiles("baton_http_request_duration_seconds", ROLES, ("route",), (0.95,))),
            ],
        ),
        (
            "Requests",
            [
                graph("Requests by route", "HTTP requests answered, by route template.", "reqps", (rate("baton_http_requests_total", by="route", roles=True), "{{route}}"), stacked=True),
                graph("Errors by route", "Answers with a 4xx or a 5xx, by route template and status.", "reqps", (rate("baton_http_requests_total", 'status=~"[45].."', "route, status", roles=True), "{{status}} {{route}}")),
                graph("Refusals", "Requests refused for their credential, their number, or what their key may use up.", "reqps", (rate("baton_ingress_auth_refusals_total", by="reason"), "credential: {{reason}}"), (rate("baton_ingress_rate_limited_total", by="whose"), "rate: {{whose}}"), (rate("baton_ingress_limit_refusals_total", by="limit"), "limit: {{limit}}")),
            ],
        ),
        (
            "Streams",
            [
                graph("Open streams", "Open event streams, by the wire they speak.", "none", ("sum by (wire) (baton_ingress_streams)", "{{wire}}")),
                graph("Stream ends", "Streams that ended, by how; `error` and `withdrawn` are what a client notices.", "reqps", (rate("baton_ingress_stream_ends_total", by="end"), "{{end}}")),
                graph("Cancels", "Time from asking for a cancel to the end of all work, and runs cancelled because their client went away.", "s", *quantiles("baton_cancel_latency_seconds", qs=(0.95,)), (rate("baton_ingress_disconnect_cancels_total"), "clients gone, per second")),
            ],
        ),
    ],
)

RUNS = build(
    "baton-runs",
    "Baton: Runs and queue",
    "Where runs wait, who works on them, and what was put right after a crash.",
    ["lane"],
    [
        (
            "Now",
            [
                number("Queued", "Runs that wait for a worker.", "none", 'sum(max by (lane) (baton_queue_runs{status="queued", lane=~"$lane"}))'),
                number("Oldest queued", "Age of the oldest run that waits for a worker.", "s", 'max(baton_queue_oldest_seconds{status="queued", lane=~"$lane"})'),
                number("Slots in use", "Share of all workers' slots that hold a run.", "percentunit", "sum(baton_worker_active_runs) / sum(baton_worker_slots)", decimals=0),
                number("Workers", "Workers that the scheduler hears.", "none", "max(baton_workers_seen)"),
                number("Waiting for people", "Runs that wait until somebody decides.", "none", 'sum(max by (lane) (baton_queue_runs{status="awaiting_approval", lane=~"$lane"}))'),
                number("Dead letters", "Messages in DEAD: see the runbook BatonDeadLetters.", "none", 'max(jetstream_stream_total_messages{stream_name="DEAD"})'),
            ],
        ),
        (
            "Queue",
            [
                graph("Runs by lane and state", "Runs that wait, are worked on, or wait for a person.", "none", ('max by (lane, status) (baton_queue_runs{lane=~"$lane"})', "{{lane}} {{status}}")),
                graph("Oldest by lane and state", "Age of the oldest of them. That of queued runs is what people wait.", "s", ('max by (lane, status) (baton_queue_oldest_seconds{lane=~"$lane"})', "{{lane}} {{status}}")),
                graph("Queue wait", "From being queued to being claimed by a worker.", "s", *quantiles("baton_run_queue_wait_seconds")),
                graph("Slots", "Runs that workers hold, and may hold.", "none", ("sum(baton_worker_active_runs)", "in use"), ("sum(baton_worker_slots)", "all")),
                graph("Lag per slot", "Jobs that wait or are worked on, for each slot: above 1 there is more work than slots. Scale workers by it.", "none", ("baton:queue_lag_per_slot:ratio", "lag per slot")),
                graph("JetStream consumers", "Jobs that no worker has been given, that workers hold, and of those the ones delivered more than once.", "none", ("max by (consumer_name) (jetstream_consumer_num_pending)", "{{consumer_name}} pending"), ("max by (consumer_name) (jetstream_consumer_num_ack_pending)", "{{consumer_name}} held"), ("max by (consumer_name) (jetstream_consumer_num_redelivered)", "{{consumer_name}} redelivered"), ('max(jetstream_stream_total_messages{stream_name="JOBS"})', "JOBS")),
            ],
        ),
        (
            "Attempts",
            [
                graph("Claims", "Runs claimed: first attempts, and later ones after a hand-over or a takeover.", "reqps", (rate("baton_runs_claimed_total", by="attempt"), "{{attempt}}")),
                graph("Given back", "Runs handed over by a draining worker, parked for a person, and cut by the drain's deadline.", "reqps", (rate("baton_runs_handed_over_total"), "handed over"), (rate("baton_runs_parked_total"), "parked"), (rate("baton_worker_drain_cut_runs_total"), "cut by a drain")),
                graph("Takeovers", "Runs taken from a worker that was lost, at the end of its lease or before, and those spared because it lives.", "reqps", (rate("baton_leases_expired_total"), "lease expired"), (rate("baton_runs_taken_early_total"), "taken early"), (rate("baton_runs_spared_total"), "spared")),
                graph("Fenced", "Writes refused because a newer attempt has the run, and attempts stopped for it.", "reqps", (rate("baton_writes_fenced_total", by="by"), "write, by the {{by}}"), (rate("baton_leases_lost_total"), "attempt stopped")),
                graph("Put right", "Lost jobs published again, lost ends appended again, lost streams made again.", "reqps", (rate("baton_jobs_republished_total"), "jobs"), (rate("baton_ends_told_total"), "ends"), (rate("baton_broker_assets_restored_total"), "streams and consumers")),
                graph("Set aside", "Messages in DEAD, jobs that were moved there, and jobs that no consumer will deliver.", "none", ('max(jetstream_stream_total_messages{stream_name="DEAD"})', "in DEAD"), ("sum(increase(baton_jobs_quarantined_total[$__rate_interval]))", "moved there"), ("max(baton_jobs_stranded)", "stranded")),
            ],
        ),
        (
            "People and budgets",
            [
                graph("Decisions", "Parked calls that somebody decided, and runs that went on because nobody did.", "reqps", (rate("baton_ingress_approvals_decided_total", by="decision"), "{{decision}}"), (rate("baton_approvals_expired_runs_total"), "expired")),
                graph("Tasks of tools", "Parked runs that were queued to ask a tool's server about a task.", "reqps", (rate("baton_tasks_due_total"), "asked about")),
                graph("Messages to runs", "Messages to working runs, by what became of them, and those that became part of their run.", "reqps", (rate("baton_ingress_run_inputs_total", by="end"), "{{end}}"), (rate("baton_run_inputs_applied_total"), "applied")),
                graph("Titles of threads", "Wishes for a title that runs found when they joined their thread, and answers of models that became a title or did not.", "reqps", (rate("baton_ingress_thread_titles_total", by="end"), "{{end}}"), (rate("baton_thread_titles_total", by="given"), "title given: {{given}}")),
                graph("Budgets", "Runs that ended, or went back to the queue, because of what their key may use up, and runs that ended at a limit of their own.", "reqps", (rate("baton_worker_budget_stops_total", by="turn"), "turn {{turn}}"), (rate("baton_worker_budget_waits_total"), "waits for others"), (rate("baton_worker_limits_reached_total", by="limit"), "run: {{limit}}")),
                graph("Jobs published", "Jobs published for accepted runs; what is not stored at once is published by the scheduler.", "reqps", (rate("baton_ingress_jobs_published_total", by="outcome"), "{{outcome}}")),
            ],
        ),
    ],
)

MODELS = build(
    "baton-models",
    "Baton: Models, tools and cost",
    "How the upstream and the tools behave, and what it costs. Models and tools that the configuration does not name are `other`.",
    ["model"],
    [
        (
            "Now",
            [
                number("Requests that begin to answer", "Share of requests to the model server in the last 15 minutes that an answer began to.", "percentunit", 'sum(rate(baton_model_requests_total{outcome="ok"}[15m])) / sum(rate(baton_model_requests_total[15m]))', decimals=1),
                number("First token, p95", "From asking the model to its first output, over 15 minutes.", "s", 'histogram_quantile(0.95, sum by (le) (rate(baton_model_first_token_seconds_bucket{model=~"$model"}[15m])))'),
                number("Tokens in, 24 h", "Tokens that models read, cached ones included.", "short", 'sum(increase(baton_model_tokens_total{direction="input", model=~"$model"}[24h]))', decimals=1),
                number("Tokens out, 24 h", "Tokens that models wrote.", "short", 'sum(increase(baton_model_tokens_total{direction="output", model=~"$model"}[24h]))', decimals=1),
                number("Cost, 24 h", "At the configured prices, in their currency; models without a price cost nothing here.", "none", 'sum(increase(baton_model_cost_nanos_total{model=~"$model"}[24h])) / 1e9', decimals=4),
                number("Tool calls that succeed", "Share of tool calls in the last 15 minutes that brought a result.", "percentunit", 'sum(rate(baton_tool_calls_total{ok="true"}[15m])) / sum(rate(baton_tool_calls_total[15m]))', decimals=1),
            ],
        ),
        (
            "Model server",
            [
                graph("Requests", "Requests to the model server, retries included, by outcome.", "reqps", (rate("baton_model_requests_total", by="outcome"), "{{outcome}}"), stacked=True),
                graph("Turns that failed", "Model turns that failed for good, after all retries, by error code: each ends a run.", "reqps", (rate("baton_model_turn_failures_total", by="code"), "{{code}}")),
                graph("Turns that ended well", "By model.", "reqps", (rate("baton_model_turns_total", 'model=~"$model"', "model"), "{{model}}")),
                graph("First token", "From asking the model to its first output.", "s", *quantiles("baton_model_first_token_seconds", 'model=~"$model"', ("model",), (0.5, 0.95))),
                graph("Turn length", "From asking the model to the end of its answer.", "s", *quantiles("baton_model_turn_duration_seconds", 'model=~"$model"', ("model",), (0.5, 0.95))),
                graph("Retries for each turn", "Requests to the model server beyond the first, for each turn that ended well or failed.", "none", ("sum(rate(baton_model_requests_total[$__rate_interval])) / (sum(rate(baton_model_turns_total[$__rate_interval])) + sum(rate(baton_model_turn_failures_total[$__rate_interval]))) - 1", "retries")),
                graph("Turns withdrawn", "Answers that broke off, were withdrawn and asked for again.", "reqps", (rate("baton_model_turns_withdrawn_total"), "withdrawn")),
                graph("Compactions", "Conversations that were to be compacted, by whether the model wrote a whole summary.", "reqps", (rate("baton_worker_compactions_total", by="result"), "{{result}}")),
                graph("Other models", "Turns that another model answered than the one asked for, by whether it has a price.", "reqps", (rate("baton_model_other_answers_total", by="priced"), "priced: {{priced}}")),
                graph("Fallbacks", "Upstreams that did not answer a turn, so that another one was asked, by the reason.", "reqps", (rate("baton_model_fallbacks_total", by="upstream, reason"), "{{upstream}} {{reason}}")),
                graph("Upstreams passed over", "Workers that pass an upstream over because it failed several times.", "none", ("sum by (upstream) (1 - baton_model_upstream_up)", "{{upstream}}")),
            ],
        ),
        (
            "MCP servers",
            [
                graph("Failures", "Times that an MCP server could not be asked for its tools or did not answer a call, by kind.", "reqps", (rate("baton_mcp_failures_total", by="server, kind"), "{{server}} {{kind}}")),
                graph("Servers away", "Workers that could not use the server when they last asked for its tools.", "none", ("sum by (server) (1 - baton_mcp_server_up)", "{{server}}")),
            ],
        ),
        (
            "Tokens and cost",
            [
                graph("Tokens", "Tokens a second as the upstream counted them; cached ones are part of the input.", "none", (rate("baton_model_tokens_total", 'model=~"$model"', "model, direction"), "{{model}} {{direction}}")),
                graph("Cost per hour", "At the configured prices, in their currency.", "none", ('sum by (model) (rate(baton_model_cost_nanos_total{model=~"$model"}[$__rate_interval])) * 3600 / 1e9', "{{model}}"), stacked=True),
                graph("Refused for budgets", "Runs refused because of what their key may use up, by the limit.", "reqps", (rate("baton_ingress_limit_refusals_total", by="limit"), "{{limit}}")),
            ],
        ),
        (
            "Tools",
            [
                graph("Calls", "Tool calls, by tool and success. A name that no tool has counts as `other`.", "reqps", (rate("baton_tool_calls_total", by="tool, ok"), "{{tool}} ok={{ok}}")),
                graph("Calls without a result", "Tool calls that failed, by the reason that the model is given.", "reqps", (rate("baton_tool_call_failures_total", by="tool, reason"), "{{tool}} {{reason}}")),
                graph("Call length", "95th percentile, by tool.", "s", *quantiles("baton_tool_call_duration_seconds", by=("tool",), qs=(0.95,))),
                graph("Calls that wait for a person", "Questions by their reason: the outcome of a call is unknown, or its tool requires approval.", "reqps", (rate("baton_approvals_requested_total", by="reason"), "{{reason}}")),
            ],
        ),
    ],
)

PARTS = build(
    "baton-parts",
    "Baton: Parts",
    "The processes, PostgreSQL and NATS.",
    ["job", "instance"],
    [
        (
            "Processes",
            [
                graph("Up", "1 for each process that Prometheus reaches.", "none", ('up{job=~"baton-.*"}', "{{job}} {{instance}}")),
                graph("Processor", "Processor time used, in cores.", "none", (f"rate(process_cpu_seconds_total{{{ROLES}}}[$__rate_interval])", "{{job}} {{instance}}")),
                graph("Memory", "Resident memory.", "bytes", (f"process_resident_memory_bytes{{{ROLES}}}", "{{job}} {{instance}}")),
                graph("Open files", "Open files and sockets.", "none", (f"process_open_fds{{{ROLES}}}", "{{job}} {{instance}}")),
                graph("Tasks", "Tasks of the async runtime, and those that wait for a thread: many of these say that it is blocked.", "none", (f"sum by (job) (baton_runtime_tasks{{{ROLES}}})", "{{job}}"), (f"sum by (job) (baton_runtime_queued_tasks{{{ROLES}}})", "{{job}} queued"), (f"sum by (job) (process_threads{{{ROLES}}})", "{{job}} threads")),
                graph("Uptime and builds", "Time since each process began; the legend says what it was built from.", "s", (f"(time() - process_start_time_seconds{{{ROLES}}}) * on (job, instance) group_left (version, commit, built_at) baton_build_info", "{{job}} {{instance}} {{version}} {{commit}} {{built_at}}")),
                graph("Draining", "1 while a role drains.", "none", (f"baton_draining{{{ROLES}}}", "{{job}} {{instance}}")),
                graph("Configuration reloads", "Configurations that a role read anew: taken, or refused for their mistakes.", "none", (f"sum by (job, outcome) (increase(baton_config_reloads_total{{{ROLES}}}[$__rate_interval]))", "{{job}} {{outcome}}")),
                graph("Agents of files", "Agents of the server's files: in force, or refused for some tenant.", "none", ("max by (state) (baton_ingress_file_agents)", "{{state}}")),
                graph("Spans", "Spans that ended, those that the receiver of traces took, and those that could not be sent to it. If more end than are sent or lost, the queue is full. Of traces that are not sampled: kept for an error, dropped, or crowded out.", "none", (rate("baton_trace_spans_total", by="job, outcome", roles=True), "{{job}} {{outcome}}")),
                graph("Request bodies", "Bytes of request bodies that the ingresses hold at this moment.", "bytes", ("sum by (instance) (baton_ingress_body_bytes)", "{{instance}}")),
                graph("Bodies refused", "Request bodies for which there was no room, by limit.", "reqps", (rate("baton_ingress_body_refusals_total", by="limit"), "{{limit}}")),
                graph("HTTP connections", "Open connections, and those that a limit ended.", "none", (f"sum by (job, listener) (baton_http_active_connections{{{ROLES}}})", "{{job}} {{listener}}"), (rate("baton_http_connections_cut_total", by="listener, reason", roles=True), "{{listener}} cut: {{reason}}")),
                graph("Background tasks that fail", "Activations of a background task that failed or panicked.", "reqps", (rate("baton_background_activations_total", 'outcome!="ok"', "task, outcome"), "{{task}} {{outcome}}")),
                graph("Length of background tasks", "95th percentile of the time that an activation takes: the ten slowest.", "s", ("topk(10, histogram_quantile(0.95, sum by (task, le) (rate(baton_background_activation_duration_seconds_bucket[$__rate_interval]))))", "{{task}}")),
            ],
        ),
        (
            "PostgreSQL and NATS",
            [
                graph("Answers", "1 if PostgreSQL or NATS answered a role when it was last asked, else 0.", "none", (f"min by (dependency, job) (baton_dependency_up{{{ROLES}}})", "{{dependency}} from {{job}}")),
                graph("Round trip", "95th percentile of a round trip to PostgreSQL and NATS.", "s", *quantiles("baton_dependency_round_trip_seconds", ROLES, ("dependency",), (0.5, 0.95))),
                graph("Pool wait", "Time that a statement waits for a connection to PostgreSQL.", "s", *quantiles("baton_database_pool_wait_seconds", ROLES, ("pool",), (0.95, 0.99))),
                graph("Slowest statements", "95th percentile of the time that PostgreSQL takes for a statement: the ten slowest, by their names in the code and in `pg_stat_statements`.", "s", (f"topk(10, histogram_quantile(0.95, sum by (statement, le) (rate(baton_database_statement_seconds_bucket{{{ROLES}}}[$__rate_interval]))))", "{{statement}}")),
                graph("Time in statements", "Seconds per second that all processes together wait for each statement: the ten that cost most.", "none", (f"topk(10, sum by (statement) (rate(baton_database_statement_seconds_sum{{{ROLES}}}[$__rate_interval])))", "{{statement}}")),
                graph("Pool use", "Share of a pool's connections that are in use, in the fullest process.", "percentunit", (f"max by (pool) (baton_database_pool_connections_in_use{{{ROLES}}} / baton_database_pool_max_connections{{{ROLES}}})", "{{pool}}")),
                graph("No connection in time", "Statements that got no connection to PostgreSQL within the acquire timeout.", "reqps", (rate("baton_database_pool_timeouts_total", by="pool", roles=True), "{{pool}}")),
                graph("Connections to NATS", "Connections that are lost at this moment, and how often one was lost.", "none", (f"sum by (job) (baton_nats_connections_lost{{{ROLES}}})", "{{job}} lost now"), (rate("baton_nats_disconnects_total", by="job", roles=True), "{{job}} losses per second")),
                graph("Events fetched", "Followers that missed live events and read them from the stream, and subscriptions that were full.", "reqps", (rate("baton_event_gaps_total", by="job", roles=True), "{{job}} gaps"), (rate("baton_nats_slow_subscriptions_total", by="job", roles=True), "{{job}} full")),
                graph("Foreign messages", "Messages that reached a consumer and were not for it: somebody may be trying something.", "reqps", (rate("baton_bus_foreign_messages_total", by="consumer", roles=True), "{{consumer}}")),
                graph("Certificates", "Time until the end of the certificates that the configuration names. Below 0: ended, or the file cannot be read.", "s", (f"min by (job, setting) (baton_certificate_end_seconds{{{ROLES}}}) - time()", "{{job}} {{setting}}"), least=None),
                graph("Rate limits kept alone", "1 while an ingress keeps rate limits by itself because NATS is away, and the decisions made so.", "none", ("max by (instance) (baton_ingress_rate_limits_local)", "{{instance}}"), (rate("baton_ingress_rate_limit_local_decisions_total"), "decisions per second")),
            ],
        ),
        (
            "Programs on the bus",
            [
                graph("Submissions", "Messages that programs submitted over the bus, by what became of them.", "reqps", (rate("baton_ingress_submissions_total", by="end"), "{{end}}"), (rate("baton_ingress_programs_dropped_total", by="why"), "dropped: {{why}}")),
                graph("Connections", "Connections to the broker that programs asked for, and whether each ingress hears programs.", "none", (rate("baton_ingress_bus_connects_total", by="outcome"), "{{outcome}}"), ("sum(baton_ingress_programs_connected)", "ingresses that hear programs")),
                graph("Revocation", "95th percentile from a credential's end to the end of what was opened with it, and refresh tokens that were used twice.", "s", *quantiles("baton_ingress_revocation_seconds", by=("what",), qs=(0.95,)), (rate("baton_ingress_refresh_tokens_reused_total"), "reused tokens per second")),
            ],
        ),
    ],
)

DASHBOARDS = {"service": SERVICE, "runs": RUNS, "models": MODELS, "parts": PARTS}


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for name, text in DASHBOARDS.items():
        path = FOLDER / f"{name}.json"
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not what dashboards.py writes: {', '.join(stale)}")


if __name__ == "__main__":
    main()
