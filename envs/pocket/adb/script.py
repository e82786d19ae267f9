"""A small part of the shell's language: quotes, `&&`, `||`, `;`, `|`, `>`, `>>`, `*` and `if ...; then ...; fi`.

Everything else that a shell knows (expansion, substitution, background jobs, input from files) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_OPERATOR = re.compile(r"&&|\|\||[12]?>>?(?:&[12])?|[|;&\n`<()]|\$\(")
DEEPEST = 8

Result = tuple[int, str]
Run = Callable[[list[str], str], Result]
"""argv and standard input -> (status, output)."""


class ScriptError(Exception):
    """The shell's message about a line that it does not understand."""


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    operator: bool = False
    glob: bool = False
    quoted: bool = False


def tokens(line: str) -> list[Token]:
    """Words and operators. Quoted operators and quoted * are words. Raises ScriptError."""
    found: list[Token] = []
    word: str | None = None
    glob = quoted = False
    k = 0
    while k < len(line):
        char = line[k]
        operator = None if word is not None and char.isdigit() else _OPERATOR.match(line, k)
        if char in "'\"":
            body, k = _quoted(line, k)
            word, quoted = (word or "") + body, True
        elif operator or char.isspace():
            if word is not None:
                found.append(Token(word, False, glob, quoted))
                word, glob, quoted = None, False, False
            if operator:
                found.append(Token(operator.group(), True))
            k += len(operator.group()) if operator else 1
        elif char == "\\" and k + 1 < len(line):
            word, k, quoted = (word or "") + line[k + 1], k + 2, True
        else:
            glob = glob or char == "*"
            word, k = (word or "") + char, k + 1
    return [*found, Token(word, False, glob, quoted)] if word is not None else found


def _quoted(line: str, start: int) -> tuple[str, int]:
    quote = line[start]
    end = line.find(quote, start + 1)
    while quote == '"' and end > 0 and (end - len(line[:end].rstrip("\\"))) % 2:
        end = line.find(quote, end + 1)
    if end < 0:
        raise ScriptError(f"unterminated quote {quote}")
    body = line[start + 1 : end]
    if quote == '"' and re.search(r"(?<!\\)[`$]", body):
        raise ScriptError("expansion is not supported")
    return (re.sub(r'\\(["\\`$])', r"\1", body) if quote == '"' else body), end + 1


class Script:
    """One line, run while it is parsed. write: (path, text, append) for redirections. expand: the paths of a pattern."""

    def __init__(
        self, line: str, run: Run, write: Callable[[str, str, bool], None], expand: Callable[[str], list[str]]
    ):
        self._tokens, self._at = tokens(line), 0
        self._run, self._write, self._expand = run, write, expand
        self._depth = 0

    def run(self) -> Result:
        """Raises ScriptError. Everything before the error has been run by then."""
        status, output = self._list((), True)
        if self._at < len(self._tokens):
            raise ScriptError(f"{self._tokens[self._at].text!r} is not supported")
        return status, output

    def _next(self, *operators: str) -> bool:
        """Whether one of these operators is next. If so, it is consumed."""
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        taken = token is not None and token.operator and token.text in operators
        self._at += taken
        return taken

    def _keyword(self) -> str:
        token = self._tokens[self._at] if self._at < len(self._tokens) else Token("", True)
        return "" if token.operator or token.quoted else token.text

    def _list(self, until: tuple[str, ...], live: bool) -> Result:
        status, output = 0, ""
        while True:
            while self._next(";", "\n"):
                pass
            if self._at == len(self._tokens) or self._keyword() in until:
                return status, output
            before = self._at
            status, text = self._and_or(live)
            output += text
            if self._at == before:
                return status, output

    def _and_or(self, live: bool) -> Result:
        status, output = self._pipe(live)
        while True:
            if self._next("&&"):
                go = live and status == 0
            elif self._next("||"):
                go = live and status != 0
            else:
                return status, output
            after, text = self._pipe(go)
            if go:
                status, output = after, output + text

    def _pipe(self, live: bool) -> Result:
        result = self._command(live, "")
        while self._next("|"):
            result = self._command(live, result[1])
        return result

    def _command(self, live: bool, given: str) -> Result:
        if self._keyword() == "if":
            return self._if(live)
        argv: list[str] = []
        target: tuple[str, str] | None = None
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if not token.operator:
                argv += self._expand(token.text) if token.glob else [token.text]
            elif ">" in token.text:
                if "&" not in token.text:
                    target = self._target(token.text) or target
            else:
                break
            self._at += 1
        status, output = self._run(argv, given) if live and argv else (0, "")
        if target and live:
            self._write(target[1], output, target[0].endswith(">>"))
            output = ""
        return status, output

    def _target(self, operator: str) -> tuple[str, str] | None:
        """The file of a redirection; None for standard error, which commands here do not use."""
        self._at += 1
        if self._at == len(self._tokens) or self._tokens[self._at].operator:
            raise ScriptError(f"no file after {operator!r}")
        path = self._tokens[self._at].text
        return None if operator.startswith("2") or path == "/dev/null" else (operator, path)

    def _if(self, live: bool) -> Result:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ScriptError("too many nested ifs")
        self._expect("if")
        status, said = self._list(("then",), live)
        self._expect("then")
        result = self._list(("else", "fi"), live and status == 0)
        if self._keyword() == "else":
            self._expect("else")
            other = self._list(("fi",), live and status != 0)
            result = result if status == 0 else other
        self._expect("fi")
        self._depth -= 1
        return result[0], said + result[1]

    def _expect(self, word: str) -> None:
        if self._keyword() != word:
            raise ScriptError(f"expected {word!r}")
        self._at += 1
