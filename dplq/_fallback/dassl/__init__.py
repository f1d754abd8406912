"""Fallback implementation of Dassl's public API.

It covers what prompt-learning repositories (CoOp, CoCoOp, MaPLe, PromptSRC, DPLQ) import: the same
names, config keys, hook order, log lines, file locations and draws from the random generators,
written for today's PyTorch. Append the folder of this package to ``sys.path``; a real Dassl then
takes precedence.

Intended differences:

* invalid input raises `dassl.utils.InputError` (a ValueError) that lists the choices; a wrong name
  raises `dassl.utils.ChoiceError`, which is a KeyError as well;
* checkpoints hold tensors and plain Python values only and are read with ``weights_only=True``;
* files are written atomically;
* `listdir_nohidden` always sorts, so that splits do not depend on the file system;
* `SimpleTrainer` uses one device and never wraps a model in DataParallel by itself;
* there are no built-in datasets and trainers; AutoAugment and RandAugment are torchvision's.

Reference: Dassl.pytorch 0.6.3 (Zhou et al., "Domain Adaptive Ensemble Learning", MIT licence).
"""

__version__ = "0.6.3+fallback"
