r"""Formulas in HTML pages become LaTeX in dollar signs, before the main text is extracted.

Contract: `with_latex` changes a parsed page in place: MathML, MathJax scripts and delimiters, and formula images with
their source as `alt` become `$…$`, in a display `$$…$$`. A formula's own TeX (annotation, `alttext`) is preferred;
MathML without it is converted element by element. What has no LaTeX name stays the Unicode character it is.
Source: MathML Core (W3C); commands of LaTeX with amsmath. Cost: nothing for a page without formulas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_SIGN = re.compile(r"<(?:\w+:)?math\b|math/tex|mwe-math|class=[\"'][^\"']*\b(?:tex|latex)\b|\\[(\[]", re.I)
_DELIMITED = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
_LITERAL = frozenset({"code", "pre", "script", "style", "textarea", "kbd", "samp"})
_IMAGE_CLASS = re.compile(r"\b(?:mwe-math|tex|latex)\b")
_SCRIPTS = "script"
_SPACE = re.compile(r"\s+")
_COMMAND = re.compile(r"\\[A-Za-z]+$")
_DISPLAYED = re.compile(r"^\{?\\displaystyle\s*(.*?)\}?$", re.S)

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho",
    "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "varphi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi",
    "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_OPERATORS = {
    "−": "-", "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "÷": r"\div", "±": r"\pm", "∓": r"\mp", "≤": r"\le",
    "≥": r"\ge", "≠": r"\ne", "≈": r"\approx", "≡": r"\equiv", "∼": r"\sim", "≃": r"\simeq", "∝": r"\propto",
    "∞": r"\infty", "∂": r"\partial", "∇": r"\nabla", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∬": r"\iint",
    "∮": r"\oint", "√": r"\surd", "→": r"\to", "⟶": r"\to", "←": r"\leftarrow", "⇒": r"\Rightarrow",
    "⇔": r"\Leftrightarrow", "↔": r"\leftrightarrow", "↦": r"\mapsto", "∈": r"\in", "∉": r"\notin", "⊂": r"\subset",
    "⊆": r"\subseteq", "∪": r"\cup", "∩": r"\cap", "∅": r"\emptyset", "∀": r"\forall", "∃": r"\exists", "¬": r"\neg",
    "∧": r"\wedge", "∨": r"\vee", "…": r"\dots", "⋯": r"\cdots", "⋮": r"\vdots", "∘": r"\circ", "°": r"^{\circ}",
    "⊥": r"\perp", "∥": r"\parallel", "∠": r"\angle", "⟨": r"\langle", "⟩": r"\rangle", "‖": r"\|", "ℏ": r"\hbar",
    "ℓ": r"\ell", "≪": r"\ll", "≫": r"\gg", "⊗": r"\otimes", "⊕": r"\oplus", "†": r"\dagger", "′": "'", "{": r"\{",
    "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "_": r"\_", "\u2061": "", "\u2062": "", "\u2063": ",",
    "\u2064": "", "\xa0": " ",
}  # fmt: skip
_NAMES = {**{char: f"\\{name}" for char, name in _GREEK.items()}, **_OPERATORS}
_FUNCTIONS = frozenset(
    [
        "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln",
        "exp", "lim", "max", "min", "sup", "inf", "det", "dim", "gcd",
    ]
)  # fmt: skip
_OVER = {
    "→": r"\vec", "⃗": r"\vec", "^": r"\hat", "ˆ": r"\hat", "¯": r"\overline", "‾": r"\overline", "―": r"\overline",
    "_": r"\overline", "~": r"\tilde", "˜": r"\tilde", "˙": r"\dot", ".": r"\dot", "¨": r"\ddot", "⏞": r"\overbrace",
}  # fmt: skip
_UNDER = {"_": r"\underline", "‾": r"\underline", "¯": r"\underline", "⏟": r"\underbrace"}


def has_formulas(html: str) -> bool:
    """Whether a page may hold anything for `with_latex`."""
    return _SIGN.search(html) is not None


def with_latex(tree: Any) -> int:
    """Replace the formulas of a parsed page (an lxml element); returns how many."""
    replaced = 0
    for element in list(_formulas(tree)):
        latex, display = _source_of(element)
        if not latex or element.getparent() is None:
            continue
        # KaTeX and MathJax put MathML beside the glyphs they draw: both go.
        target = _rendered(element)
        mark = "$$" if display else "$"
        _replace(target, f" {mark}{latex}{mark} " if display else f"{mark}{latex}{mark}")
        replaced += 1
    return replaced + _delimited(tree)


def _delimited(tree: Any) -> int:
    r"""`\(…\)` and `\[…\]`, as MathJax reads them in running text."""
    replaced = 0
    for element in tree.iter():
        in_text = isinstance(element.tag, str) and _name(element) not in _LITERAL
        if in_text and element.text and "\\" in element.text:
            element.text, count = _DELIMITED.subn(_dollars, element.text)
            replaced += count
        if element.tail and "\\" in element.tail:
            element.tail, count = _DELIMITED.subn(_dollars, element.tail)
            replaced += count
    return replaced


def _dollars(match: re.Match[str]) -> str:
    return f"${match[1].strip()}$" if match[1] is not None else f"$${match[2].strip()}$$"


def latex_of(math: Any) -> str:
    """LaTeX of a MathML element, without dollar signs."""
    return _SPACE.sub(" ", _convert(math)).strip()


def _formulas(tree: Any) -> Iterator[Any]:
    for element in tree.iter():
        name = _name(element)
        kind = (element.get("type") or "") if name in (_SCRIPTS, "img") else ""
        if name == "math" or (name == _SCRIPTS and kind.startswith("math/tex")):
            yield element
        elif name == "img" and element.get("alt") and _IMAGE_CLASS.search(element.get("class", "")):
            # Wikipedia gives both: the image is for browsers without MathML.
            yield from [element] * all(_name(one) != "math" for one in _wrapper(element).iter())


def _wrapper(element: Any) -> Any:
    for parent in element.iterancestors():
        if "mwe-math-element" in parent.get("class", ""):
            return parent
    return element


def _source_of(element: Any) -> tuple[str, bool]:
    """(LaTeX, whether it is displayed)."""
    if _name(element) == _SCRIPTS:
        return _tidy(element.text or ""), "mode=display" in element.get("type", "")
    if _name(element) == "img":
        return _tidy(element.get("alt")), "display" in element.get("class", "")
    display = element.get("display") == "block" or element.get("mode") == "display"
    for child in element.iter():
        if _name(child) == "annotation" and "tex" in (child.get("encoding") or "").lower() and child.text:
            return _tidy(child.text), display
    stated = element.get("alttext")
    return (_tidy(stated) if stated and "\\" in stated else latex_of(element)), display


def _tidy(latex: str) -> str:
    return _SPACE.sub(" ", _DISPLAYED.sub(r"\1", latex.strip())).strip().strip("$").strip()


def _rendered(element: Any) -> Any:
    for parent in element.iterancestors():
        if any(name in parent.get("class", "").split() for name in ("katex", "mwe-math-element", "MathJax")):
            return parent
        if _name(parent) in ("p", "div", "body", "article", "li", "td"):
            break
    return element


def _replace(element: Any, text: str) -> None:
    parent, before = element.getparent(), element.getprevious()
    text += element.tail or ""
    if before is not None:
        before.tail = (before.tail or "") + text
    else:
        parent.text = (parent.text or "") + text
    parent.remove(element)


def _name(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1].rsplit(":", 1)[-1].lower() if isinstance(element.tag, str) else ""


def _convert(element: Any) -> str:
    name = _name(element)
    found = _ELEMENTS.get(name)
    children = [child for child in element if _name(child) not in ("", "annotation", "annotation-xml")]
    return found(element, children) if found is not None else _row(element, children)


def _row(element: Any, children: list[Any]) -> str:
    out = ""
    for part in (_convert(child) for child in children) if children else [_symbols(element.text or "")]:
        # A command must not run into the letter after it.
        out += f" {part}" if _COMMAND.search(out) and part[:1].isalpha() else part
    return out


def _symbols(text: str) -> str:
    out = ""
    for char in _SPACE.sub(" ", text.strip()):
        part = _NAMES.get(char, char)
        out += f" {part}" if _COMMAND.search(out) and part[:1].isalpha() else part
    return out


def _identifier(element: Any, children: list[Any]) -> str:
    text = (element.text or "").strip()
    if text in _FUNCTIONS:
        return f"\\{text} "
    if len(text) > 1 and text.isalpha():
        return f"\\mathrm{{{text}}}"
    bold = element.get("mathvariant") == "bold"
    return f"\\mathbf{{{_symbols(text)}}}" if bold else _symbols(text)


def _operator(element: Any, children: list[Any]) -> str:
    text = (element.text or "").strip()
    if text in _FUNCTIONS:
        return f"\\{text} "
    out = _symbols(text)
    return f" {out} " if text in "=<>+−-×÷±≤≥≠≈≡→⇒∈∝∼" and text else out


def _text(element: Any, children: list[Any]) -> str:
    text = "".join(element.itertext())
    return f"\\text{{{_SPACE.sub(' ', text)}}}" if text.strip() else " "


def _group(element: Any) -> str:
    inner = _convert(element).strip()
    return f"{{{inner}}}"


def _base(element: Any) -> str:
    """What an index is put to: in braces when it is more than one symbol."""
    inner = _convert(element).strip()
    return inner if len(inner) == 1 or _COMMAND.fullmatch(inner) else f"{{{inner}}}"


def _fraction(element: Any, children: list[Any]) -> str:
    return f"\\frac{_group(children[0])}{_group(children[1])}" if len(children) == 2 else _row(element, children)


def _with_indices(marks: str) -> Callable[[Any, list[Any]], str]:
    def made(element: Any, children: list[Any]) -> str:
        if len(children) != len(marks) + 1:
            return _row(element, children)
        return _base(children[0]) + "".join(
            f"{mark}{_group(child)}" for mark, child in zip(marks, children[1:], strict=True)
        )

    return made


def _accented(table: dict[str, str], mark: str) -> Callable[[Any, list[Any]], str]:
    def made(element: Any, children: list[Any]) -> str:
        if len(children) != 2:
            return _row(element, children)
        accent = table.get("".join(children[1].itertext()).strip())
        return f"{accent}{_group(children[0])}" if accent else f"{_base(children[0])}{mark}{_group(children[1])}"

    return made


def _root(element: Any, children: list[Any]) -> str:
    if _name(element) == "mroot" and len(children) == 2:
        return f"\\sqrt[{_convert(children[1]).strip()}]{_group(children[0])}"
    return f"\\sqrt{{{_row(element, children).strip()}}}"


def _fenced(element: Any, children: list[Any]) -> str:
    left, right = element.get("open", "("), element.get("close", ")")
    inner = (element.get("separators", ",")[:1] or ",").join(_convert(child).strip() for child in children)
    return f"\\left{_symbols(left) or '.'}{inner}\\right{_symbols(right) or '.'}"


def _table(element: Any, children: list[Any]) -> str:
    rows = [
        " & ".join(_convert(cell).strip() for cell in row) for row in children if _name(row) in ("mtr", "mlabeledtr")
    ]
    return r"\begin{matrix}" + r" \\ ".join(rows) + r"\end{matrix}"


def _blank(element: Any, children: list[Any]) -> str:
    return " "


def _nothing(element: Any, children: list[Any]) -> str:
    return ""


_ELEMENTS: dict[str, Callable[[Any, list[Any]], str]] = {
    "mi": _identifier, "mo": _operator, "mtext": _text, "ms": _text, "mfrac": _fraction, "msqrt": _root,
    "mroot": _root, "msup": _with_indices("^"), "msub": _with_indices("_"), "msubsup": _with_indices("_^"),
    "munderover": _with_indices("_^"), "mover": _accented(_OVER, "^"), "munder": _accented(_UNDER, "_"),
    "mfenced": _fenced, "mtable": _table, "mspace": _blank, "none": _nothing, "mprescripts": _nothing,
    "mphantom": _nothing,
}  # fmt: skip
