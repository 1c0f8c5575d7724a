"""The book-keeping of one call that encodes images: which are equal, known, done or unreadable."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skxma._runtime.warning import warn
from skxma.errors import ImageError
from skxma.images._rgb import GRAY, describe_narrow_range
from skxma.images._sources import ImageLike, path_of
from skxma.images._validation import _place
from skxma.store._memory import MemoryStore
from skxma.store._sqlite import EmbeddingStore

_KEYS_A_LOOKUP = 2048
_N_NAMED = 10


class EncodingJob:
    """One call's images, grouped by content.

    Parameters
    ----------
    items : sequence of length n_samples
        The images.
    n_views : int
        Views of each.
    seed : int or None
        What seeds the views; None for views of this call alone.

    Attributes
    ----------
    rows : dict of bytes to list of int
        The positions of each content.
    features : ndarray of shape (n_samples, n_features)
        Filled on the way.
    skipped : list of tuple (index, path, reason)
        The unreadable ones.
    dark : dict of bytes to str
        The contents of 16 bits that use a small part of their range, and the values that they have.
    """

    def __init__(self, items: Sequence[ImageLike], n_views: int, seed: int | None) -> None:
        self.items = items
        self.n_views = n_views
        self.seed = seed
        self.rows: dict[bytes, list[int]] = {}
        self.features: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self.skipped: list[tuple[int, str | None, str]] = []
        self.dark: dict[bytes, str] = {}
        self._entropy = np.random.SeedSequence().entropy if seed is None else seed

    @property
    def is_repeatable(self) -> bool:
        """Return True if another call would give the same result, so that it is worth keeping."""
        return self.n_views == 1 or self.seed is not None

    def view_seed(self, key: bytes) -> np.random.SeedSequence:
        """Return what seeds the views of one content.

        Parameters
        ----------
        key : bytes
            The content's digest.

        Returns
        -------
        seed : numpy.random.SeedSequence
        """
        # a SeedSequence takes no negative number
        entropy = abs(int(self._entropy)) * 2 + (int(self._entropy) < 0)  # type: ignore[arg-type]
        return np.random.SeedSequence([entropy, int.from_bytes(key, "big")])

    def take_known(self, store: MemoryStore | EmbeddingStore, namespace: str) -> Iterator[bytes]:
        """Fill what a store holds, and yield the keys that it lacks.

        Parameters
        ----------
        store : MemoryStore or EmbeddingStore
            Where to look.
        namespace : str
            The namespace of these features.

        Yields
        ------
        key : bytes
            Of a content that has to be encoded.
        """
        keys = list(self.rows)
        for start in range(0, len(keys), _KEYS_A_LOOKUP):
            some = keys[start : start + _KEYS_A_LOOKUP]
            found = store.get_many(some, namespace)
            for key in some:
                if key in found:
                    self.features[self.rows[key]] = found[key]
                else:
                    yield key

    def fill(self, keys: Sequence[bytes], values: NDArray[np.float32]) -> None:
        """Set the features of some contents wherever they occur.

        Parameters
        ----------
        keys : sequence of bytes of length b
            The contents.
        values : ndarray of shape (b, n_features)
            Their features.
        """
        for key, value in zip(keys, values, strict=True):
            self.features[self.rows[key]] = value

    def skip(self, indices: Sequence[int], error: ImageError) -> None:
        """Note images that can't be read; their features stay NaN.

        Parameters
        ----------
        indices : sequence of int
            Their positions.
        error : ImageError
            Why.
        """
        self.skipped += [(index, path_of(self.items[index]), error.reason) for index in indices]

    def note_dark(self, key: bytes, image: Image.Image) -> None:
        """Note an image of 16 bits that uses a small part of them.

        Parameters
        ----------
        key : bytes
            The content.
        image : PIL.Image.Image
            As it was read.
        """
        found = describe_narrow_range(image)
        if found is not None:
            self.dark[key] = found

    def warn_dark(self) -> None:
        """Warn once of all images of 16 bits that use a small part of them, naming the first."""
        if not self.dark:
            return
        indices = sorted(index for key in self.dark for index in self.rows[key])
        first = min(self.dark, key=lambda key: self.rows[key][0])
        place = _place(indices[0], path_of(self.items[indices[0]]))
        if any(found.startswith(GRAY) for found in self.dark.values()):
            remedy = (
                "Scale them, in Python by CLIPEncoder(..., rescale_16bit='range'), or rescale_16bit=12 where all hold "
                "12 bits; or convert them to 8 bits."
            )
        else:
            remedy = "Convert them to 8 bits, over the range that they use."
        warn(
            f"{len(indices)} of {len(self.items)} images have 16 bits and use a small part of their range, so they are "
            f"almost black or flat to the model, for instance {place}: {self.dark[first]}. {remedy}"
        )

    def warn_skipped(self) -> None:
        """Warn once of all images that can't be read, naming the first few."""
        if not self.skipped:
            return
        named = [
            f"image {index}" + ("" if path is None else f" ({path!r})") + f": {reason}"
            for index, path, reason in sorted(self.skipped)[:_N_NAMED]
        ]
        more = [f"and {len(self.skipped) - _N_NAMED} more"] if len(self.skipped) > _N_NAMED else []
        warn(
            "\n  ".join(
                [f"Skipped {len(self.skipped)} of {len(self.items)} images; their rows are NaN:", *named, *more]
            )
        )
