"""Each frame survives the socket unchanged; one of an unknown kind, or without a field, is refused with one error that names it."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.pool import protocol
from holynb.pool.fit import Mesh
from holynb.pool.protocol import (
    AddJob,
    CancelJob,
    Emit,
    Frame,
    Job,
    JobRefused,
    LoadModel,
    LogitRules,
    Ping,
    Pong,
    ProtocolError,
    RankFailed,
    RankReady,
    RankStats,
    StatsUpdate,
    StepOutput,
    StopRank,
)
from kernels_support.jupyter import wire

NUMBER = st.integers(0, 2**53)
TOKENS = st.lists(st.integers(0, 2**20), max_size=5).map(tuple)
SHARE = st.floats(0, 2, allow_nan=False)
STATS = st.fixed_dictionaries(
    {}, optional={"running": NUMBER, "device": st.text(max_size=9), "memory_ours": st.none() | NUMBER, "busy": SHARE}
)
RULES = st.builds(
    LogitRules,
    repetition_penalty=SHARE,
    presence_penalty=SHARE,
    frequency_penalty=SHARE,
    min_p=SHARE,
    min_tokens=NUMBER,
    bias=st.lists(st.tuples(NUMBER, SHARE), max_size=3).map(tuple),
    allowed=TOKENS,
)
TOPS = st.lists(st.tuples(NUMBER, SHARE), max_size=3).map(tuple)
SCORES = st.lists(st.tuples(NUMBER, SHARE, TOPS), max_size=3).map(tuple)
JOB = st.builds(
    Job,
    id=NUMBER,
    ids=TOKENS,
    max_new=NUMBER,
    temperature=SHARE,
    top_p=SHARE,
    top_k=NUMBER,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    eos=TOKENS,
    ignore_eos=st.booleans(),
    grammar=st.none() | st.text(max_size=20),
    stop_ids=TOKENS,
    rules=st.none() | RULES,
    logprobs=st.none() | NUMBER,
    prompt_logprobs=st.booleans(),
)
EMIT = st.builds(
    Emit,
    id=NUMBER,
    tokens=TOKENS,
    finish=st.none() | st.sampled_from(["stop", "length", "error"]),
    note=st.none() | st.text(),
    cached=NUMBER,
    scores=SCORES,
    prompt_scores=SCORES,
)
MESH = st.builds(Mesh, tensor=NUMBER, pipe=NUMBER, rank=NUMBER, micro=NUMBER, address=st.text())
FRAMES: dict[type[Frame], st.SearchStrategy[Any]] = {
    LoadModel: st.builds(
        LoadModel,
        folder=st.text(),
        device=st.text(),
        dtype=st.none() | st.text(),
        max_len=st.none() | NUMBER,
        memory=SHARE,
        mesh=st.none() | MESH,
    ),
    AddJob: st.builds(AddJob, JOB),
    CancelJob: st.builds(CancelJob, NUMBER),
    StopRank: st.just(StopRank()),
    Ping: st.just(Ping()),
    RankReady: st.builds(RankReady, STATS),
    RankFailed: st.builds(RankFailed, st.text(), st.booleans()),
    StepOutput: st.builds(StepOutput, st.lists(EMIT, max_size=5).map(tuple)),
    JobRefused: st.builds(JobRefused, NUMBER, st.text()),
    StatsUpdate: st.builds(StatsUpdate, STATS),
    Pong: st.just(Pong()),
}


def test_every_kind_of_frame_is_tried() -> None:
    assert set(FRAMES) == set(get_args(Frame))


@given(st.one_of(*FRAMES.values()))
def test_a_frame_comes_out_of_the_socket_as_it_went_in(frame: Frame) -> None:
    (message,) = wire.Framer().feed(wire.encode(protocol.encode(frame)))
    assert protocol.decode(message) == frame


@given(st.one_of(*FRAMES.values()), st.data())
def test_a_frame_without_a_field_is_refused_by_its_name(frame: Frame, data: st.DataObject) -> None:
    message = json.loads(json.dumps(protocol.encode(frame)))
    needed = [f.name for f in fields(frame) if f.default is MISSING]
    name = data.draw(st.sampled_from(["t", *(["e"] if isinstance(frame, StepOutput) else needed)]))
    del message[name]
    with pytest.raises(ProtocolError, match="unknown kind None" if name == "t" else rf"{frame.kind}' frame without {name}"):
        protocol.decode(message)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"t": "sing"}, "a frame of unknown kind 'sing'"),
        ({"t": ["step"]}, "a frame of unknown kind"),
        ({"t": "add", "job": {"id": 1, "max_new": 2}}, "a job without ids"),
        ({"t": "add", "job": None}, "a malformed 'add' frame"),
        ({"t": "cancel", "id": 1, "why": "x"}, "a malformed 'cancel' frame: .*why"),
        ({"t": "step", "e": [[1, [2]], 3]}, "a malformed 'step' frame"),
        ({"t": "load", "folder": "m"}, "a 'load' frame without device, dtype, max_len, memory"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_reason(message: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        protocol.decode(message)


def test_the_bytes_on_the_wire() -> None:
    """As they have been since frames were written by hand."""
    job = Job(7, (1, 2), 3, 0.5, eos=(9,))
    assert protocol.encode(LoadModel("/m", "cpu", None, 99, 0.9)) == {
        "t": "load",
        "folder": "/m",
        "device": "cpu",
        "dtype": None,
        "max_len": 99,
        "memory": 0.9,
    }
    assert wire.encode(protocol.encode(AddJob(job)))[4:] == (
        b'{"t":"add","job":{"id":7,"ids":[1,2],"max_new":3,"temperature":0.5,"top_p":1.0,"top_k":0,'
        b'"seed":null,"eos":[9],"ignore_eos":false,"grammar":null}}'
    )
    output = StepOutput((Emit(1, (5,)), Emit(2, (), "stop", "admitted", 16)))
    assert wire.encode(protocol.encode(output))[4:] == b'{"t":"step","e":[[1,[5],null,null],[2,[],"stop","admitted",16]]}'
    stats: RankStats = {"running": 1}
    assert wire.encode(protocol.encode(StatsUpdate(stats)))[4:] == b'{"t":"stats","stats":{"running":1}}'
    assert wire.encode(protocol.encode(RankFailed("no", oom=True)))[4:] == b'{"t":"failed","message":"no","oom":true}'
