"""The default configuration: every key of Dassl 0.6.3 with its default.

The YAML files of CoOp and its successors merge into it unchanged.
"""

from __future__ import annotations

from yacs.config import CfgNode

_LOADER = {
    "SAMPLER": "RandomSampler",
    "BATCH_SIZE": 32,
    "N_DOMAIN": 0,  # RandomDomainSampler: domains in a batch; 0 or less: all
    "N_INS": 16,  # RandomClassSampler: images of a class in a batch
}

# Keys of Dassl's own trainers. None is built in here, but YAML files may set them.
_BUILT_IN_TRAINERS = {
    "MCD": {"N_STEP_F": 4},
    "MME": {"LMDA": 0.1},
    "CDAC": {
        "CLASS_LR_MULTI": 10,
        "RAMPUP_COEF": 30,
        "RAMPUP_ITRS": 1000,
        "TOPK_MATCH": 5,
        "P_THRESH": 0.95,
        "STRONG_TRANSFORMS": (),
    },
    "SE": {"EMA_ALPHA": 0.999, "CONF_THRE": 0.95, "RAMPUP": 300},
    "M3SDA": {"LMDA": 0.5, "N_STEP_F": 4},
    "DAEL": {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
    "CROSSGRAD": {"EPS_F": 1.0, "EPS_D": 1.0, "ALPHA_F": 0.5, "ALPHA_D": 0.5},
    "DDAIG": {
        "G_ARCH": "",
        "LMDA": 0.3,
        "CLAMP": False,
        "CLAMP_MIN": -1.0,
        "CLAMP_MAX": 1.0,
        "WARMUP": 0,
        "ALPHA": 0.5,
    },
    "DAELDG": {"WEIGHT_U": 0.5, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
    "DOMAINMIX": {"TYPE": "crossdomain", "ALPHA": 1.0, "BETA": 1.0},
    "ENTMIN": {"LMDA": 1e-3},
    "MEANTEACHER": {"WEIGHT_U": 1.0, "EMA_ALPHA": 0.999, "RAMPUP": 5},
    "MIXMATCH": {"WEIGHT_U": 100.0, "TEMP": 2.0, "MIXUP_BETA": 0.75, "RAMPUP": 20000},
    "FIXMATCH": {"WEIGHT_U": 1.0, "CONF_THRE": 0.95, "STRONG_TRANSFORMS": ()},
}

_DEFAULTS = {
    "VERSION": 1,
    "OUTPUT_DIR": "./output",  # log, checkpoints, curves
    "RESUME": "",  # an earlier OUTPUT_DIR to resume from
    "SEED": -1,  # negative: not seeded
    "USE_CUDA": True,
    "VERBOSE": True,
    "INPUT": {
        "SIZE": (224, 224),  # height, width
        "INTERPOLATION": "bilinear",  # a key of transforms.INTERPOLATION_MODES
        "TRANSFORMS": (),  # names from transforms.AVAI_CHOICES
        "NO_TRANSFORM": False,  # True: the loaders return PIL images
        "PIXEL_MEAN": [0.485, 0.456, 0.406],  # ImageNet
        "PIXEL_STD": [0.229, 0.224, 0.225],
        "CROP_PADDING": 4,  # random_crop, pixels
        "RRCROP_SCALE": (0.08, 1.0),  # random_resized_crop, share of the area
        "CUTOUT_N": 1,  # holes
        "CUTOUT_LEN": 16,  # side of a hole, pixels
        "GN_MEAN": 0.0,  # gaussian_noise
        "GN_STD": 0.15,
        "RANDAUGMENT_N": 2,  # operations per image
        "RANDAUGMENT_M": 10,  # strength, 0 to 30
        "COLORJITTER_B": 0.4,  # brightness
        "COLORJITTER_C": 0.4,  # contrast
        "COLORJITTER_S": 0.4,  # saturation
        "COLORJITTER_H": 0.1,  # hue
        "RGS_P": 0.2,  # randomgrayscale, probability
        "GB_P": 0.5,  # gaussian_blur, probability
        "GB_K": 21,  # gaussian_blur, odd kernel size
    },
    "DATASET": {
        "ROOT": "",
        "NAME": "",
        "SOURCE_DOMAINS": (),
        "TARGET_DOMAINS": (),
        "NUM_LABELED": -1,  # labelled images in total (semi-supervised)
        "NUM_SHOTS": -1,  # images per class; less than 1: all
        "VAL_PERCENT": 0.1,
        "STL10_FOLD": -1,
        "CIFAR_C_TYPE": "",
        "CIFAR_C_LEVEL": 1,
        "ALL_AS_UNLABELED": False,
    },
    "DATALOADER": {
        "NUM_WORKERS": 4,
        "K_TRANSFORMS": 1,  # augmented copies of each training image
        "RETURN_IMG0": False,  # also return the image without augmentation, as "img0"
        "TRAIN_X": dict(_LOADER),
        "TRAIN_U": {"SAME_AS_X": True, **_LOADER},
        "TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 32},
    },
    "MODEL": {
        "INIT_WEIGHTS": "",  # checkpoint to start from
        "BACKBONE": {"NAME": "", "PRETRAINED": True},
        "HEAD": {
            "NAME": "",  # empty: the features go straight to the classifier
            "HIDDEN_LAYERS": (),
            "ACTIVATION": "relu",
            "BN": True,
            "DROPOUT": 0.0,
        },
    },
    "OPTIM": {
        "NAME": "adam",
        "LR": 0.0003,
        "WEIGHT_DECAY": 5e-4,
        "MOMENTUM": 0.9,  # sgd, rmsprop
        "SGD_DAMPNING": 0,
        "SGD_NESTEROV": False,
        "RMSPROP_ALPHA": 0.99,
        "ADAM_BETA1": 0.9,  # all of the Adam family
        "ADAM_BETA2": 0.999,
        "STAGED_LR": False,  # layers other than NEW_LAYERS learn at LR * BASE_LR_MULT
        "NEW_LAYERS": (),
        "BASE_LR_MULT": 0.1,
        "LR_SCHEDULER": "single_step",
        "STEPSIZE": (-1,),  # epochs; 0 or less: MAX_EPOCH
        "GAMMA": 0.1,
        "MAX_EPOCH": 10,
        "WARMUP_EPOCH": -1,  # 0 or less: no warm-up
        "WARMUP_TYPE": "linear",  # or "constant"
        "WARMUP_CONS_LR": 1e-5,  # constant: the rate of all warm-up epochs
        "WARMUP_MIN_LR": 1e-5,  # linear: the rate of the first epoch
        "WARMUP_RECOUNT": True,  # the schedule starts at its epoch 0 after the warm-up
    },
    "TRAIN": {
        "CHECKPOINT_FREQ": 0,  # epochs; 0 or less: only after the last
        "PRINT_FREQ": 10,  # batches
        "COUNT_ITER": "train_x",  # TrainerXU: which loader's length is an epoch
    },
    "TEST": {
        "EVALUATOR": "Classification",
        "PER_CLASS_RESULT": False,
        "COMPUTE_CMAT": False,  # confusion matrix to OUTPUT_DIR/cmat.pt
        "NO_TEST": False,
        "SPLIT": "test",  # or "val"
        "FINAL_MODEL": "last_step",  # or "best_val": tests on val after each epoch
    },
    "TRAINER": {"NAME": "", **_BUILT_IN_TRAINERS},
}


def get_cfg_default() -> CfgNode:
    """Return a fresh, unfrozen copy of the default configuration."""
    return CfgNode(_DEFAULTS)


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Remove the keys of all trainers but `trainer` from `cfg`, for a short log."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
