"""Cycles of moves: their schedules, their checks, and their form for compiled code."""

from __future__ import annotations

from collections.abc import Sequence

from saem.estep.moves import BlockWalk, Move

__all__ = ["active_moves", "check_moves", "encode"]


def check_moves(moves: Sequence[Move], what: str = "moves") -> list[str]:
    """List what is wrong with the moves of a cycle and their schedules.

    Parameters
    ----------
    moves : sequence of Move
    what : str
        How the messages call them.

    Returns
    -------
    list of str
    """
    found = [f"{what}: {type(move).__name__}: {text}" for move in moves for text in move.errors()]
    shapes: dict[int | None, set[str]] = {}
    for move in moves:
        if isinstance(move, BlockWalk):
            shapes.setdefault(move.size, set()).add(move.shape)
    if any(len(shape) > 1 for shape in shapes.values()):
        found.append(
            f"{what}: block walks of one size share their scale; give those of shape 'laplace' and "
            "'prior' different sizes"
        )
    for k in sorted({0, *(m.from_ for m in moves), *(m.until for m in moves if m.until)}):
        if not any(move.active(k) for move in moves):
            found.append(f"{what}: none is active in iteration {k}; remedy: from_ and until")
            break
    return found


def active_moves(moves: Sequence[Move], k: int) -> tuple[Move, ...]:
    """Return the moves that are made in iteration k.

    Parameters
    ----------
    moves : sequence of Move
    k : int

    Returns
    -------
    tuple of Move
    """
    return tuple(move for move in moves if move.active(k))


def encode(moves: Sequence[Move], d: int) -> tuple[list[float], int, int]:
    """Moves as numbers, with the normal and uniform numbers that one cycle uses.

    Parameters
    ----------
    moves : sequence of Move
    d : int
        Gaussian coordinates.

    Returns
    -------
    numbers : list of float
    n_normal, n_uniform : int
    """
    encoded: list[float] = []
    n_normal = n_uniform = 0
    for move in moves:
        encoded += move.numbers(d)
        normals, uniforms = move.uses(d)
        n_normal += move.sweeps * normals
        n_uniform += move.sweeps * uniforms
    return encoded, n_normal, n_uniform
