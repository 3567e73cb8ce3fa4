"""Real Postgres and Valkey for a machine that has neither (demo, serve, tests).

They listen on loopback only, behind passwords, and end within seconds of the process that started them,
however that ends.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from worker.lab.servers.account import server_account
from worker.lab.servers.folder import DataFolder, LocalServicesError
from worker.lab.servers.postgres import Postgres
from worker.lab.servers.valkey import Valkey

__all__ = ["LocalServices", "LocalServicesError"]


class LocalServices:
    """A Postgres and a Valkey whose data stays in ``data_dir`` from run to run. A context manager.

    ``durable`` False is for tests: faster, and safe against everything but a crash of the machine. Starting
    raises ``LocalServicesError`` if the folder is in use, a server is missing, or one does not start.
    """

    def __init__(
        self, data_dir: Path, *, postgres: bool = True, valkey: bool = True, durable: bool = True
    ) -> None:
        self._folder = DataFolder(data_dir)
        self._wanted = (postgres, valkey)
        self._durable = durable
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None

    @property
    def postgres(self) -> Postgres:
        """The server itself, to stop, kill and start. Raises ``LocalServicesError`` if there is none."""
        if self._postgres is None:
            raise LocalServicesError("This local stack has no Postgres, or is not started.")
        return self._postgres

    @property
    def valkey(self) -> Valkey:
        """The server itself, to stop, kill and start. Raises ``LocalServicesError`` if there is none."""
        if self._valkey is None:
            raise LocalServicesError("This local stack has no Valkey, or is not started.")
        return self._valkey

    @property
    def database_url(self) -> str:
        """``postgresql+psycopg://...`` of the database ``provisioner``, password included."""
        return self.postgres.url()

    @property
    def redis_url(self) -> str:
        """``redis://...`` of database 0, password included."""
        return self.valkey.url

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create another database, as a copy of ``template`` if given; return its URL."""
        return self.postgres.create_database(name, template)

    def start(self) -> None:
        self._folder.open()
        try:
            account = server_account()
            postgres, valkey = self._wanted
            if postgres:
                self._postgres = Postgres(self._folder, account, durable=self._durable)
                self._postgres.start()
            if valkey:
                self._valkey = Valkey(self._folder, account, durable=self._durable)
                self._valkey.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for server in (self._valkey, self._postgres):
            if server is not None:
                server.stop()
        self._valkey = self._postgres = None
        self._folder.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
