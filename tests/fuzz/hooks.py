"""Hooks of schemathesis.

With FUZZ_VALID, in runs with valid data, usable values replace generated ones, so that requests
pass the first checks of fields and reach the roles. In runs with invalid data, this could make an
invalid body valid.
"""

import os

import schemathesis
from hypothesis import strategies as st

KNOWN_HEADERS = {"authorization", "content-type"}


def enums(schema):
    """Returns the names of all fields and parameters that are enums."""
    schemas = schema["components"]["schemas"]
    names = {name for name, value in schemas.items() if "enum" in value}

    def is_enum(value):
        candidates = (value, value.get("items", {}))
        return any(one.get("$ref", "").rpartition("/")[2] in names for one in candidates)

    properties = [value.get("properties", {}) for value in schemas.values()]
    fields = {name for one in properties for name, value in one.items() if is_enum(value)}
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    parameters = [parameter for operation in operations for parameter in operation["parameters"]]
    return fields | {parameter["name"] for parameter in parameters if is_enum(parameter["schema"])}


def is_lenient(value, enums, name=""):
    """Returns whether a value is accepted by proto3's JSON, but not by the OpenAPI document.

    Such values are null for an unset field, and enums by number.
    """
    if isinstance(value, dict):
        return any(is_lenient(inner, enums, name) for name, inner in value.items())
    if isinstance(value, list):
        return any(is_lenient(inner, enums, name) for inner in value)
    return value is None or (name in enums and str(value).lstrip("-").isdigit())


@schemathesis.hook
def filter_case(context, case):
    """Leaves out cases that schemathesis takes for invalid although they are valid.

    They are the lenient values above, and unknown headers, which HTTP servers ignore.
    """
    names = enums(case.operation.schema.raw_schema)
    known = all(name.lower() in KNOWN_HEADERS for name in case.headers or {})
    lenient = is_lenient(case.body, names) or is_lenient(dict(case.query or {}), names)
    return known and not lenient


def usable():
    """Returns usable values by the names of fields, in whatever message they are."""
    return {
        "event_type": ["fuzz.made", "fuzz.never"],
        "content_type": ["", "application/json", "text/plain"],
        "deliver_at": ["2001-01-01T00:00:00Z"],
        "idempotency_key": ["", "a", "b"],
        "ordering_key": ["", "k"],
        "headers": [{}, {"x-a": "b"}],
        "metadata": [{}, {"a": "b"}],
        "http": [{"url": os.environ["FUZZ_TARGET"]}],
        "timeout": ["1s", "30s"],
        "max_in_flight": [1, 1024],
        "owner_id": ["", "o"],
        "state": ["ENDPOINT_STATE_ACTIVE", "ENDPOINT_STATE_PAUSED"],
        "endpoint_id": [os.environ["FUZZ_ENDPOINT"]],
        "subscription_id": [""],
        "project_id": [os.environ["FUZZ_PROJECT"], ""],
        "api_key_id": [""],
        "event_types": [["fuzz.made"], ["fuzz.*", "*"]],
        "name": ["A name"],
        "scopes": [["SCOPE_EVENTS_READ"], ["SCOPE_ADMIN", "SCOPE_EVENTS_PUBLISH"]],
        "expire_time": ["2999-01-01T00:00:00Z"],
    }


def patched(body, draw):
    """Returns the body with usable values for most of the fields that have them."""
    if isinstance(body, list):
        return [patched(item, draw) for item in body]
    if not isinstance(body, dict):
        return body
    patch = {
        field: draw(st.sampled_from(values))
        for field, values in usable().items()
        if field in body and draw(st.integers(0, 9))
    }
    return {
        field: patch[field] if field in patch else patched(value, draw)
        for field, value in body.items()
    }


if "FUZZ_VALID" in os.environ:

    @schemathesis.hook
    def flatmap_body(context, body):
        return st.builds(lambda data: patched(body, data.draw), st.data())
