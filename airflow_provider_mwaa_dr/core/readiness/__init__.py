"""
The readiness checks: whether a failover would succeed now, and what would be missing in the target afterwards.

Each check is a pure function from :class:`~.model.Facts` to one :class:`~.model.CheckResult`. If a fact could not be
read, because a region is down or the caller has no permission, the result is a warning with the reason. If no check of
``mwaa-dr check`` fails, the engine refuses a failover only for reasons that depend on the request.

``refusals`` has the checks that refuse a failover, ``tables``, ``environments``, ``dags`` and ``upgrade`` the others,
and ``checks`` lists them. ``collect`` reads the facts, and ``examination`` runs the checks on them. Import from these
modules: the failover engine uses ``refusals``, and ``collect`` uses the engine.
"""
