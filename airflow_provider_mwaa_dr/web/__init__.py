"""
The page "Disaster recovery" and the strip in Airflow's web interface.

A web server reads the state table in a thread of its own, and shows the last read with its age. No request of a browser
waits for AWS. :mod:`~airflow_provider_mwaa_dr.web.airflow_versions` has the differences between Airflow's versions.
"""
