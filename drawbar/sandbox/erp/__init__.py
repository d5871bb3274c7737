"""Business Central: `business_central.py` is the service, and leads to the module of each job of a request."""
