"""The processes of a sandbox: Airflows, PostgreSQL, and the home folder that describes them."""
