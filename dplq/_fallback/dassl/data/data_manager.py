"""The four data loaders of a config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from yacs.config import CfgNode

from dassl.utils import InputError, read_image

from .datasets import Datum, build_dataset
from .samplers import build_sampler
from .transforms import build_transform, interpolation_mode, normalization


class DatasetWrapper(Dataset):
    """Dataset of the transformed images of a list of Datum.

    An item is a dict: "img" (3, H, W) (with K_TRANSFORMS > 1 a list of K; with several transforms
    "img", "img2", ...), "label", "domain", "impath", "index", and with RETURN_IMG0 "img0".

    Args:
        cfg: the whole config.
        data_source: the list.
        transform: one or several; None returns PIL images.
        is_train: augment ``DATALOADER.K_TRANSFORMS`` times.
    """

    def __init__(
        self,
        cfg: CfgNode,
        data_source: Sequence[Datum],
        transform: Callable | Sequence[Callable] | None = None,
        is_train: bool = False,
    ):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise InputError(f"K_TRANSFORMS is {self.k_tfm}, but there is no transform to repeat")
        plain = [T.Resize(cfg.INPUT.SIZE, interpolation=interpolation_mode(cfg)), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            plain.append(normalization(cfg))
        self.to_tensor = T.Compose(plain)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        image = read_image(item.impath)
        output = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": idx,
        }
        if self.transform is None:
            output["img"] = image
        else:
            transforms = [self.transform] if callable(self.transform) else self.transform
            for number, tfm in enumerate(transforms, start=1):
                output["img" if number == 1 else f"img{number}"] = self._transform_image(tfm, image)
        if self.return_img0:
            output["img0"] = self.to_tensor(image)
        return output

    def _transform_image(self, tfm: Callable, img0: Any) -> Any:
        images = [tfm(img0) for _ in range(self.k_tfm)]
        return images[0] if len(images) == 1 else images


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence[Datum] = (),
    batch_size: int = 64,
    n_domain: int = 0,
    n_ins: int = 2,
    tfm: Callable | Sequence[Callable] | None = None,
    is_train: bool = True,
    dataset_wrapper: Callable[..., Dataset] | None = None,
) -> DataLoader:
    """Build a loader.

    In training the last partial batch is dropped, unless it is the only one.

    Args:
        cfg: the whole config.
        sampler_type: name of the sampler.
        data_source: list of Datum.
        batch_size: images in a batch.
        n_domain: for RandomDomainSampler.
        n_ins: for RandomClassSampler.
        tfm: transform(s).
        is_train: see above.
        dataset_wrapper: instead of `DatasetWrapper`.

    Raises:
        InputError: there is no image, or no batch.
    """
    if not data_source:
        part = "training" if is_train else "test"
        raise InputError(f"dataset '{cfg.DATASET.NAME}' has no {part} images")
    sampler = build_sampler(
        sampler_type,
        cfg=cfg,
        data_source=data_source,
        batch_size=batch_size,
        n_domain=n_domain,
        n_ins=n_ins,
    )
    wrapper = dataset_wrapper or DatasetWrapper
    loader = DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if not len(loader):
        raise InputError(f"{sampler_type} yields no full batch of {batch_size} images")
    return loader


class DataManager:
    """Dataset, transforms and data loaders.

    Attributes: `dataset`, `train_loader_x`, `train_loader_u` (or None), `val_loader` (or None),
    `test_loader`, `num_classes`, `num_source_domains`, `lab2cname`.

    Args:
        cfg: the whole config.
        custom_tfm_train: instead of the config's.
        custom_tfm_test: instead of the config's.
        dataset_wrapper: instead of `DatasetWrapper`.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Any = None,
        custom_tfm_test: Any = None,
        dataset_wrapper: Callable[..., Dataset] | None = None,
    ):
        dataset = build_dataset(cfg)
        tfm_train = _transform(cfg, custom_tfm_train, is_train=True)
        tfm_test = _transform(cfg, custom_tfm_test, is_train=False)
        loaders = cfg.DATALOADER
        unlabelled = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U

        def loader(data: Sequence[Datum] | None, node: CfgNode, is_train: bool) -> DataLoader:
            sizes = {"n_domain": node.N_DOMAIN, "n_ins": node.N_INS} if is_train else {}
            return build_data_loader(
                cfg,
                sampler_type=node.SAMPLER,
                data_source=data or (),
                batch_size=node.BATCH_SIZE,
                tfm=tfm_train if is_train else tfm_test,
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
                **sizes,
            )

        self.dataset = dataset
        self.train_loader_x = loader(dataset.train_x, loaders.TRAIN_X, True)
        self.train_loader_u = loader(dataset.train_u, unlabelled, True) if dataset.train_u else None
        self.val_loader = loader(dataset.val, loaders.TEST, False) if dataset.val else None
        self.test_loader = loader(dataset.test, loaders.TEST, False)
        self.num_classes: int = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname: dict[int, str] = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Print the table of sizes."""
        data = self.dataset
        rows = [("Dataset", cfg.DATASET.NAME)]
        for title, names in (
            ("Source", cfg.DATASET.SOURCE_DOMAINS),
            ("Target", cfg.DATASET.TARGET_DOMAINS),
        ):
            rows += [(title, names)] if names else []
        rows.append(("# classes", f"{self.num_classes:,}"))
        for part in ("train_x", "train_u", "val", "test"):
            items = getattr(data, part)
            rows += [(f"# {part}", f"{len(items):,}")] if items else []
        print(tabulate(rows))


def _transform(cfg: CfgNode, custom: Any, is_train: bool) -> Any:
    if custom is None:
        return build_transform(cfg, is_train=is_train)
    print(f"* Using custom transform for {'training' if is_train else 'testing'}")
    return custom
