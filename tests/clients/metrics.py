"""Prometheus' own parser reads the metrics of the echo server, whose WebSocket URL is the argument."""

import time
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from checks import DEADLINE, check, expect, run_all


def ask(url):
    return urlopen(url.replace("ws", "http", 1) + "metrics", timeout=DEADLINE)


def families(url):
    with ask(url) as answer:
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def of_all(read, name):
    return sum(sample.value for sample in read[name].samples)


@check("content type")
def content_type(url):
    with ask(url) as answer:
        expect("type", answer.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")


@check("families")
def kinds(url):
    with ask(url) as answer:
        text = answer.read().decode()
    read = list(text_string_to_metric_families(text))
    expect("names that come once", len({family.name for family in read}), len(read))
    expect("families", len(read), text.count("# TYPE "))
    for family in read:
        expect(f"known type of {family.name}", family.type in ("counter", "gauge", "histogram"), True)
        expect(f"help of {family.name}", family.documentation.endswith("."), True)
        for sample in family.samples:
            stem = sample.name.removeprefix(family.name)
            expect(f"{sample.name} in {family.name}", stem in ("", "_total", "_bucket", "_sum", "_count"), True)


@check("labels")
def labels(url):
    routes = [sample.labels["route"] for sample in families(url)["rwf_websockets"].samples]
    expect("routes", routes, ["/", "/asked", "/context", "/metrics", '/\\"quoted"'])


@check("histograms")
def histograms(url):
    read = families(url)
    for name in ("rwf_handshake_seconds", "rwf_handler_seconds"):
        samples = read[name].samples
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name == f"{name}_bucket"]
        expect(f"{name} in order", buckets, sorted(buckets))
        expect(f"{name} cumulative", [count for _, count in buckets], sorted(count for _, count in buckets))
        (count,) = [sample.value for sample in samples if sample.name == f"{name}_count"]
        expect(f"{name} with all", buckets[-1], (float("inf"), count))
        expect(f"{name} counts", count > 0, True)


@check("what was counted")
def counted(url):
    read = families(url)
    of_echo = {name: family.samples[0].value for name, family in read.items() if family.samples}
    for name in ("rwf_websockets", "rwf_messages_received", "rwf_messages_sent", "rwf_received_bytes"):
        expect(f"{name} is more than nothing", of_echo[name] > 0, True)

    ended = of_all(read, "rwf_websockets") - of_all(read, "rwf_open_websockets")
    expect("those that ended", of_all(read, "rwf_websockets_closed"), ended)


@check("nothing is left of the clients before")
def nothing_left(url):
    began = time.monotonic()
    while left := of_all(families(url), "rwf_open_websockets"):
        expect(f"{left} WebSockets that stay open", time.monotonic() - began > DEADLINE, False)
        time.sleep(0.05)


run_all("prometheus-client")
