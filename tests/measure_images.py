"""How long 10,000 transitions of 64x64x3 take from a spec to a report, and how small they are on the disk.

python tests/measure_images.py [ENV_STEPS]
"""

import sys
import tempfile
import time
from pathlib import Path

from cccad_data import Histories
from cccad_train import cli
from click.testing import CliRunner

SPEC = """
name = "images"
[env]
kind = "gymnasium"
make = "{file}:Beacon"
vary = {{ goal = [0, 1, 3, 4] }}
horizon = 10
random_episodes = 10
reference_return = 9.0
[split]
held_out_frac = 0.25
[data.source]
kind = "random"
num_envs = 4
env_steps = {env_steps}
[policy]
width = 32
[policy.memory]
kind = "compressed"
window = 12
num_layers = 1
num_heads = 2
compressor = {{ kind = "gated-query", num_latents = 4, num_heads = 2 }}
[pretrain]
num_updates = 20
num_writes = 2
targets_per_update = 256
[train]
num_updates = 60
targets_per_update = 256
num_writes = 2
[evaluate]
num_episodes = 10
num_replicas = 2
"""


def main() -> None:
    """Run it, and print what it took."""
    env_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        spec, out = Path(folder) / "images.toml", Path(folder) / "runs"
        file = Path(__file__).parent / "structured_environments.py"
        spec.write_text(SPEC.format(file=file, env_steps=-(-env_steps // 12)))
        began = time.perf_counter()
        result = CliRunner().invoke(cli.run, ["--device", "cpu", str(spec), "--out", str(out)])
        took = time.perf_counter() - began
        assert result.exit_code == 0, result.exception
        (manifest,) = out.rglob("manifest.json")
        raw = sum(task.observations.nbytes + task.final_observations.nbytes for task in Histories.open(manifest.parent))
        stored = sum(shard.stat().st_size for shard in manifest.parent.rglob("*.h5"))
    sizes = f"{raw / 1e6:.0f} MB of images, {stored / 1e6:.1f} MB on the disk: {stored / raw:.3f}"
    sys.stdout.write(f"{result.output}{took:.0f} s; {sizes}\n")


if __name__ == "__main__":
    main()
