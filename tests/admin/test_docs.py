"""
What docs/operations.md says of the numbers.
"""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from msgbus.admin import Metrics
from msgbus.admin.reactor_delay import ReactorDelay

from ..memory import Server

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def test_all_numbers():
    """
    The page explains each number that there is, and none that there is not.
    """
    server = Server()
    metrics = Metrics(server.resource.mount, server.site, ReactorDelay(server.clock))
    text = metrics.text().decode()
    numbers = {
        family.name + "_total" * (family.type == "counter")
        for family in text_string_to_metric_families(text)
        if not family.name.startswith("process_")
    }
    table = PAGE.partition("| number |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?`) \| ", table, re.MULTILINE)
    explained = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(explained) == sorted(numbers)
    refused = set(re.findall(r'refused_requests_total{reason="(\w+)"}', text))
    row = re.search(r"`msgbus_refused_requests_total` \| (.*)", table)[1]
    assert set(re.findall(r"`([a-z_]+)`", row)) == {*refused, "reason"}
