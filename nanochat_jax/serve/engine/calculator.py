"""The calculator a model may call: nanochat's acceptance rules, evaluated by a walk of the syntax.

The original hands the expression to Python's `eval` under a timer. Here only the node kinds below
exist: numbers, text and a few harmless methods of text. No timer is needed: without `**` no result
is longer than its expression. Source: nanochat `nanochat/engine.py` (rules, not evaluation).
"""

import ast
import operator

ARITHMETIC = frozenset("0123456789*+-/.() ")
TEXT_CALL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'\"()._ ")
# Nothing here could reach what these name. The original refuses them, so 'directory'.count('r') has
# no result there, and must have none here.
FORBIDDEN = (
    "__ import exec eval compile open file input raw_input globals locals vars dir "
    "getattr setattr delattr hasattr"
).split()
BINARY = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
}  # fmt: skip
UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}
# None of these can return something much longer than what it was given.
METHODS = frozenset(
    "count find rfind index rindex lower upper casefold capitalize title swapcase strip lstrip "
    "rstrip startswith endswith removeprefix removesuffix isalpha isdigit isalnum isupper islower "
    "isspace istitle isnumeric isdecimal isascii".split()
)


def use_calculator(expression: str) -> int | float | str | bool | None:
    """The value of `expression`, or None when the rules refuse it or it has no value.

    Accepted: arithmetic with + - * / // and parentheses, and `'text'.count('t')`.
    """
    # GSM8K writes 1,000; inside quotes a comma to count is lost by it, as in the original.
    expression = expression.replace(",", "")
    if not _accepted(expression):
        return None
    try:
        value = _value(ast.parse(expression.lstrip(" "), mode="eval").body)
        str(value)  # a number of more than 4300 digits has no text
    except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError):
        return None
    return value


def _accepted(expression: str) -> bool:
    """Whether the original would evaluate `expression` (commas already gone)."""
    if ARITHMETIC.issuperset(expression):
        return "**" not in expression  # 9**9**9 would never end
    forbidden = any(word in expression.lower() for word in FORBIDDEN)
    return TEXT_CALL.issuperset(expression) and ".count(" in expression and not forbidden


def _value(node: ast.expr) -> int | float | str | bool:
    """Evaluates the few node kinds we know; raises ValueError or TypeError on any other."""
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.BinOp(left, op, right) if type(op) in BINARY:
            return BINARY[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op, operand) if type(op) in UNARY:
            return UNARY[type(op)](_value(operand))
        case ast.Call(ast.Attribute(receiver, name), args, []) if name in METHODS:
            return getattr(str, name)(_value(receiver), *map(_value, args))
    raise ValueError(f"{type(node).__name__} is not something the calculator knows")
