"""Deployment of the provider to MWAA environments: tables, policies, files and options."""
