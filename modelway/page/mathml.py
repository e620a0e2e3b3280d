"""Turns LaTeX into MathML, which browsers draw by themselves."""

from __future__ import annotations

import re
from html import escape

from latex2mathml import exceptions
from latex2mathml.converter import convert

_LONGEST = 4000
# Browsers leave no space around the name of a function, such as log.
_SPACE = '<mspace width="0.17em"></mspace>'
_BEFORE = re.compile(r"(?<=</m[in]>)(?=<mi>[a-z]{2,}</mi>)")
_AFTER = re.compile(r"(?<=[a-z]{2}</mi>)(?=<m[in]>)")
_FAILURES: tuple[type[Exception], ...] = (
    exceptions.DenominatorNotFoundError,
    exceptions.DoubleSubscriptsError,
    exceptions.DoubleSuperscriptsError,
    exceptions.ExtraLeftOrMissingRightError,
    exceptions.InvalidAlignmentError,
    exceptions.InvalidStyleForGenfracError,
    exceptions.InvalidWidthError,
    exceptions.LimitsMustFollowMathOperatorError,
    exceptions.MissingEndError,
    exceptions.MissingSuperScriptOrSubscriptError,
    exceptions.NoAvailableTokensError,
    exceptions.NumeratorNotFoundError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    StopIteration,
    TypeError,
    ValueError,
)


def mathml(latex: str, *, display: bool) -> str:
    """MathML of a formula; its source as code where it is none that can be read."""
    if len(latex) <= _LONGEST:
        try:
            written = convert(latex.strip(), display="block" if display else "inline")
            return _AFTER.sub(_SPACE, _BEFORE.sub(_SPACE, written))
        except _FAILURES:
            pass
    return f'<code class="formula">{escape(latex)}</code>'
