"""Names that the listener and its clients share: media types and headers. It imports nothing."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
FORM = "application/x-www-form-urlencoded"
HTML = "text/html"
PROBLEM = "application/problem+json"

DELIVERY_ID = "X-Delivery-Id"
"""The header with the id under which a refused request is on record."""
