"""Values of the provider, stored as variables of Airflow: Airflow encrypts them, and rotates the key."""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from airflow_provider_mwaa_dr.exceptions import ConfigError
from airflow_provider_mwaa_dr.plugins.metadata.schema import VARIABLES, existing_columns
from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction

RESERVED = "airflow_provider_mwaa_dr."
"""What the names of the provider's own variables begin with. Airflow's web server hides values of a "private_key"."""


class MetadataSecrets:
    """The provider's own values; each method is a short transaction."""

    def variable(self, name: str) -> str:
        """Return the name of the Airflow variable with the provider's value *name*."""
        return f"{RESERVED}{name}"

    def secret(self, name: str) -> str | None:
        """Return a value; None if there is none. :raises ConfigError: it cannot be decrypted."""
        with transaction() as session:
            row = session.execute(select(VARIABLES).where(VARIABLES.c.key == self.variable(name))).first()
        if row is None:
            return None
        value = plain_text(row.val, row.is_encrypted)
        if value is None:
            raise ConfigError(
                f"The Airflow variable {row.key} cannot be decrypted.",
                advice="Restore Airflow's Fernet key, or delete the variable: the agent makes a new one, and the other "
                "region has to accept it.",
            )
        return value

    def add_secret(self, name: str, value: str) -> str:
        """Store a value unless there is one, and return the stored one. Two schedulers get the same value."""
        stored = self.secret(name)
        if stored is not None:
            return stored
        description = "A key of airflow-provider-mwaa-dr. Another value stops the comparison of values."
        row = {"key": self.variable(name), **_encrypted(value), "description": description}
        # Another scheduler of this environment may add it first: the name is unique.
        with contextlib.suppress(IntegrityError), transaction() as session:
            session.execute(insert(VARIABLES).values(existing_columns(VARIABLES, row)))
        return self.secret(name) or value

    def put_secret(self, name: str, value: str) -> None:
        """Store a value in place of the stored one, if there is one. The last writer wins."""
        with transaction() as session:
            changed = session.execute(
                update(VARIABLES).where(VARIABLES.c.key == self.variable(name)).values(_encrypted(value))
            )
        if changed.rowcount == 0:
            self.add_secret(name, value)


def _encrypted(value: str) -> dict[str, Any]:
    from airflow.models.crypto import get_fernet  # noqa: PLC0415

    fernet = get_fernet()
    return {"val": fernet.encrypt(value.encode()).decode(), "is_encrypted": fernet.is_encrypted}


def plain_text(text: str | None, is_encrypted: bool | None) -> str | None:
    """Return a stored value in plain text; None if this environment's key cannot decrypt it."""
    if not text or not is_encrypted:
        return text or ""
    from airflow.models.crypto import get_fernet  # noqa: PLC0415
    from cryptography.fernet import InvalidToken  # noqa: PLC0415

    try:
        return str(get_fernet().decrypt(text.encode()).decode())
    except (InvalidToken, ValueError):
        return None
