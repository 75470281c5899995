"""The digits that come with scikit-learn: real scans, no download, the default."""

from __future__ import annotations

from bench.data.source import DATASETS, Raw, Source


@DATASETS.register("digits")
class Digits(Source):
    """1,797 scanned handwritten digits embedded in scikit-learn, 8 x 8 upsampled to 32 x 32 grey.

    Our choices, fixed for every run: the 17 grey levels are stretched to 0..255, upsampling is PIL's bilinear
    (fixed-point, so the same bytes everywhere), and 360 images, stratified by class with
    `train_test_split(random_state=0)`, are the test set; 1,437 are left for training.
    """

    name = "digits"
    paper = "https://archive.ics.uci.edu/dataset/80"
    copies = ("embedded",)

    def place(self, copy: str) -> str:
        return "scikit-learn"

    def fingerprint(self, copy: str) -> str:
        return "load_digits, bilinear 32, stratified 1437/360"

    def parse(self, copy: str) -> Raw:
        import numpy as np
        from PIL import Image
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        large = [np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR)) for x in small]
        images = np.stack(large)[:, None]
        labels = digits.target.astype(np.int64)
        train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
        classes = tuple(str(digit) for digit in digits.target_names)
        return Raw(images[train], labels[train], images[test], labels[test], classes)
