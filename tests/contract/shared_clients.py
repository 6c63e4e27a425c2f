"""A boto3 session for many tests."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

import boto3
from botocore.config import Config

_MOST = 64
"""Clients that are kept. The oldest ones belong to servers of earlier tests."""


class SharedClients(boto3.session.Session):
    """
    A boto3 session that returns the same client for the same arguments.

    A new client takes longer than most requests of a test, and each store, command and step of a deployment requests
    some.
    """

    def __init__(self) -> None:
        super().__init__(aws_access_key_id="testing", aws_secret_access_key="testing")
        self._clients: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def client(self, service_name: str, **options: Any) -> Any:  # type: ignore[override]
        """Return a client, which may be shared."""
        config: Config | None = options.get("config")
        given = {**options, "config": None if config is None else config._user_provided_options}
        key = (service_name, os.environ.get("AWS_ENDPOINT_URL"), repr(sorted(given.items())))
        with self._lock:
            if key not in self._clients:
                self._clients[key] = super().client(service_name, **options)
                if len(self._clients) > _MOST:
                    self._clients.popitem(last=False)
            self._clients.move_to_end(key)
            return self._clients[key]

    def forget(self) -> None:
        """Create new clients from now on, for example because the session has other event handlers."""
        with self._lock:
            self._clients.clear()
