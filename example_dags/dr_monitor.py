"""
Poll the active region, and fail over when it is certain to have failed. The DAG is paused until you unpause it.

Deploy it in a third region, or in the standby: an Airflow cannot detect its own failure. The DAG polls every five
seconds (task ``suspicion``). The region is lost if its MWAA service has not answered for ten seconds, and its agents
are silent while those of another region send heartbeats. That takes 45 seconds or less. While the service answers,
schedulers may be restarting: the DAG sends a message, and waits until the failure has lasted for ten minutes or the
region is healthy (task ``loss``). An environment in an update or in maintenance, a service that throttles, a state
table that does not answer and a failover in progress count as unknown, not as failed.

The DAG also reports values of the state table that cannot be used. It reports a state item that names no active region
immediately, because there is no region to poll then. It reports items that cannot be read once an hour. It reports a
failover that is halted for longer than its caller allowed, and never continues it, cancels it or starts another one.

After a loss the Variable ``dr_monitor_mode``, read at that moment, decides:

- ``notify`` (default): send a message, and wait until the region is healthy or a user has failed over;
- ``approve``: send a message, and fail over when a user marks the task ``approval`` as success, within an hour;
- ``automatic``: send a message, and fail over.

The DAG starts no failover within six hours of the last one, and at most two within 24 hours. It sends all messages to
the SNS topic of ``[dr] notification_topic``. If the topic does not answer, the DAG continues without the message. The
failover itself sends to the same topic that it has started, completed, was aborted or needs a person, so the DAG sends
only what the failover cannot: the findings before it, and a refusal.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

try:
    from airflow.sdk import DAG, TriggerRule, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task
    from airflow.utils.trigger_rule import TriggerRule

from airflow.providers.amazon.aws.notifications.sns import SnsNotifier

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.operators.failover import FailoverOperator
from airflow_provider_mwaa_dr.sensors.environment_health import EnvironmentHealthSensor

POLL_EVERY_S = 5.0
STRIKES = 3
"""A region counts as lost, or as healthy, if it is so in this number of polls in a row."""
RECOVERY_STRIKES = 24
"""After a message that the region has failed, it is watched again when it is healthy in this number of polls."""
QUORUM = 2
RESTART_S = 600.0
"""The longest time without schedulers in an environment whose MWAA service answers."""
PROBE_EVERY_S = 900.0
"""Time between two runs of dr_test_dag in the active region, which check that tasks execute; None for no runs."""
ITEMS_EVERY_S = 3600.0
"""Time between two scans for items that cannot be read. Such items are reported once in this time."""
COOLDOWN = timedelta(hours=6)
MAX_PER_DAY = 2
MODES = {"notify": "recovery", "approve": "approval", "automatic": "fail_over"}

topic = conf.load().notification_topic


def notifiers(subject: str, message: str) -> list[SnsNotifier]:
    """Return callbacks for a task that publish a message; an empty list if no topic is set."""
    if not topic:
        return []
    region = topic.split(":")[3]
    return [SnsNotifier(aws_conn_id=None, region_name=region, target_arn=topic, subject=subject, message=message)]


NOT_DONE = notifiers(
    "MWAA DR: failover not done",
    "{{ exception }} mwaa-dr status shows the state of the DR set; run {{ run_id }} of dr_monitor has the log.",
)


def result_of(task_id: str, key: str) -> str:
    """Return a template for a value that a task returned."""
    return f"{{{{ ti.xcom_pull(task_ids='{task_id}')['{key}'] }}}}"


SUSPICION = "ti.xcom_pull(task_ids='suspicion')"
SUSPECTED = f"{SUSPICION}['health'] == 'failed'"

with DAG(
    dag_id="dr_monitor",
    description="Fail over when the active region has failed",
    doc_md=__doc__,
    schedule="@continuous",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    is_paused_upon_creation=True,
    max_active_runs=1,
    tags=["dr", "dr:control"],
    # Deferrable, because MWAA ends a task that occupies a worker for days: its message in the queue gets visible again.
    default_args={"deferrable": True, "retries": 2, "retry_delay": timedelta(seconds=30)},
) as dag:
    suspicion = EnvironmentHealthSensor(
        task_id="suspicion",
        strikes=STRIKES,
        quorum=QUORUM,
        restart_timeout=RESTART_S,
        suspect=True,
        probe_interval=PROBE_EVERY_S,
        problem_interval=ITEMS_EVERY_S,
        poke_interval=POLL_EVERY_S,
        timeout=timedelta(days=365).total_seconds(),
        on_success_callback=notifiers(
            f"MWAA DR: {{% if {SUSPECTED} %}}the active region may be failing"
            f"{{% elif {SUSPICION}.get('is_halted') %}}a failover does not continue"
            "{% else %}stored values cannot be used{% endif %}",
            f"{{% if {SUSPECTED} %}}{result_of('suspicion', 'text')}. {{% if not {SUSPICION}.get('is_certain') %}}"
            f"The DAG acts only if this lasts for {RESTART_S:.0f} s, because schedulers may be restarting. "
            f"{{% endif %}}{{% endif %}}{{{{ ({SUSPICION}.get('problems') or []) | join(' ') }}}}",
        ),
    )
    loss = EnvironmentHealthSensor(
        task_id="loss",
        earlier=f"{{{{ {SUSPICION} | tojson }}}}",
        strikes=STRIKES,
        quorum=QUORUM,
        restart_timeout=RESTART_S,
        skip_if_healthy=True,
        poke_interval=POLL_EVERY_S,
        timeout=timedelta(days=1).total_seconds(),
        on_success_callback=notifiers(
            "MWAA DR: the active region has failed",
            f"{result_of('loss', 'text')}. The Variable dr_monitor_mode decides what happens now: "
            "{{ var.value.get('dr_monitor_mode', 'notify') }}. By hand: run mwaa-dr failover with one of "
            f"{result_of('loss', 'standbys')}. In mode approve: mark the task approval of run {{{{ run_id }}}} of "
            "dr_monitor as success within an hour.",
        ),
    )

    @task.branch(retries=0, on_failure_callback=NOT_DONE)
    def decision(mode: str) -> str:
        """Return the task to run in this mode."""
        if mode not in MODES:
            raise ValueError(f"The Variable dr_monitor_mode is {mode!r}. Allowed are {', '.join(MODES)}.")
        return MODES[mode]

    @task.sensor(mode="reschedule", poke_interval=60, timeout=3600, retries=0)
    def approval() -> bool:
        """Wait until a user marks this task as success."""
        return False

    fail_over = FailoverOperator(
        task_id="fail_over",
        target_region="{{ ti.xcom_pull(task_ids='loss')['standbys'][0] }}",
        reason=f"dr_monitor: {result_of('loss', 'region')} has failed: {result_of('loss', 'why')}",
        cooldown=COOLDOWN,
        max_per_day=MAX_PER_DAY,
        # A retry continues the plan that the previous try left open.
        retries=3,
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        on_failure_callback=NOT_DONE,
    )
    recovery = EnvironmentHealthSensor(
        task_id="recovery",
        until="healthy",
        strikes=RECOVERY_STRIKES,
        quorum=QUORUM,
        poke_interval=POLL_EVERY_S,
        timeout=timedelta(days=365).total_seconds(),
        trigger_rule=TriggerRule.ALL_DONE,
    )

    decided, approved = decision("{{ var.value.get('dr_monitor_mode', 'notify') }}"), approval()
    suspicion >> loss >> decided >> [approved, fail_over, recovery]
    approved >> fail_over >> recovery
