"""One runner, whole: the same tokens whatever the batch, the chunks, the cache and the memory do."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from one_rank import answers, runner

from holynb.errors import UserError
from holynb.pool.engine.runner import Runner
from holynb.pool.engine.sequence import Step
from holynb.pool.fit import plan
from holynb.pool.protocol import Emit, Job

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.make("qwen3", path)
    return path


def jobs(temperature: float = 0.0, count: int = 7, **more: object) -> list[Job]:
    return [Job(i, tuple(p), 20, temperature, seed=i, ignore_eos=True, **more) for i, p in enumerate(tiny.prompts(count))]  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_answer_does_not_depend_on_the_company(folder: Path, temperature: float) -> None:
    asked = jobs(temperature)
    together = answers(runner(folder), asked)
    alone = {j.id: answers(runner(folder), [j])[j.id] for j in asked}
    assert together == alone


@pytest.mark.parametrize("limits", [{"chunk": 5}, {"batch": 2}, {"blocks": 7}, {"blocks": 7, "chunk": 7, "batch": 3}])
def test_chunks_batches_and_a_full_cache_change_nothing(folder: Path, limits: dict[str, int]) -> None:
    asked = jobs(0.7)
    made = runner(folder, **limits)
    assert answers(made, asked) == answers(runner(folder), asked)
    assert made.blocks.free == made.blocks.total
    if "blocks" in limits and "batch" not in limits:
        assert made.scheduler.preempted > 0


def test_a_shared_head_changes_nothing_and_is_computed_once(folder: Path) -> None:
    head = tuple(tiny.prompts(1, longest=80)[0] * 2)[:70]
    asked = [Job(i, (*head, 3 + i), 12, ignore_eos=True) for i in range(5)]
    shared, apart = runner(folder), runner(folder, share=False)
    assert answers(shared, asked) == answers(apart, asked)
    assert shared.stats()["tokens_shared"] == 4 * (len(head) // 16 * 16)
    assert apart.stats()["tokens_shared"] == 0


def test_experts_answer_alike_in_chunks_in_a_full_cache_and_after_a_shared_head(tmp_path: Path) -> None:
    """Which experts a token goes to, and who is there beside it, change from step to step; its answer does not."""
    tiny.make("qwen3-moe", tmp_path, num_hidden_layers=2)
    head = tuple(tiny.prompts(1, longest=80)[0] * 2)[:40]
    asked = [Job(i, (*head, *p), 24, 0.7 * (i % 2), seed=i, ignore_eos=True) for i, p in enumerate(tiny.prompts(5, longest=20))]
    plain = answers(runner(tmp_path, share=False), asked)
    for limits in ({"chunk": 7}, {"blocks": 9, "batch": 3}):
        made = runner(tmp_path, **limits)
        assert answers(made, asked) == plain
        assert made.stats()["tokens_shared"] > 0
    assert made.scheduler.preempted > 0


def test_seeds(folder: Path) -> None:
    """The same seed says the same; another, something else; none, something new each time."""

    def one(seed: int | None) -> list[int]:
        return answers(runner(folder), [Job(0, (5, 6, 7), 24, 1.5, seed=seed, ignore_eos=True)])[0]

    assert one(1) == one(1)
    assert one(1) != one(2)
    assert one(None) != one(None)


def test_end_tokens(folder: Path) -> None:
    (job,) = jobs(count=1)
    said = answers(runner(folder), [job])[0]
    made = runner(folder)
    made.add(Job(0, job.ids, 20, eos=(said[4],)))
    emits: list[Emit] = []
    while not made.idle:
        emits += made.step()
    assert [t for e in emits for t in e.tokens] == said[: said.index(said[4])]
    assert [e.finish for e in emits if e.finish] == ["stop"]
    assert [e.note for e in emits if e.note] == ["admitted"]


def test_out_of_memory_shrinks_keeps_marks_and_grows_back(folder: Path) -> None:
    asked = [Job(j.id, j.ids, 60, 0.0, ignore_eos=True) for j in jobs(count=8)]
    expected = answers(runner(folder), asked)
    made, troubles = (
        runner(folder, batch=8),
        [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("[enforce fail] can't allocate memory")],
    )

    def trouble(step: Step) -> None:
        if troubles and len(step.decode) > 3:
            raise troubles.pop()

    made.before_step = trouble
    said: dict[int, list[int]] = {j.id: [] for j in asked}
    marked, caps = set(), []
    for j in asked:
        made.add(j)
    while not made.idle:
        for emit in made.step():
            said[emit.id] += emit.tokens
            marked |= {emit.id} if emit.note == "oom" else set()
        caps.append(made.stats()["batch"])
    assert said == expected
    assert marked == {j.id for j in asked}
    assert min(caps) < 8
    assert caps[-1] > min(caps)
    assert made.stats()["oom"] == 2


def test_another_error_is_not_taken_for_memory(folder: Path) -> None:
    made = runner(folder)

    def trouble(step: Step) -> None:
        raise RuntimeError("device-side assert")

    made.before_step = trouble
    made.add(jobs(count=1)[0])
    with pytest.raises(RuntimeError, match="assert"):
        made.step()


def test_cancel_leaves_at_the_next_step(folder: Path) -> None:
    made = runner(folder)
    for j in jobs(count=3):
        made.add(j)
    made.step()
    made.cancel(1)
    assert {e.id for e in made.step()} == {0, 2}
    assert made.stats()["running"] == 2


def test_bad_jobs_are_refused(folder: Path) -> None:
    made = Runner(folder, max_len=100)
    with pytest.raises(ValueError, match="99 prompt tokens and 2 to write are more than the 100"):
        made.add(Job(0, (5,) * 99, 2))
    with pytest.raises(ValueError, match="token 320 is not one of the 320"):
        made.add(Job(0, (320,), 2))
    assert made.idle


def test_one_sequence_is_never_longer_than_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, "_cache_bytes", lambda made, share, itemsize: 5 * made_block(made, itemsize))
    made = Runner(folder, max_len=200)
    assert made.stats()["kv_total"] == made.stats()["max_len"] == 80, "what a server promises, it can keep"
    assert len(answers(made, [Job(0, (5,) * 60, 20, ignore_eos=True)])[0]) == 20
    with pytest.raises(ValueError, match="60 prompt tokens and 21 to write are more than the 80"):
        made.add(Job(0, (5,) * 60, 21))


def made_block(made: Runner, itemsize: int) -> int:
    """Bytes of a block of its cache."""
    return 16 * plan.kv_bytes(made.spec, made.shard, itemsize)


def test_dtype_is_chosen_by_what_is_fast(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holynb.pool.engine.computetype.bf16_is_fast", lambda: False)
    assert Runner(folder, dtype="bfloat16").stats()["dtype"] == "float32"
    monkeypatch.setattr("holynb.pool.engine.computetype.bf16_is_fast", lambda: True)
    assert Runner(folder).stats()["dtype"] == "float32", "only where it is asked for"
    fast = Runner(folder, dtype="bfloat16")
    assert fast.stats()["dtype"] == "bfloat16"
    assert len(answers(fast, jobs(count=2))[1]) == 20
    with pytest.raises(UserError, match=r"float8.*Did you mean"):
        Runner(folder, dtype="float8")


def test_stats_add_up(folder: Path) -> None:
    made = runner(folder)
    asked = jobs(count=3)
    answers(made, asked)
    said = made.stats()
    assert (said["running"], said["waiting"], said["kv_used"]) == (0, 0, 0)
    assert said["tokens_in"] == sum(len(j.ids) for j in asked)
    assert said["tokens_out"] == 60
    assert said["weights_bytes"] == made.spec.weights * 4
    assert said["kv_bytes"] == Runner(folder).blocks.total * 16 * plan.kv_bytes(made.spec, made.shard, 4)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_plan_counts_what_lies_in_memory(family: str, tmp_path: Path) -> None:
    """Every tensor of the loaded model, also the tied table's second, packed copy, where this processor packs."""
    tiny.make(family, tmp_path)
    made = Runner(tmp_path)
    weights = made.executor.model.weights  # type: ignore[attr-defined]
    tensors = [
        t for part in (*weights.layers, weights) for t in (getattr(part, name) for name in part.__slots__) if isinstance(t, torch.Tensor)
    ]
    if not any(t.is_mkldnn for t in tensors):
        pytest.skip("oneDNN packs nothing here")
    lying = sum(t.numel() * 4 for i, t in enumerate(tensors) if not any(t is other for other in tensors[:i]))
    assert made.weights_bytes == lying
    assert plan.weights_bytes(made.spec, made.shard, 4) == made.spec.weights * 4
    assert (lying > made.spec.weights * 4) == (family == "llama")
