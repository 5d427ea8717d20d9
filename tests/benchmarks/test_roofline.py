"""Work counted from traces, held against counts by hand and by the compiler; bounds; the command."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import roofline, train
from benchmarks.work import Work, count

A, B, X = jnp.ones((3, 5)), jnp.ones((5, 7)), jnp.ones(11)


def test_operations_by_hand():
    assert count(lambda a, b: a @ b, A, B) == Work(products=2 * 3 * 5 * 7, bytes=4 * (15 + 35 + 21))
    batched = count(jax.vmap(lambda a, b: a @ b), jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7)))
    assert batched.products == 4 * 2 * 3 * 5 * 7
    # a network's gradient is worth three calls: forward, and a product each for weights and inputs
    w = [jnp.ones((6, 6))] * 3

    def call(w, x):
        for kernel in w:
            x = jnp.tanh(x @ kernel)
        return x.sum()

    once = count(call, w, jnp.ones((2, 6)))
    both = count(jax.grad(call, argnums=(0, 1)), w, jnp.ones((2, 6)))
    assert (once.products, once.functions) == (3 * 2 * 2 * 6 * 6, 3 * 12)
    assert both.products == 3 * once.products
    assert count(lambda x: jnp.exp(x) + x, X) == Work(others=22, functions=11)
    assert count(lambda x: jnp.sum(x), X).others == 11
    convolved = count(
        lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"), jnp.ones((2, 3, 8, 8)), jnp.ones((4, 3, 3, 3))
    )
    assert convolved.products == 2 * (2 * 4 * 64) * (3 * 9)


def test_loops_and_branches():
    step = lambda c, _: (c @ c, None)  # noqa: E731
    square = jnp.ones((4, 4))
    assert count(lambda c: jax.lax.scan(step, c, None, length=9)[0], square).products == 9 * 2 * 64
    assert (
        count(lambda c: jax.lax.map(lambda row: square @ row, c, batch_size=2), square).products == 4 * 2 * 16
    )
    dear = count(lambda p, c: jax.lax.cond(p, lambda: c @ c, lambda: c), True, square)
    assert dear.products == 2 * 64
    loop = count(lambda c: jax.lax.while_loop(lambda a: a[0, 0] < 9, lambda a: a @ a, c), square)
    assert (loop.products, loop.open_loops) == (2 * 64, 1)
    checkpointed = jax.grad(lambda c: jax.checkpoint(lambda a: jnp.sum(a @ a))(c))
    assert count(checkpointed, square).products >= 2 * 2 * 64


def test_random_bits():
    def bits(draw):
        return count(lambda key: draw(key), jax.random.key(0)).random_bits

    assert bits(lambda key: jax.random.uniform(key, (100,))) == 3200
    assert bits(lambda key: jax.random.bits(key, (100,), jnp.uint8)) == 800


def test_agrees_with_the_compiler_where_it_counts():
    def mixed(a, b):
        return jnp.tanh(a @ b) @ jnp.ones((7, 2))

    seen = jax.jit(mixed).lower(A, B).compile().cost_analysis()
    own = count(mixed, A, B)
    assert seen["flops"] == pytest.approx(own.products + own.others - own.functions, rel=0.05)
    assert seen["transcendentals"] == own.functions


def test_bounds_over_devices():
    chip = roofline.Device("chip", products=1e3, others=10.0, memory=100.0, link=5.0)
    cost = roofline.Cost(
        Work(products=4e3, others=20.0, random_bits=40.0, bytes=800.0), 0, reduced_bytes=10.0
    )
    assert roofline.bounds(cost, chip) == {"products": 4.0, "others": 8.0, "memory": 8.0, "links": 0.0}
    four = roofline.bounds(cost, chip, 4)
    assert four == {"products": 1.0, "others": 2.0, "memory": 2.0, "links": 2 * 0.75 * 2.0}
    # half of the bytes are those of parameters, which every chip has
    replicated = roofline.bounds(cost._replace(fixed=Work(bytes=400.0)), chip, 4)
    assert replicated == {**four, "memory": 4.0 + 1.0}


def test_the_command_counts_what_is_known_of_a_run(capsys):
    text = roofline.main(
        ["ising", "--length", "4", "--beta", ".4", "--order", "random", "--objective", "snis", "--no-measure"]
    )
    assert text in capsys.readouterr().out
    energies = next(line for line in text.splitlines() if line.startswith("| 1000 samples |")).split("|")[7]
    assert float(energies) == 1000
    # more devices share what states cost; each of them updates all parameters
    options = train.parse(["ising", "--length", "4", "--beta", ".4", "--out", "unused"])
    iteration = roofline.plan(*options).costs["an iteration"]
    assert 0 < iteration.fixed.others < iteration.work.others
    assert iteration.fixed.products < 0.01 * iteration.work.products
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1]
        for line in text.splitlines()
        if line.startswith("| ")
    }
    # twice the proposals are twice the energies, and no further call of the network
    assert float(rows["num_proposals"][4]) == pytest.approx(1, abs=0.1)
    assert float(rows["num_proposals"][0]) == 0
    with pytest.raises(SystemExit):
        roofline.main(["no-such-target"])
