"""The answers of the HTTP API, one model each: what an answer says stands here and nowhere else.

A model is built from objects of the domain, writes itself as JSON, and describes itself in `/openapi.json`.
"""
