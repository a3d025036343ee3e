"""Pictures of few grey levels out of a few noisy projections: the smallest largest residual, by `kernels.min_max`.

    python examples/tomography.py

The problem is min_x max_k |a_k x - b_k| with x on a grid (Ahmed et al., 2025): rows of A are the rays of parallel
beams, b is what the detectors read, with uniform noise, and x the pixels. The search starts from SART, rounded to the
nearest levels, and is compared with it over a few pictures.
"""

import numpy as np

from subbyte import kernels

SIZE, ANGLES, NOISE, PICTURES = 24, 8, 200.0, 5
DETECTORS = SIZE + SIZE // 2
random = np.random.default_rng(0)


def rays() -> np.ndarray:
    """[angles * detectors, pixels]: at each angle a pixel's centre falls between two detectors, which share it."""
    y, x = np.mgrid[:SIZE, :SIZE].reshape(2, -1) - (SIZE - 1) / 2
    pixel = np.arange(SIZE * SIZE)
    a = np.zeros((ANGLES, DETECTORS, SIZE * SIZE))
    for beam, angle in zip(a, np.pi * np.arange(ANGLES) / ANGLES, strict=True):
        place = x * np.cos(angle) + y * np.sin(angle) + (DETECTORS - 1) / 2
        left = np.floor(place).astype(int)
        beam[left, pixel], beam[left + 1, pixel] = left + 1 - place, place - left
    return a.reshape(-1, SIZE * SIZE)


def discs(levels: int) -> np.ndarray:
    """[pixels], numbers of levels: three discs of each level above the ground, at random, later ones on top."""
    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1) * 2 - 1
    picture = np.zeros((SIZE, SIZE), int)
    for level in np.repeat(np.arange(1, levels), 3):
        centre, radius = random.uniform(-0.5, 0.5, 2), random.uniform(0.15, 0.4)
        picture[np.hypot(x - centre[0], y - centre[1]) < radius] = level
    return picture.ravel()


def sart(a: np.ndarray, b: np.ndarray, sweeps: int = 20) -> np.ndarray:
    """[pixels]: angle after angle, each pixel takes half of its share of what is missing on its rays."""
    x = np.zeros(SIZE * SIZE)
    for _ in range(sweeps):
        for beam, read in zip(np.split(a, ANGLES), np.split(b, ANGLES), strict=True):
            missing = (read - beam @ x) / np.maximum(beam.sum(1), 1e-9)
            x += 0.5 * (beam.T @ missing) / beam.sum(0)
    return x


a, closer = rays(), []
for levels in (2, 4):
    grey = np.linspace(0, 255, levels)
    true = np.stack([discs(levels) for _ in range(PICTURES)])
    b = grey[true] @ a.T
    b += random.uniform(-NOISE, NOISE, b.shape)
    start = np.stack([np.abs(grey - sart(a, read)[:, None]).argmin(1) for read in b])
    found, _, _ = kernels.min_max(
        a.astype(np.float32),
        b.astype(np.float32),
        np.tile(grey.astype(np.float32), (PICTURES, 1)),
        start.astype(np.uint8),
        iterations=10,
        moves="both",
    )
    print(f"{levels} grey levels, noise up to {NOISE:.0f}, means of {PICTURES} pictures:")
    errors = []
    for name, codes in (("SART, rounded", start), ("searched", found), ("the truth", true)):
        errors.append(np.abs(grey[codes] - grey[true]).mean())
        largest = np.abs(grey[codes] @ a.T - b).max(1).mean()
        print(f"  {name:14} error of a pixel {errors[-1]:5.2f}, largest residual {largest:5.1f}")
    closer.append(errors[1] < errors[0])
print(f"closer to the truth than SART at 2 and at 4 levels: {all(closer)}")
