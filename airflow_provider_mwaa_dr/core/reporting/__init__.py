"""A failover as a page: a figure over time, and one printable file. Used by the drill and by ``mwaa-dr report``."""
