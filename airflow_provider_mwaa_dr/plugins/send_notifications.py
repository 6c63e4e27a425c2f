"""
Sends what is due, once: ``python -m airflow_provider_mwaa_dr.plugins.send_notifications STILL_S VERSION``.

An agent starts it as a process of its own, with the environment variables of the scheduler.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.agent.notifier import stalled_after_s
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.notifications import Channel, deliver, due
from airflow_provider_mwaa_dr.core.ports import RECORDS, Clock, StateStore
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.hooks.notifiers import all_channels

log = get_logger(__name__)

SEND_S = 50.0
"""How long the process waits for its channels. A notifier that takes longer is given up: another attempt follows."""


def start(still_s: float, version: int) -> subprocess.Popen[bytes]:
    """Start the process. It inherits the streams, so that its messages are in the scheduler's log."""
    command = [
        sys.executable,
        "-m",
        __spec__.name if __spec__ is not None else __name__,
        f"{still_s:.0f}",
        str(version),
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def main(argv: Sequence[str]) -> int:
    """Send what is due, and return 0 if all of it is sent."""
    config, clock = conf.load(), SystemClock()
    return send(
        config,
        conf.state_store(config, clock),
        all_channels(config),
        clock,
        still_s=float(argv[0]),
        version=int(argv[1]),
    )


def send(
    config: DRConfig, store: StateStore, channels: Sequence[Channel], clock: Clock, *, still_s: float, version: int
) -> int:
    """
    Send what is due, over all channels at the same time.

    :param still_s: for how many seconds the state of *version* has not changed.
    """
    state = store.read()
    found = due(
        state,
        store.find_all(RECORDS),
        now=clock.now(),
        still_s=still_s if state.version == version else 0.0,
        patience_s=stalled_after_s(Timing.from_config(config).takeover_s),
    )
    owner = f"agent of {config.region} on {socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    sent: dict[str, bool] = {}

    def work(channel: Channel) -> None:
        try:
            sent[channel.name] = deliver(store, channel, found, clock, owner=owner)
        except Exception as error:  # a later process sends it
            log.warning("Notifications to %s could not be sent: %s", channel.name, error)

    threads = [threading.Thread(target=work, args=(channel,), daemon=True) for channel in channels]
    for thread in threads:
        thread.start()
    deadline = clock.monotonic() + SEND_S
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    return 0 if all(sent.get(channel.name, False) for channel in channels) else 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # A notifier that hangs may have threads that no exit would end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
