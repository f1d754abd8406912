"""Where a run's checkpoints lie, and how a trainer writes and reads them."""

from __future__ import annotations

from pathlib import Path

from dassl.engine import TrainerX

from dplq.errors import UserError
from dplq.methods.public_checkpoints import BEST, NUMBERED, PublicLayout

MODEL_NAME = "prompt_learner"


class CheckpointTrainer(TrainerX):
    """Dassl's trainer with this project's checkpoints: safetensors, which real Dassl cannot do.

    `self.model` has `save` and `load` as `dplq.methods.base.PromptedCLIP` does.
    """

    public: PublicLayout | None = None  # of the original's checkpoints, which can be loaded too
    tested_epoch: int | None = None  # the epoch whose weights are in the model at a test

    def model_dir(self, directory: str) -> Path:
        """Where a run's checkpoints lie."""
        return Path(directory) / MODEL_NAME

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write the learnable state to ``DIRECTORY/prompt_learner/model-<epoch>.safetensors``.

        Args:
            epoch: counted from 0; the file name counts from 1, as Dassl's do.
            directory: the run's folder.
            is_best: write ``model-best.safetensors`` too.
            val_result: validation accuracy, kept in the header.
            model_name: a name that contains "best" writes only the best model.
        """
        names = [] if "best" in model_name else [f"model-{epoch + 1}"]
        names += ["model-best"] if is_best or "best" in model_name else []
        for name in names:
            path = self.model_dir(directory) / f"{name}.safetensors"
            extra = {"epoch": epoch + 1, "val_result": val_result}
            self.model.save(path, trainer=type(self).__name__, **extra)
            print(f"Checkpoint saved to {path}")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load what was learned, for the present classes.

        Args:
            directory: folder of a training run.
            epoch: which epoch; default: the best one if it was kept, else the last.

        Raises:
            UserError: no such checkpoint (those that exist are named), or it is another model's.
        """
        if not directory:
            print("load_model() is skipped as no pretrained model is given")
            return
        folder = self.model_dir(directory)
        theirs = self.public.folder_in(directory) if self.public else None
        if theirs and not any(folder.glob("model-*.safetensors")):
            path = find_checkpoint(theirs, epoch, NUMBERED, BEST)
            header = self.public.load(self.model, path)
        else:
            path = find_checkpoint(folder, epoch)
            header = self.model.load(path)
        self.tested_epoch = header.get("epoch")
        print(f'Loaded {MODEL_NAME} from "{path}" (epoch = {header.get("epoch")})')


def find_checkpoint(
    folder: Path,
    epoch: int | None,
    numbered_as: str = "model-*.safetensors",
    best_as: str = "model-best.safetensors",
) -> Path:
    """The checkpoint of an epoch; None: the best one, else the last.

    Raises:
        UserError: it is not there; the message names what is.
    """
    before, after = map(len, numbered_as.split("*"))
    found = {path.name[before : len(path.name) - after]: path for path in folder.glob(numbered_as)}
    numbered = {int(number): path for number, path in found.items() if number.isdigit()}
    best = folder / best_as
    if epoch in numbered:
        return numbered[epoch]
    if epoch is None and best.is_file():
        return best
    if epoch is None and numbered:
        return numbered[max(numbered)]
    there = f"epochs {', '.join(map(str, sorted(numbered)))}" if numbered else "no checkpoint"
    wanted = "a checkpoint" if epoch is None else f"epoch {epoch}"
    raise UserError(
        f"{folder} does not hold {wanted}; there is {there}. "
        "Check --model-dir and --load-epoch (without --load-epoch the last one is used)."
    )
