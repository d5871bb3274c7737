"""A Business Central and a Dataverse on this machine, with a sign-in that `msal` accepts.

The wire behaviour follows the public references of both products; what is modelled, what is a switch and
what is left out is listed in `docs/sandbox.md`. Nothing in here knows Drawbar: any client of the real
services may be pointed at it.
"""
