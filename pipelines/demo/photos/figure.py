"""The walking figure: a skeleton in body units (see `geometry`), posed from a random generator.

Garments are drawn for an upright, symmetric body; `Pose.bend` carries them onto the posed one, so that every shape
follows the sway of the hips and the tilt of the shoulders.
"""

from dataclasses import dataclass

import numpy as np

UPPER_ARM, FOREARM, THIGH = 0.165, 0.140, 0.225
SHOULDER, HIP = (0.094, 0.192), (0.046, 0.500)
ARM_ANGLES_DEG = {  # (upper arm, forearm): low, high; outwards from vertical is positive
    "swing": ((9.0, 17.0), (-2.0, 10.0)),
    "hip": ((38.0, 46.0), (-58.0, -46.0)),
    "pocket": ((20.0, 26.0), (-22.0, -13.0)),
    "across": ((10.0, 16.0), (-98.0, -72.0)),
    "carry": ((12.0, 18.0), (0.0, 8.0)),
    "crook": ((16.0, 24.0), (-128.0, -112.0)),
}


@dataclass(frozen=True)
class Limb:
    """Three joints, (3, 2) body units from the trunk outwards; `kind` names the gesture, `behind` its depth."""

    joints: np.ndarray
    kind: str
    side: int  # -1 left of the picture, +1 right
    behind: bool

    @property
    def reach(self) -> np.ndarray:
        """Return the unit vector (2,) of the outer bone."""
        bone = self.joints[2] - self.joints[1]
        return bone / max(float(np.hypot(*bone)), 1e-6)


@dataclass(frozen=True)
class Pose:
    """Where the body is: the curve of the spine, two tilts, two arms, two legs (the rear leg first)."""

    spine_x: tuple[float, ...]  # at SPINE_Y
    tilts: tuple[float, float]  # shoulders, hips: rise per unit of x
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]

    SPINE_Y = (0.0, 0.17, 0.37, 0.50, 1.0)

    def bend(self, points: np.ndarray) -> np.ndarray:
        """Carry (N, 2) points of the upright body onto the posed one."""
        x, y = np.asarray(points, dtype=np.float64).T
        shift = np.interp(y, self.SPINE_Y, self.spine_x)
        tilt = np.interp(y, (0.10, 0.19, 0.37, 0.50, 0.95), (0.0, self.tilts[0], 0.0, self.tilts[1], 0.0))
        return np.stack([x + shift, y + x * tilt], axis=1)

    def spot(self, x: float, y: float) -> np.ndarray:
        """Carry one point of the upright body onto the posed one; returns (2,)."""
        return self.bend(np.array([[x, y]]))[0]


def sample_pose(rng: np.random.Generator, arm_kinds: tuple[str, str]) -> Pose:
    """Pose a figure in mid-step or standing; `arm_kinds` names the gestures of the left and the right arm."""
    side = int(rng.choice([-1, 1]))
    sway = side * rng.uniform(0.0, 0.014)
    spine = (rng.uniform(-0.008, 0.008), 0.0, 0.4 * sway, sway, 0.3 * sway)
    tilts = (-side * rng.uniform(0.0, 0.07), side * rng.uniform(0.0, 0.06))
    bare = Pose(spine, tilts, (_NOBODY, _NOBODY), (_NOBODY, _NOBODY))
    arms = (_arm(rng, bare, -1, arm_kinds[0]), _arm(rng, bare, 1, arm_kinds[1]))
    return Pose(spine, tilts, arms, _legs(rng, bare, side))


def _arm(rng: np.random.Generator, bare: Pose, side: int, kind: str) -> Limb:
    upper_deg, lower_deg = (rng.uniform(*band) for band in ARM_ANGLES_DEG[kind])
    shoulder = bare.spot(side * SHOULDER[0], SHOULDER[1])
    elbow = shoulder + UPPER_ARM * _swing(upper_deg, side)
    wrist = elbow + FOREARM * _swing(lower_deg, side)
    return Limb(np.array([shoulder, elbow, wrist]), kind, side, kind == "swing" and bool(rng.random() < 0.5))


def _swing(angle_deg: float, side: int) -> np.ndarray:
    angle = np.deg2rad(angle_deg)
    return np.array([side * np.sin(angle), np.cos(angle)])


def _legs(rng: np.random.Generator, bare: Pose, front: int) -> tuple[Limb, Limb]:
    """Return the rear and the front leg; in a standing pose both reach the floor."""
    stride = rng.choice([0.0, rng.uniform(0.35, 1.0)], p=[0.25, 0.75])
    legs = []
    for side in (-front, front):
        rear = side != front
        hip = bare.spot(side * HIP[0], HIP[1])
        lift = 0.052 * stride if rear else 0.0
        foot_x = side * (rng.uniform(0.050, 0.066) - 0.010 * stride)
        ankle = np.array([foot_x, 0.936 - lift])
        knee = 0.5 * (hip + ankle) + (side * rng.uniform(0.002, 0.010), 0.012 - 0.2 * lift)
        legs.append(Limb(np.array([hip, knee, ankle]), "walk" if stride else "stand", side, rear))
    return legs[0], legs[1]


_NOBODY = Limb(np.zeros((3, 2)), "none", 1, False)
