"""`python -m cccad_train SPEC` is `cccad-run SPEC`, for launchers: torchrun, accelerate launch, srun, mpirun."""

from cccad_train.cli import run

if __name__ == "__main__":
    run(prog_name="python -m cccad_train", obj=True)
