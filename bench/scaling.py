"""How a training step grows from one card to nodes of eight, by XLA's program for each number.

`python -m bench.scaling [--depths 12 20 32] [--devices 1 8 64 512] [--rows N]` compiles the step of
the classic recipe with as many micro-batches on each card whatever their number (so the batch grows
with them), and prints what it sends, what of that is waited for, and tokens a second of a card
against one card's. Nothing runs: it needs the environment of `make test-gpu`. The last line is one
JSON object.
"""

import argparse
import json
import os

T = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 20, 32])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument(
        "--rows", type=int, default=0, help="of a micro-batch; 0: 32, 16 from d21, 8 from d27"
    )
    parser.add_argument("--micro", type=int, default=1, help="micro-batches of a step on each card")
    parser.add_argument("--device", default="h100-80gb")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever is here is not what is compiled for
    rows = []
    for depth in args.depths:
        alone = 0.0
        for devices in args.devices:
            found = step(args, depth, devices)
            alone = alone or found["tokens_per_s"] / devices
            found["efficiency"] = found["tokens_per_s"] / devices / alone
            rows.append(found)
            print(line(found), flush=True)
    print(json.dumps({"rows": rows}))


def step(args: argparse.Namespace, depth: int, devices: int) -> dict[str, float]:
    """Figures of one step: times in ms, sizes in bytes / 1e9."""
    from nanochat_jax.aot import audit, command, programs, target
    from nanochat_jax.aot.cards import card

    rows = args.rows or (8 if depth > 26 else 16 if depth > 20 else 32)
    tokens = rows * T * args.micro * devices
    flags = [f"--depth={depth}", f"--device-batch-size={rows}", f"--total-batch-size={tokens}"]
    config, cfg = programs.settled("base", [*flags, "--remat=dots"])
    gpu = card(args.device)
    config, program = programs.fitted(config, cfg, gpu, target.mesh(gpu, str(devices)))
    all_of_it = command.figures(program, config, cfg, gpu, devices)
    names = "step_ms", "waiting_ms", "sent_gb", "tokens_per_s", "mfu", "peak_gb"
    exchanges = audit.collectives(program.module)
    return {"depth": depth, "devices": devices, "rows": rows, "tokens": tokens} | {
        "exchange_ms": all_of_it["ms"].get("exchange", 0.0),
        "exchanges": len(exchanges),
        "compile_s": program.seconds,
        **{name: all_of_it[name] for name in names},
    }


def line(f: dict[str, float]) -> str:
    return (
        f"d{f['depth']:<3} {f['devices']:4} cards x {f['rows']} rows: {f['step_ms']:7.1f} ms, "
        f"{f['sent_gb']:5.2f} GB sent in {f['exchange_ms']:5.1f} ms, waits {f['waiting_ms']:4.1f}, "
        f"{f['tokens_per_s']:12,.0f} tokens/s, MFU {f['mfu']:4.1f} %, of one card's "
        f"{f['efficiency']:6.1%}  (compiled in {f['compile_s']:.0f} s)"
    )


if __name__ == "__main__":
    main()
