"""The HTTP surface, on aiohttp. This file imports nothing: a command imports `protocol`, which is quick."""
