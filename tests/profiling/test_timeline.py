"""Stages and traces, with a clock that the tests turn."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.profiling import timeline as module
from pixelwise.profiling.timeline import STAGES, Call, Span, Timeline, by_stage
from pixelwise.profiling.trace import trace_of

STEPS = st.lists(st.tuples(st.sampled_from(list(STAGES)), st.integers(0, 1000)), min_size=1)


def timed(steps, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    timeline = Timeline()
    for stage, milliseconds in steps:
        timeline.switch(stage)
        now[0] += milliseconds / 1000
    timeline.switch("")
    return timeline


@given(STEPS)
def test_the_times_of_all_stages_add_up_to_the_time_that_passed(steps):
    with pytest.MonkeyPatch.context() as patch:
        timeline = timed(steps, patch)
    total = sum(milliseconds for _, milliseconds in steps) / 1000
    found = by_stage(timeline.spans)
    assert timeline.seconds == pytest.approx(total)
    assert sum(stage.seconds for stage in found) == pytest.approx(total)
    for stage in found:
        own = [milliseconds for name, milliseconds in steps if name == stage.name]
        assert stage.calls == len(own)
        assert stage.seconds == pytest.approx(sum(own) / 1000)
    assert [stage.name for stage in found] == [name for name in STAGES if name in dict(steps)]


def test_a_trace_is_what_perfetto_and_chrome_read():
    spans = [Span("read", 0.0, 0.25, 3 << 20), Span("network", 0.25, 1.5, 0)]
    calls = [
        Call("encoder.stem", "convolution", 0.125, 0.25, 0.25, 64, 8),
        Call("encoder", "encoder", 0.0, 1.0, 0.75),
        Call("decoder", "decoder", 1.0, 0.5, 0.5),
    ]
    told = json.loads(json.dumps(trace_of(spans, calls, network="Layers"), allow_nan=False))
    events = told["traceEvents"]
    # The format: developer.chrome.com's "Trace Event Format".
    assert told["displayTimeUnit"] in ("ms", "ns")
    for event in events:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert event["ph"] in ("X", "M", "C")
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert isinstance(event["tid"], int)
    named = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    tracks = {named[event["tid"]] for event in events if event["ph"] == "X"}
    assert tracks == {"The path of the image", "Layers"}
    layers = [event for event in events if event["ph"] == "X" and named[event["tid"]] == "Layers"]
    assert [(event["name"], event["ts"], event["dur"]) for event in layers] == [
        ("encoder", 0, pytest.approx(1_000_000)),
        ("encoder.stem", 125_000, pytest.approx(250_000)),
        ("decoder", 1_000_000, pytest.approx(500_000)),
    ]
    assert [event["args"] for event in events if event["ph"] == "C"] == [{"peak MiB": 3.0}]


@given(st.lists(st.floats(0, 0.01), min_size=1, max_size=30))
def test_events_that_follow_each_other_do_not_overlap_where_viewers_cut_to_nanoseconds(lengths):
    spans, now = [], 0.0
    for seconds in lengths:
        spans.append(Span("network", now, seconds, 0))
        now += seconds
    events = json.loads(json.dumps(trace_of(spans, [], network="Layers")))["traceEvents"]
    # Perfetto's importer multiplies by 1000 and cuts; of events that overlap in part it drops one.
    cut = [(int(event["ts"] * 1000), int(event["dur"] * 1000)) for event in events if event["ph"] == "X"]
    for (start, length), (following, _) in itertools.pairwise(cut):
        assert start + length <= following
