"""Reads a metrics page with Prometheus' own parser (package prometheus_client) and prints it as JSON.

Argument: URL. Fails when the parser refuses the page, or a series stands there twice.
"""

import json
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1]) as answer:
    content_type = answer.headers["content-type"]
    text = answer.read().decode()

samples = []
types = {}
seen = set()


def written(name):
    """The name on the page: the parser adds `_total` to counters that have none."""
    there = name + "{" in text or f"\n{name} " in text
    return name if there else name.removesuffix("_total")


for family in text_string_to_metric_families(text):
    types[family.name] = family.type
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        if key in seen:
            sys.exit(f"{key} stands there twice")
        seen.add(key)
        samples.append({"name": written(sample.name), "labels": sample.labels, "value": sample.value})
print(json.dumps({"contentType": content_type, "types": types, "samples": samples}))
