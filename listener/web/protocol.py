"""Names that the listener and its clients share: media types, headers, limits. It imports nothing."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
FORM = "application/x-www-form-urlencoded"
HTML = "text/html"
PROBLEM = "application/problem+json"

PAGE_MOST = 200
"""Entries that one page of a list holds at most."""

DELIVERY_ID = "X-Delivery-Id"
"""The header with the id under which a refused request is on record."""
