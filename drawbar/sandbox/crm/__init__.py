"""Dataverse: `dataverse.py` is the service, and leads to the module of each job of a request."""
