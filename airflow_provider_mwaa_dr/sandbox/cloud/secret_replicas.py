"""Promotion of a replica of a secret, StopReplicationToReplica, which moto does not have."""

from __future__ import annotations

from copy import copy, deepcopy

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.secretsmanager.models import ReplicaSecret, secretsmanager_backends


class NotAReplicaError(Exception):
    """The error that Secrets Manager answers: its code and its message."""


def stop_replication(region: str, secret_id: str) -> str:
    """
    Make the replica of a secret in *region* a secret of its own, and return its ARN.

    :raises NotAReplicaError: there is no such secret in the region, or it is not a replica.
    """
    secrets = secretsmanager_backends[DEFAULT_ACCOUNT_ID][region].secrets
    replica = secrets.get(secret_id)
    if replica is None:
        raise NotAReplicaError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
    if not isinstance(replica, ReplicaSecret):
        raise NotAReplicaError("InvalidRequestException", f"{secret_id} is not a replica in {region}.")
    promoted = copy(replica.source)
    promoted.arn, promoted.region, promoted.replicas = replica.arn, region, []
    promoted.versions = deepcopy(promoted.versions)
    replica.source.replicas.remove(replica)
    dict.pop(secrets, replica.arn)
    secrets[promoted.name] = promoted
    return promoted.arn
