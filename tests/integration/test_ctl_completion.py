"""Completion of ``directorctl`` as bash, zsh and fish do it, with names from the running director."""

from __future__ import annotations

import os
import shutil
import sys

from twisted.trial.unittest import SkipTest

from tests.integration.ctl_kit import MAIN, CtlTestCase
from tests.integration.kit import service

#: What bash does when TAB is hit: call the function that is registered for the command, and look at COMPREPLY.
BASH = """
source <(directorctl completion bash)
function complete_words {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _directorctl_completion directorctl
    printf '%s\\n' "${COMPREPLY[@]}"
}
complete_words directorctl TYPED
"""

FISH = """
directorctl completion fish | source
complete -C 'directorctl LINE'
"""

#: zsh completes in its line editor only, so one is run behind a pseudo-terminal of zsh's own module.
ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f
zpty -w z 'PROMPT=; fpath=(DIRECTORY $fpath); autoload -Uz compinit; compinit -u -d DIRECTORY/dump; LISTMAX=1000
zstyle ":completion:*" list-colors ""; zstyle ":completion:*:default" menu no; print rea""dy'
until zpty -r z line && [[ $line == *ready* ]]; do :; done
zpty -n -w z $'directorctl LINE\t'
zpty -r -m z line '*END*'
print -r -- $line
zpty -d z
"""


class CompletionTests(CtlTestCase):
    async def begin(self, shell: str) -> None:
        if shutil.which(shell) is None:
            if os.environ.get("CI"):
                self.fail(f"{shell} is not installed")
            raise SkipTest(f"needs {shell}: apt-get install {shell}")
        await self.start(service({"app1": "127.0.0.1:9", "app2": "127.0.0.1:9", "other": "127.0.0.1:9"}))
        command = self.directory / "directorctl"
        command.write_text(f"#!/bin/sh\nexec {sys.executable} -c \"{MAIN}\" \"$@\"\n")
        command.chmod(0o755)
        self.environment |= {"PATH": f"{self.directory}:{os.environ['PATH']}", "HOME": str(self.directory)}

    async def bash(self, *words: str) -> set[str]:
        script = BASH.replace("TYPED", " ".join(f"'{word}'" for word in words))
        done = await self.run_command("bash", "-c", script)
        self.assertEqual(done.stderr, "")
        return set(done.stdout.split())

    async def test_bash(self) -> None:
        """Commands, options, and the names of services, groups and hosts; nothing and no noise without a director."""
        await self.begin("bash")
        self.assertEqual(await self.bash("dra"), {"drain"})
        self.assertEqual(await self.bash("drain", "--ti"), {"--timeout"})
        self.assertEqual(await self.bash("drain", "web/main/app"), {"web/main/app1", "web/main/app2"})
        self.assertEqual(await self.bash("group", "enable", ""), {"web/main"})
        self.assertEqual(await self.bash("explain", "192.0.2.7", "w"), {"web"})
        self.assertEqual(await self.bash("history", "web/main/o"), {"web/main/other"})
        self.url = "http://127.0.0.1:1"
        self.assertEqual(await self.bash("drain", "web"), set())

    async def test_fish(self) -> None:
        """fish completes commands and hosts."""
        await self.begin("fish")
        for line, wanted in (("dra", {"drain"}), ("drain web/main/app", {"web/main/app1", "web/main/app2"})):
            done = await self.run_command("fish", "-c", FISH.replace("LINE", line))
            self.assertEqual({each.split("\t")[0] for each in done.stdout.splitlines()}, wanted, done.stderr)

    async def test_zsh(self) -> None:
        """zsh completes what is alike, then lists the hosts."""
        await self.begin("zsh")
        (self.directory / "_directorctl").write_text(await self.ok("completion", "zsh"))
        script = ZSH.replace("DIRECTORY", str(self.directory)).replace("LINE", "drain web/main/o").replace("END", "other")
        done = await self.run_command("zsh", "-f", "-c", script)
        self.assertIn("drain web/main/other", done.stdout, done.stderr)
