"""
What the gate and the agent read and change in Airflow's metadata database; no other package uses Airflow's models.

:mod:`database` is what the agent gets, :mod:`inventory` lists the region's DAGs and settings, and :mod:`starting_run`
is for the gate. :mod:`schema` has the tables, and every difference between versions of Airflow.

The number of statements does not grow with the number of task instances: one UPDATE closes all of a run.
"""
