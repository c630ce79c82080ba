"""Classifiers: the share of images with the same best class."""

from __future__ import annotations

from visionrt.metrics.base import Agreement, mean, share
from visionrt.results import Classification


class TopOneAgreement:
    """Share of images whose best class is the same. An image without a class agrees with none."""

    metric = "top1"

    def __init__(self) -> None:
        self._images = 0
        self._same = 0
        self._shift = 0.0

    def update(self, reference: Classification, candidate: Classification) -> None:
        """Take the two results of one image."""
        self._images += 1
        if len(reference) and len(candidate):
            self._same += int(reference.class_id[0] == candidate.class_id[0])
            self._shift += abs(float(reference.confidence[0]) - float(candidate.confidence[0]))

    def agreement(self) -> Agreement:
        """Details: ``same``, and ``confidence_shift``, the mean change of the best score."""
        return Agreement(
            self.metric,
            self._images,
            share(self._same, self._images),
            details={"same": self._same, "confidence_shift": mean(self._shift, self._images)},
        )
