"""An MWAA environment: its REST API, its description, and the calls that pause DAGs."""
