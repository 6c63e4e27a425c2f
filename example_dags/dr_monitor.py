"""
Watch the active region, and fail over when it is certain to have failed; off until it is unpaused.

Deploy it in a third region, or in the standby: an Airflow does not see itself fail. It looks every 30 seconds and says
so at the first bad look (``suspicion``); after four more in a row the region counts as lost (``loss``), a single good
series ends the matter. An environment in an update or in maintenance, a state table that does not answer and a failover
in progress are unknown, which is not failed.

It also reports values of the state table that cannot be used: immediately a state item that gives no region a role,
because there is no region to watch then, and once an hour the items that cannot be read.

What happens then is up to the Variable ``dr_monitor_mode``, read at that moment:

- ``notify`` (default): tell, and wait for somebody to act;
- ``approve``: tell, and fail over once somebody has marked the task ``approval`` as a success, for an hour;
- ``automatic``: tell, and fail over.

No failover begins within six hours of another one, nor the third within a day. Everything is told to the SNS topic of
``[dr] notification_topic``; a topic that does not answer stops nothing.
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

LOOK_EVERY_S = 30.0
STRIKES = 4
QUORUM = 2
PROBE_EVERY_S = 900.0
"""A run of dr_test_dag in the active region, to see a task execute; None for none."""
ITEMS_EVERY_S = 3600.0
"""Between two scans for items that cannot be read. They are reported once in this time."""
COOLDOWN = timedelta(hours=6)
MAX_PER_DAY = 2
MODES = {"notify": "recovery", "approve": "approval", "automatic": "fail_over"}

topic = conf.load().notification_topic


def tell(subject: str, message: str) -> list[SnsNotifier]:
    """Return what publishes a message, in a callback of a task; nothing where no topic is set."""
    if not topic:
        return []
    region = topic.split(":")[3]
    return [SnsNotifier(aws_conn_id=None, region_name=region, target_arn=topic, subject=subject, message=message)]


NOT_DONE = tell(
    "MWAA DR: failover not done",
    "{{ exception }} mwaa-dr status shows where it stands; run {{ run_id }} of dr_monitor has the log.",
)


def told_by(task_id: str, key: str) -> str:
    """Return a template for what a task returned."""
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
    # A task that keeps a worker for days is ended on MWAA when its queue's message becomes visible again.
    default_args={"deferrable": True, "retries": 2, "retry_delay": timedelta(seconds=30)},
) as dag:
    suspicion = EnvironmentHealthSensor(
        task_id="suspicion",
        strikes=1,
        quorum=QUORUM,
        probe_interval=PROBE_EVERY_S,
        problem_interval=ITEMS_EVERY_S,
        poke_interval=LOOK_EVERY_S,
        timeout=timedelta(days=365).total_seconds(),
        on_success_callback=tell(
            f"MWAA DR: {{% if {SUSPECTED} %}}the active region may be failing"
            "{% else %}stored values cannot be used{% endif %}",
            f"{{% if {SUSPECTED} %}}{told_by('suspicion', 'text')}. The region is checked {STRIKES} times more "
            f"before anything is done. {{% endif %}}{{{{ ({SUSPICION}.get('problems') or []) | join(' ') }}}}",
        ),
    )
    loss = EnvironmentHealthSensor(
        task_id="loss",
        strikes=STRIKES,
        quorum=QUORUM,
        skip_if_healthy=True,
        poke_interval=LOOK_EVERY_S,
        timeout=timedelta(days=1).total_seconds(),
        on_success_callback=tell(
            "MWAA DR: the active region has failed",
            f"{told_by('loss', 'text')}. What happens now is up to the Variable "
            "dr_monitor_mode: {{ var.value.get('dr_monitor_mode', 'notify') }}. By hand: mwaa-dr failover, to one of "
            f"{told_by('loss', 'standbys')}. Mode approve: mark the task approval of run {{{{ run_id }}}} of "
            "dr_monitor as a success within the hour.",
        ),
    )

    @task.branch(retries=0, on_failure_callback=NOT_DONE)
    def decision(mode: str) -> str:
        """Return the task that the mode leads to."""
        if mode not in MODES:
            raise ValueError(f"The Variable dr_monitor_mode is {mode!r}; allowed are {', '.join(MODES)}.")
        return MODES[mode]

    @task.sensor(mode="reschedule", poke_interval=60, timeout=3600, retries=0)
    def approval() -> bool:
        """Wait for somebody who marks this task as a success."""
        return False

    fail_over = FailoverOperator(
        task_id="fail_over",
        target_region="{{ ti.xcom_pull(task_ids='loss')['standbys'][0] }}",
        reason=f"dr_monitor: {told_by('loss', 'region')} has failed: {told_by('loss', 'why')}",
        cooldown=COOLDOWN,
        max_per_day=MAX_PER_DAY,
        # A retry goes on with the plan that the try before it left open.
        retries=3,
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        on_success_callback=tell(
            "MWAA DR: failover done",
            f"{told_by('fail_over', 'to')} is active, epoch {told_by('fail_over', 'epoch')} "
            f"({told_by('fail_over', 'mode')}, plan {told_by('fail_over', 'id')}). Not unpaused: "
            f"{told_by('fail_over', 'not_unpaused')}. What waits: mwaa-dr status.",
        ),
        on_failure_callback=NOT_DONE,
    )
    recovery = EnvironmentHealthSensor(
        task_id="recovery",
        until="healthy",
        strikes=STRIKES,
        quorum=QUORUM,
        poke_interval=LOOK_EVERY_S,
        timeout=timedelta(days=365).total_seconds(),
        trigger_rule=TriggerRule.ALL_DONE,
    )

    decided, approved = decision("{{ var.value.get('dr_monitor_mode', 'notify') }}"), approval()
    suspicion >> loss >> decided >> [approved, fail_over, recovery]
    approved >> fail_over >> recovery
